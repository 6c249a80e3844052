"""A real agent as a witness of a real central: no release without a receipt, nor from a log that is not what it was (T28)."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.central.signing import read_key
from prism_vault_agent.proof.keys import SigningKey, to_base64
from prism_vault_agent.proof.note import open_checkpoint
from tests.agent.asking import eventually
from tests.support import history
from tests.support.agent import LAUNCHER
from tests.support.fault_proxy import Fault, Seen, always, with_kind
from tests.support.stack import Stack, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEPS = ("reserved", "success")
RUNNING = ("--run-ref", "run-1", "--", "/bin/sh", "-c", "echo up; read -r line")


@pytest.fixture(scope="module")
def stacked() -> Iterator[Stack]:
    with stack(vault='timeout = "10s"', central_lines='timeout = "1s"') as made:
        yield made


@pytest.fixture
def own() -> Iterator[Stack]:
    """A stack that the test may damage."""
    with stack(central_lines='timeout = "1s"') as made:
        yield made


def _told(made: Stack) -> dict[str, Any]:
    """Return what the agent tells of the log."""
    return dict(made.agent.status()["log"])


def _proved(made: Stack) -> int:
    """Wait until everything is on the log, and the agent holds a checkpoint about all rows of its own; return its size."""
    made.settle()
    made.works()
    events = made.settle()
    epoch = next(event["fields"]["epoch"] for event in reversed(events) if event["kind"] == "success")
    newest = max(event["n"] for event in events if event["fields"]["epoch"] == epoch)
    return int(wait_until(lambda: (size := _told(made)["size"]) >= newest and size))


def _command(made: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the host's operator."""
    environ = made.agent.environment()
    return subprocess.run([LAUNCHER, *words], env=environ, text=True, capture_output=True, check=False, timeout=60)


def _evidence(made: Stack) -> list[Path]:
    return sorted((made.agent.directory / "state").glob("evidence-????????.json"))


