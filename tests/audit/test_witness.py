"""A host as a witness: it believes a log that only grows and has our rows; anything else ends every release until settled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.audit import our_rows
from prism_vault_agent.audit import witness as module
from prism_vault_agent.audit.held import WitnessFiles
from prism_vault_agent.audit.witness import Unwitnessed, Witness
from prism_vault_agent.errors import AuditUnavailable, IntegrityError
from prism_vault_agent.proof.keys import SigningKey
from tests.audit.signed_log import KEY, NAME, SignedLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SETTLE", "EVERY", "PAUSE_FIRST", "PAUSE_LONGEST"):
        monkeypatch.setattr(module, name, 0.0)


@pytest.fixture
def files(tmp_path: Path) -> WitnessFiles:
    return WitnessFiles(str(tmp_path), NAME)


class Played:
    """A witness that runs, and the notes that it made."""

    def __init__(self, witness: Witness, log: SignedLog) -> None:
        self.witness = witness
        self.log = log
        self.notes: list[str] = []
        witness.note = lambda reason, _message: self.notes.append(reason)

    def tells(self, *bodies: bytes, publish: bool = True) -> None:
        """Have central append events of ours, and the witness hear of it."""
        self.witness.heard(*self.log.append(*bodies, publish=publish))

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition."""
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - the witness has no event for it
                await asyncio.sleep(0.001)

    async def refused(self, match: str, *, written: bool = True) -> None:
        """Fail unless nothing is released, for this reason; the evidence is ``written`` then."""
        await self.until(lambda: isinstance(self.witness.refusal, IntegrityError))
        with pytest.raises(IntegrityError, match=match) as raised:
            await self.witness.vouch(5)
        assert raised.value.exit_status == 65
        assert "prism-vault witness show" in raised.value.mend
        if written:
            await self.until(lambda: os.path.exists(self.witness._files.evidence))


def play(files: WitnessFiles, log: SignedLog, work: Callable[[Played], Awaitable[None]]) -> list[str]:
    """Run a witness of ``log`` with what ``files`` hold, do ``work``, end it as an agent does; return its notes."""

    async def run() -> list[str]:
        played = Played(Witness([KEY.verifying_key], log.get, files), log)
        running = asyncio.create_task(played.witness.run())
        try:
            async with asyncio.timeout(30):
                await work(played)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        await played.witness.close()
        return played.notes

    return asyncio.run(run())


async def _vouched(played: Played) -> None:
    await played.witness.vouch(5)


def _grown(*sizes: int) -> SignedLog:
    log = SignedLog()
    for size in sizes:
        log.append(*(b"%d" % (log.n + number) for number in range(size)))
    return log


def test_nothing_is_released_before_the_log_was_looked_at(files: WitnessFiles) -> None:
    """Until central has shown its log after a start, nothing is vouched for; then it is, and the checkpoint is kept."""
    log = _grown(3)
    log.away = AuditUnavailable("central is away")

    async def work(played: Played) -> None:
        with pytest.raises(AuditUnavailable, match="log is not proved: central is away") as raised:
            await played.witness.vouch(0.05)
        assert raised.value.reason == "unproved"
        assert played.witness.tell()["state"] == "unproved"
        log.away = None
        await played.witness.vouch(5)
        assert played.witness.refusal is None

    assert play(files, log, work) == []
    assert files.load().checkpoint == log.checkpoint(3)


def test_an_empty_log_can_be_vouched_for(files: WitnessFiles) -> None:
    """The first host of a new central finds no checkpoint, and goes on; its first row brings the first one."""
    log = SignedLog()

    async def work(played: Played) -> None:
        await played.witness.vouch(5)
        played.tells(b"first")
        await played.until(lambda: played.witness.tell()["size"] == 1)

    play(files, log, work)
    assert files.load().checkpoint == log.checkpoint(1)


