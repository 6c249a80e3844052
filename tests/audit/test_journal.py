"""The journal: what waits survives any end of the agent, and nothing but what waits."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_vault_agent.audit.journal import Journal
from prism_vault_agent.errors import CannotCreate


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def _event(number: int) -> dict[str, object]:
    return {"event_id": f"{number:032x}", "kind": "cleared", "reason": "exited"}


async def _ids(path: str) -> list[str]:
    return [str(fields["event_id"]) for fields in await Journal(path).load()]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=30), st.sampled_from([0, 200, 10_000]), st.data())
def test_a_later_agent_finds_exactly_what_was_kept_and_not_dropped(
    steps: list[tuple[bool, int]], worth_rewriting: int, data: st.DataObject
) -> None:
    """After any sequence of keeping, dropping, writing anew and restarting, what waits is loaded, in order, once each."""
    path = f"/tmp/prism-vault-journal-{os.getpid()}"
    Path(path).unlink(missing_ok=True)

    async def play() -> None:
        journal = Journal(path)
        await journal.load()
        waiting: list[str] = []
        for keep, number in steps:
            name = str(_event(number)["event_id"])
            if keep and name not in waiting:
                await journal.keep(_event(number))
                waiting.append(name)
            elif not keep and name in waiting:
                await journal.drop(name)
                waiting.remove(name)
            if data.draw(st.booleans()):
                journal = Journal(path)
                assert [fields["event_id"] for fields in await journal.load()] == waiting
        assert await _ids(path) == waiting
        assert waiting or Path(path).stat().st_size == 0

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("prism_vault_agent.audit.journal.WORTH_REWRITING", worth_rewriting)
            _run(play())
    finally:
        Path(path).unlink(missing_ok=True)


def test_what_has_arrived_does_not_make_the_file_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one event waits for ever and others come and go, the file stays about as small as it is worth, and is mended."""
    monkeypatch.setattr("prism_vault_agent.audit.journal.WORTH_REWRITING", 2000)
    path = tmp_path / "journal"
    largest = 0

    async def play() -> list[str]:
        nonlocal largest
        journal = Journal(str(path))
        await journal.keep(_event(0))
        for number in range(1, 200):
            await journal.keep(_event(number))
            await journal.drop(str(_event(number)["event_id"]))
            largest = max(largest, path.stat().st_size)
        return await _ids(str(path))

    assert _run(play()) == [_event(0)["event_id"]]
    assert largest <= 2000
    assert [entry.name for entry in tmp_path.iterdir()] == ["journal"]


def test_f30_a_journal_that_cannot_be_written_anew_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the new file cannot be made, or a crash has left half of one, the old file goes on and loses nothing."""
    monkeypatch.setattr("prism_vault_agent.audit.journal.WORTH_REWRITING", 0)
    path = tmp_path / "journal"
    (tmp_path / "journal.new").mkdir()

    async def play() -> list[str]:
        journal = Journal(str(path))
        for number in range(1, 6):
            await journal.keep(_event(number))
        await journal.drop(str(_event(2)["event_id"]))
        grown = path.stat().st_size
        (tmp_path / "journal.new").rmdir()
        (tmp_path / "journal.new").write_bytes(b"\n{torn")
        for number in (3, 4):
            await journal.drop(str(_event(number)["event_id"]))
        assert path.stat().st_size < grown
        return await _ids(str(path))

    assert _run(play()) == [_event(1)["event_id"], _event(5)["event_id"]]


def test_keeping_and_dropping_at_once_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that are kept and dropped at the same time on a slow disk, by a stopping agent, are all where they belong."""
    monkeypatch.setattr("prism_vault_agent.audit.journal.WORTH_REWRITING", 0)
    path = str(tmp_path / "journal")
    replace = os.replace

    def late(old: str, new: str) -> None:
        threading.Event().wait(0.02)  # the disk's time, in which others could write to the old file
        replace(old, new)

    monkeypatch.setattr(os, "replace", late)

    async def one(journal: Journal, number: int) -> None:
        await journal.keep(_event(number))
        if number % 3:
            await journal.drop(str(_event(number)["event_id"]))

    async def play() -> list[str]:
        journal = Journal(path)
        await asyncio.gather(*(one(journal, number) for number in range(15)))
        return await _ids(path)

    assert sorted(_run(play())) == [str(_event(number)["event_id"]) for number in range(0, 15, 3)]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_f30_a_line_that_a_crash_has_torn_spoils_no_other(tmp_path: Path, cut: int) -> None:
    """Wherever the last write was cut, the lines before it are there, and so are those that a later agent adds."""
    path = str(tmp_path / "journal")

    async def play() -> list[str]:
        first = Journal(path)
        await first.load()
        await first.keep(_event(1))
        whole = Path(path).stat().st_size
        await first.keep(_event(2))
        os.truncate(path, whole + cut)
        second = Journal(path)
        await second.load()
        await second.keep(_event(3))
        return await _ids(path)

    assert _run(play()) == [_event(1)["event_id"], _event(3)["event_id"]]


@pytest.mark.parametrize("garbage", [b"\xff\xfe\0", b"17\n", b"[]\n", b'{"kind": "cleared"}\n', b"{\n", b"\n\n"])
def test_what_is_no_event_is_passed_over(tmp_path: Path, garbage: bytes) -> None:
    """A damaged journal does not keep the agent from starting, nor from telling what can still be read."""
    path = tmp_path / "journal"

    async def play() -> list[str]:
        path.write_bytes(garbage)
        await Journal(str(path)).keep(_event(1))
        return await _ids(str(path))

    assert _run(play()) == [_event(1)["event_id"]]


def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    """The journal is created with mode 0600 whatever the umask, and a symbolic link in its place is not followed."""
    path = tmp_path / "journal"
    before = os.umask(0)
    try:
        _run(Journal(str(path)).keep(_event(1)))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    victim = tmp_path / "victim"
    link = tmp_path / "link"
    link.symlink_to(victim)
    with pytest.raises(CannotCreate):
        _run(Journal(str(link)).keep(_event(1)))
    assert not victim.exists()


def test_f29_a_disk_that_does_not_take_it_is_a_typed_error(tmp_path: Path) -> None:
    """Where the event cannot be kept the error says so and names the file; nothing is claimed to be kept."""
    with pytest.raises(CannotCreate, match="cannot keep audit records in /dev/full: No space left on device"):
        _run(Journal("/dev/full").keep(_event(1)))
    with pytest.raises(CannotCreate):
        _run(Journal(str(tmp_path / "no" / "journal")).keep(_event(1)))


def test_many_are_kept_and_dropped_at_the_price_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that are kept or dropped together are one write and one fsync(2); a later agent finds those that are left."""
    synced: list[int] = []
    real = os.fsync

    def counted(descriptor: int) -> None:
        synced.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    events = [_event(number) for number in range(50)]
    path = str(tmp_path / "journal")

    async def play() -> None:
        journal = Journal(path)
        await journal.keep(*events)
        await journal.drop(*(str(each["event_id"]) for each in events[::2]))

    _run(play())
    assert len(synced) == 2
    assert _run(Journal(path).load()) == events[1::2]