def _receipts_that(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Return what changes an answer to a batch."""

    def changed(body: bytes) -> bytes:
        answer = json.loads(body)
        change(answer)
        return json.dumps(answer).encode()

    return changed


# What a proxy, or a central that has another key or none, may answer.
WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no receipt": (lambda answer: answer.update(receipt=None), "central gave no receipt"),
    "another signature": (lambda answer: answer["receipt"].update(signature="A" * 86 + "=="), "receipt does not verify with"),
    "another log": (lambda answer: answer["receipt"].update(origin="x"), "receipt is of another log"),
    "another row": (lambda answer: answer["results"][0].update(n=10**9), "not about the record that was sent"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("step", STEPS)
def test_without_a_receipt_that_verifies_nothing_is_released(stacked: Stack, step: str, wrong: str) -> None:
    """An acknowledgement that central has not signed for is none: told with its own line, and the log ends by saying so."""
    change, told = WRONG[wrong]
    before, reads = len(stacked.settle()), stacked.reads
    fault = Fault("answer", forwarded=True, change=_receipts_that(change))
    with stacked.to_central.failing(always(fault, with_kind(step))):
        stacked.fails(75, "central did not take the audit record", told)
        assert stacked.reads == reads + (step == "success")
    stacked.settle()
    assert history.released(stacked.central.events()[before:]) == []
    assert ("receipt.wrong" in stacked.agent.log) or wrong == "no receipt"
    stacked.works()


@pytest.mark.parametrize("wrong", WRONG)
def test_one_wrong_receipt_is_asked_for_again(stacked: Stack, wrong: str) -> None:
    """The same bytes are sent again, and get the receipt that verifies: the render goes on, with one row of each."""
    before = len(stacked.settle())
    left = [Fault("answer", forwarded=True, change=_receipts_that(WRONG[wrong][0]))] * 2

    def decide(seen: Seen) -> Fault | None:
        return left.pop() if left and seen.kinds else None

    with stacked.to_central.failing(decide):
        stacked.works()
    stacked.settle()
    assert history.kinds(stacked.rows(before)) == ["reserved", "success"]


def test_direct_demands_receipts_too(stacked: Stack) -> None:
    """``exec --direct`` releases with a receipt, and without one says why not."""
    done = stacked.direct("--", "/bin/sh", "-c", 'echo "ran $CANARY"')
    assert (done.returncode, done.stdout) == (0, f"ran {stacked.canary}\n"), done
    fault = Fault("answer", forwarded=True, change=_receipts_that(WRONG["another signature"][0]))
    with stacked.to_central.failing(always(fault, lambda seen: bool(seen.kinds))):
        done = stacked.direct("--timeout", "2s", "--", "/bin/echo", "ran")
    assert (done.returncode, done.stdout) == (75, ""), done
    assert "receipt does not verify with" in done.stderr
    assert "log_key" in done.stderr


def test_the_proved_log_is_told(stacked: Stack) -> None:
    """``status``, ``doctor`` and ``witness show`` tell how large the log is and since when it is known to be whole."""
    stacked.works()
    _proved(stacked)
    told = _told(stacked)
    key = read_key(stacked.central.key_file).verifying_key
    assert (told["state"], told["origin"], told["last_error"]) == ("proved", key.name, "")
    assert f"\nlog      {told['size']} rows, proved " in _command(stacked, "status").stdout
    checks = json.loads(_command(stacked, "doctor", "--json", "--config", str(stacked.agent.config)).stdout)
    (check,) = [check for check in checks if check["name"] == "central's records are proved"]
    assert (check["state"], check["needed"]) == ("holds", True)
    shown = _command(stacked, "witness", "show", "--config", str(stacked.agent.config))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert key.name in shown.stdout
    (kept,) = (stacked.agent.directory / "state").glob("checkpoint-????????.json")
    assert open_checkpoint(json.loads(kept.read_text())["note"], key.name, key).size == told["size"]


def test_a_host_without_a_key_says_so(stacked: Stack) -> None:
    """Without ``log_key`` central is believed, which ``status`` and ``doctor`` tell; everything else works."""
    with stacked.second(log_key=False) as agent:
        wait_until(lambda: agent.status()["ready"])
        done = agent.exec("--scope", "web", "--", "/bin/echo", "ran")
        assert (done.returncode, done.stdout) == (0, "ran\n")
        assert agent.status()["log"]["state"] == "believed"
        environ = agent.environment()
        page = subprocess.run([LAUNCHER, "status"], env=environ, text=True, capture_output=True, check=True).stdout
        assert "central is believed, since [central] log_key is not set" in page
        words = [LAUNCHER, "doctor", "--config", str(agent.config)]
        doctor = subprocess.run(words, env=environ, text=True, capture_output=True, check=False)
        assert doctor.returncode == 0
        assert "does not hold  G8  central's records are proved: [central] log_key is not set" in doctor.stdout
        words = [LAUNCHER, "witness", "show", "--config", str(agent.config)]
        assert subprocess.run(words, env=environ, text=True, capture_output=True, check=False).returncode == 78


@contextlib.contextmanager
def _rolled_back(made: Stack) -> Iterator[None]:
    """Copy central's database; after the block, put the copy in the place of the log, as whoever owns the database can."""
    copy = made.directory / "copy.db"
    with contextlib.closing(sqlite3.connect(made.central.database)) as now, contextlib.closing(sqlite3.connect(copy)) as to:
        now.backup(to)
    yield
    made.central.stop()
    for path in made.central.database.parent.glob("audit.db*"):
        path.unlink()
    copy.chmod(0o600)
    os.replace(copy, made.central.database)
    made.central.start()


def _refuses(made: Stack, told: str) -> None:
    """Fail unless nothing is released, nor read or reserved, and everybody is told."""
    reads = made.reads
    made.fails(65, told, "nothing is released until that is settled: see prism-vault witness show")
    assert made.reads == reads
    assert len(_evidence(made)) == 1
    assert _told(made)["state"] == "refused"
    assert not made.agent.status()["ready"]
    assert "\nlog      REFUSED, nothing is released: " in _command(made, "status").stdout
    doctor = _command(made, "doctor", "--config", str(made.agent.config))
    assert doctor.returncode == 78
    assert f"does not hold  G8  central's records are proved (needed): {told}" in doctor.stdout
    shown = _command(made, "witness", "show", "--config", str(made.agent.config))
    assert (shown.returncode, shown.stdout) == (65, "")
    assert told in shown.stderr
    done = made.direct("--", "/bin/echo", "ran")
    assert (done.returncode, done.stdout) == (65, ""), done
    assert made.agent.log.count('"event": "log.refused"') >= 1


def _accept(made: Stack) -> None:
    """Accept the log that central shows, as its operator."""
    done = _command(made, "witness", "accept", "--config", str(made.agent.config))
    assert (done.returncode, done.stdout.count("set aside: ")) == (0, 2), done


def test_an_old_database_is_refused_while_the_agent_runs_and_after_its_restart(own: Stack) -> None:
    """A rolled back log is noticed, alarmed and refused, across restarts; what runs can be ended; then it is accepted."""
    own.works()
    _proved(own)
    run = own.agent.spawn("--scope", "web", *RUNNING, stdin=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.readline() == "up\n"
    with _rolled_back(own):
        own.works()
        _proved(own)
    own.exec()  # releases nothing: the chain does not continue, or the log is refused already
    wait_until(lambda: _told(own)["state"] == "refused")
    _refuses(own, "the log went back to ")
    # What was given out is taken back although the log is refused.
    assert _command(own, "revoke", "--run-ref", "run-1").returncode == 0
    assert run.wait(20) != 0
    run.communicate()
    wait_until(lambda: own.agent.status()["runs"] == [])
    own.agent.stop()
    own.agent.start(ready=False)
    _refuses(own, "the log went back to ")
    own.agent.kill()
    own.agent.start(ready=False)
    _refuses(own, "the log went back to ")
    _accept(own)
    eventually(lambda: own.agent.status()["ready"])
    own.works()
    reasons = [event["fields"].get("reason") for event in own.central.events(kind="admin")]
    assert reasons.count("log_accepted") == 1


def test_an_old_database_is_refused_by_an_agent_that_starts_later(own: Stack) -> None:
    """A log that was rolled back while no agent ran is refused before the first release: nothing is reserved, nothing read."""
    own.works()
    own.settle()
    with _rolled_back(own):
        own.works()
        _proved(own)
        own.agent.stop()
    before = own.central.events()
    own.agent.start(ready=False)
    wait_until(lambda: _told(own)["state"] == "refused")
    _refuses(own, "the log went back to ")
    assert not [event for event in own.central.events()[len(before) :] if event["kind"] in STEPS]
    evidence = json.loads(_evidence(own)[0].read_text())
    key = read_key(own.central.key_file).verifying_key
    held, given = json.loads(evidence["held"])["note"], json.loads(evidence["given"])["note"]
    assert open_checkpoint(held, key.name, key).size > open_checkpoint(given, key.name, key).size
    _accept(own)
    eventually(lambda: own.agent.status()["ready"])
    own.works()


def test_the_newest_row_is_missed_even_without_a_checkpoint_about_it(own: Stack) -> None:
    """A log that was rolled back to just before our last row, which no checkpoint that we hold is about, is refused too."""
    own.works()
    _proved(own)
    size = len(own.central.events())
    with (
        _rolled_back(own),
        own.to_central.failing(always(Fault("answer", status=503), lambda seen: seen.path.startswith("/v1/audit/checkpoint"))),
    ):
        own.works()
        own.settle()
        own.agent.stop()
    (kept,) = (own.agent.directory / "state").glob("checkpoint-????????.json")
    key = read_key(own.central.key_file).verifying_key
    assert open_checkpoint(json.loads(kept.read_text())["note"], key.name, key).size <= size
    own.agent.start(ready=False)
    wait_until(lambda: _told(own)["state"] == "refused")
    made = _told(own)
    assert "on the log" in made["last_error"]
    _accept(own)
    eventually(lambda: own.agent.status()["ready"])


def test_the_key_of_the_log_is_replaced_without_an_alarm(own: Stack) -> None:
    """An agent that was given the next key beforehand releases before and after central changes to it, and refuses nothing."""
    key_file = own.central.key_file
    new = SigningKey.generate(read_key(key_file).verifying_key.name)
    with own.second(central_lines=f'further_log_keys = ["{new.verifying_key}"]') as agent:
        wait_until(lambda: agent.status()["ready"])
        for _ in range(2):
            assert agent.exec("--scope", "web", "--", "/bin/true").returncode == 0
            size = len(own.central.events())
            wait_until(lambda size=size: agent.status()["log"]["size"] >= size)  # type: ignore[misc]
            own.agent.stop()  # it has the old key only
            own.central.stop()
            key_file.write_text(new.private_text() + "\n")
            own.central.start()
        assert agent.status()["log"]["state"] == "proved"
        agent.stop()
        agent.start()
        assert agent.exec("--scope", "web", "--", "/bin/true").returncode == 0


def test_another_key_in_place_of_centrals_is_refused(own: Stack) -> None:
    """A central that signs with another key of the same name is refused; with its own back, and no evidence, it works again."""
    own.works()
    own.settle()
    key_file = own.central.key_file
    real = key_file.read_text()
    own.central.stop()
    key_file.write_text(SigningKey.generate(read_key(key_file).verifying_key.name).private_text() + "\n")
    own.central.start()
    own.fails(75, "receipt does not verify with")
    wait_until(lambda: _told(own)["state"] == "refused")
    _refuses(own, "a note is not signed by")
    own.central.stop()
    key_file.write_text(real)
    own.central.start()
    # What was signed with the other key stays on the log, so the next checkpoint has to come first.
    key = read_key(key_file).verifying_key
    with own.central.client() as client:
        wait_until(lambda: f" {to_base64(key.key_hash)[:5]}" in client.get("/v1/audit/checkpoint").json()["note"])
    _evidence(own)[0].unlink()
    eventually(lambda: own.agent.status()["ready"])
    own.works()