def test_each_piece_of_news_is_looked_at(files: WitnessFiles) -> None:
    """After rows of ours the newest checkpoint is fetched and kept, with a proof of growth, and one of our rows is proved."""
    log = _grown(2)

    async def work(played: Played) -> None:
        await played.witness.vouch(5)
        for number in range(5):
            played.tells(b"a%d" % number, b"b%d" % number)
            await played.until(lambda: played.witness.tell()["size"] == len(log.rows))
            await played.until(lambda: not played.witness._ours.pending)

    play(files, log, work)
    assert files.load().checkpoint == log.checkpoint(12)
    assert sum("/proof/" in path for path in log.asked) >= 5


@pytest.mark.parametrize("before", [1, 5])
def test_a_log_that_was_rolled_back_is_refused_by_the_next_agent_too(files: WitnessFiles, before: int) -> None:
    """An old database in place of the log is noticed at the next look and at the next start, and by every agent after that."""
    log = _grown(before)
    restored = _grown(before)

    async def first(played: Played) -> None:
        await played.witness.vouch(5)
        played.tells(b"x", b"y")
        await played.until(lambda: played.witness.tell()["size"] == before + 2)

    async def refused(played: Played) -> None:
        await played.refused(f"went back to {before} rows, after a checkpoint about {before + 2}")
        assert played.witness.tell()["state"] == "refused"
        assert played.witness.tell()["evidence"] == files.evidence

    play(files, log, first)
    assert play(files, restored, refused) == ["log_refused"]
    # Whatever central shows now: the evidence is there.
    play(files, log, refused)
    with open(files.evidence, encoding="utf-8") as file:
        evidence = json.load(file)
    assert json.loads(evidence["held"])["note"] == log.note(before + 2)
    assert json.loads(evidence["given"])["note"] == restored.note(before)
    assert evidence["keys"] == [str(KEY.verifying_key)]


def test_a_fork_is_refused_while_the_agent_runs(files: WitnessFiles) -> None:
    """A log that has other rows than those that we know, and more of them, is refused at the next look."""
    log = _grown(3)

    async def work(played: Played) -> None:
        await played.witness.vouch(5)
        log.rows = [(n, bytes(32)) for n, _ in log.rows]
        played.tells(b"x")
        await played.refused("is not shown to begin with the 3 of an earlier checkpoint")

    assert play(files, log, work) == ["log_refused"]
    held = files.load().checkpoint
    assert held is not None
    assert held.size == 3


def test_a_checkpoint_signed_by_somebody_else_is_refused(files: WitnessFiles) -> None:
    """Another signature, or another origin, is another log."""
    log = _grown(3)

    async def work(played: Played) -> None:
        await played.witness.vouch(5)
        played.log.key = SigningKey.generate(NAME)
        played.witness._news.set()
        await played.refused("is not signed by")

    play(files, log, work)
    assert files.load().checkpoint == log.checkpoint(3)


def test_a_key_that_is_being_replaced_raises_no_alarm(files: WitnessFiles) -> None:
    """With both keys configured the log goes on from checkpoints of the one to those of the other; the newest may be either's."""
    log, new = _grown(3), SigningKey.generate(NAME)

    async def run() -> None:
        witness = Witness([KEY.verifying_key, new.verifying_key], log.get, files)
        running = asyncio.create_task(witness.run())
        try:
            async with asyncio.timeout(20):
                await witness.vouch(5)
                for signer in (new, KEY):
                    log.key = signer
                    witness.heard(*log.append(b"x"))
                    await Played(witness, log).until(lambda: witness.tell()["size"] == len(log.rows))
                await witness.vouch(5)
        finally:
            running.cancel()

    asyncio.run(run())
    assert not os.path.exists(files.evidence)


def test_a_row_that_was_signed_for_and_never_was_put_on_the_log_is_noticed(files: WitnessFiles) -> None:
    """Each row may be the one that is drawn: a central that leaves out what it has signed for is found out, with its receipt."""
    log = _grown(3)

    async def work(played: Played) -> None:
        await played.witness.vouch(5)
        played.tells(b"kept", publish=False)
        await played.until(lambda: any("/proof/" in path for path in log.asked))
        log.rows[-1] = (log.n + 1, log.rows[-1][1])
        log.publish()
        await played.refused(f"row {log.n} is not on the log, though central has signed for it")

    play(files, log, work)
    with open(files.evidence, encoding="utf-8") as file:
        evidence = json.load(file)
    assert evidence["row"]["n"] == log.n
    assert evidence["row"]["receipt"]["rows"][0][0] == log.n


def test_every_row_can_be_the_one_that_is_drawn(files: WitnessFiles) -> None:
    """The lot falls on the first, on a middle one and on the last row alike."""
    drawn = set()
    for _ in range(200):
        log = SignedLog()
        witness = Witness([KEY.verifying_key], log.get, files)
        witness.heard(*log.append(b"1", b"2"))
        witness.heard(*log.append(b"3"))
        row = witness._ours.draw()
        assert row is not None
        drawn.add(row.n)
    assert drawn == {1, 2, 3}


def test_looks_go_on_until_the_newest_row_is_proved(files: WitnessFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever row the lot falls on, the witness does not rest before the newest one, in a later checkpoint, is proved too."""
    monkeypatch.setattr(our_rows, "_LOT", SimpleNamespace(randrange=lambda rows: rows - 1))  # always the first row
    log = SignedLog()

    async def work(played: Played) -> None:
        await played.witness.vouch(5)
        played.tells(b"1")
        played.tells(b"2", publish=False)
        await played.until(lambda: any("/proof/1?" in path for path in log.asked))
        log.publish()
        await played.until(lambda: any("/proof/2?" in path for path in log.asked))
        await played.until(lambda: not played.witness._ours.pending)

    play(files, log, work)
    assert files.load().checkpoint == log.checkpoint(2)


def test_the_newest_row_before_an_end_is_proved_after_the_next_start(files: WitnessFiles) -> None:
    """A row that no checkpoint had when the agent ended is remembered: a log without it is refused by the next agent."""
    log = _grown(3)

    async def work(played: Played) -> None:
        await played.witness.vouch(5)
        played.tells(b"last words", publish=False)

    async def refused(played: Played) -> None:
        await played.refused("row 4 is (another one on the log than|not on the log, though) central has signed for")

    play(files, log, work)
    without = _grown(3)
    other = _grown(3)
    other.append(b"something else")
    assert files.load().row is not None
    play(files, log, _vouched)
    play(files, without if len(without.rows) else other, refused)
    os.unlink(files.evidence)
    play(files, other, refused)


def test_what_does_not_prove_the_log_for_long_releases_nothing(files: WitnessFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A central that answers no question about its log is believed for a minute; then nothing is released until it does."""
    log = _grown(3)

    async def work(played: Played) -> None:
        await played.witness.vouch(5)
        log.away = AuditUnavailable("too busy")
        played.witness._news.set()
        await played.until(lambda: played.witness._trouble)
        await played.witness.vouch(5)
        monkeypatch.setattr(module, "PATIENCE", 0.0)
        with pytest.raises(AuditUnavailable, match="too busy"):
            await played.witness.vouch(0.05)
        assert played.witness.tell()["state"] == "unproved"
        log.away = None
        await played.witness.vouch(5)

    assert play(files, log, work) == []


def test_a_row_that_waits_for_its_leaf_too_long_releases_nothing(files: WitnessFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """What central has signed for must be in a checkpoint within a minute; until it is nothing more is released."""
    log = _grown(3)

    async def work(played: Played) -> None:
        await played.witness.vouch(5)
        played.tells(b"x", publish=False)
        await played.until(lambda: any("/proof/4" in path for path in log.asked))
        await played.witness.vouch(5)
        monkeypatch.setattr(module, "PATIENCE", 0.0)
        await played.until(lambda: played.witness._trouble)
        with pytest.raises(AuditUnavailable, match="row 4, for which central has signed, is in no checkpoint after"):
            await played.witness.vouch(0.05)
        log.publish()
        await played.witness.vouch(5)
        assert played.witness.refusal is None

    play(files, log, work)


def test_a_checkpoint_that_the_disk_does_not_take_is_not_accepted(files: WitnessFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be forgotten at the next start is not held: the older checkpoint stays, and that is told."""
    log = _grown(3)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def work(played: Played) -> None:
        await played.witness.vouch(5)
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", full)
            played.tells(b"x")
            await played.until(lambda: "No space left" in played.witness.tell()["last_error"])
            assert played.witness.tell()["size"] == 3
        await played.until(lambda: played.witness.tell()["size"] == 4)

    play(files, log, work)
    assert files.load().checkpoint == log.checkpoint(4)


def test_evidence_that_the_disk_does_not_take_is_written_later(files: WitnessFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alarm is in force without its file, and ends only when there was one and an operator has taken it away."""
    log = _grown(3)

    tries: list[int] = []

    def full(*_: object) -> None:
        tries.append(1)
        raise OSError(28, "No space left on device")

    async def work(played: Played) -> None:
        await played.witness.vouch(5)
        log.rows.clear()
        log.publish()
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", full)
            played.witness._news.set()
            await played.refused("went back to 0 rows", written=False)
            await played.until(lambda: len(tries) >= 3)
            await played.refused("went back to 0 rows", written=False)
        await played.refused("went back to 0 rows")

    play(files, log, work)


def test_what_an_operator_accepts_is_looked_at_anew(files: WitnessFiles) -> None:
    """Without the evidence the log is looked at again: refused where it still does not fit, believed when it is accepted."""
    log, restored = _grown(5), _grown(2)
    play(files, log, _vouched)

    async def work(played: Played) -> None:
        await played.refused("went back to 2 rows")
        os.unlink(files.evidence)
        await played.until(lambda: os.path.exists(files.evidence))
        await played.refused("went back to 2 rows")
        files.forget()
        await played.until(lambda: not isinstance(played.witness.refusal, IntegrityError))
        await played.witness.vouch(5)
        assert played.witness.tell()["state"] == "proved"

    assert play(files, restored, work) == ["log_refused", "log_accepted", "log_refused", "log_accepted"]
    assert files.load().checkpoint == restored.checkpoint(2)


def test_a_damaged_memory_is_no_first_start(files: WitnessFiles) -> None:
    """Where what this host knew of the log cannot be read any more, nothing is released until an operator accepts that."""
    with open(files.checkpoint, "w", encoding="utf-8") as file:
        file.write("{")

    async def work(played: Played) -> None:
        await played.refused("is damaged")
        files.forget()
        await played.until(lambda: not isinstance(played.witness.refusal, IntegrityError))
        await played.witness.vouch(5)

    play(files, _grown(2), work)


def test_a_wrong_receipt_is_no_news(files: WitnessFiles) -> None:
    """What a receipt does not prove is not taken for a row of ours."""
    log = _grown(1)
    witness = Witness([KEY.verifying_key], log.get, files)
    bodies, answers, receipt = log.append(b"x")
    for wrong in (None, {**receipt, "at": 1}):
        with pytest.raises(AuditUnavailable):
            witness.heard(bodies, answers, wrong)
    assert witness._ours.newest is None


def test_without_a_key_central_is_believed() -> None:
    """Whoever configures no key has no witness: nothing is asked, nothing refused, and ``status`` says so."""

    async def work() -> dict[str, Any]:
        witness = Unwitnessed()
        witness.heard([b"x"], [{"appended": True}], None)
        await witness.vouch(0)
        await witness.run()
        await witness.close()
        assert witness.refusal is None
        return witness.tell()

    assert asyncio.run(work())["state"] == "believed"
