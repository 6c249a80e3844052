"""The operator's kill switch: what it says while hosts answer, the evidence at its end, and its exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.cli.central_evidence import evidence as shown
from prism_vault_agent.cli.central_evidence import progress, unfinished
from tests.support.agent import LAUNCHER
from tests.support.signalled import DEAF, evidence, signalled, started, status_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.stack import Stack


@pytest.fixture(scope="module")
def made() -> Iterator[Stack]:
    """Return a stack of this file's own."""
    with signalled() as running:
        yield running


def start(stack: Stack, *words: str) -> subprocess.Popen[str]:
    """Start ``prism-vault central WORDS`` as an operator."""
    given = {"PRISM_VAULT_CENTRAL_URL": stack.central.url, "PRISM_VAULT_OPERATOR_TOKEN": stack.central.operator_token}
    given["PATH"] = os.environ["PATH"]
    return subprocess.Popen([LAUNCHER, "central", *words], env=given, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return the status and what was said."""
    out, err = process.communicate(timeout=90)
    return process.returncode, out, err


def test_revoke_waits_and_shows_the_evidence(made):
    """``central revoke`` tells each host's state as it changes, then who cleared what and when, and ends with 0."""
    child = started(made.agent, "kill-1")
    status, out, err = ended(start(made, "revoke", "--run-ref", "kill-1", "--emergency", "--reason", "drill"))

    assert status_of(child) == -signal.SIGKILL
    assert status == 0, err
    assert "server1: cleared, 1 cleared" in err
    assert out.startswith("emergency revocation ")
    assert "run_ref kill-1, by test-operator" in out
    assert "1 cleared\n" in out
    (row,) = [line.split() for line in out.splitlines() if "pva_" in line]
    assert [row[0], *row[2:5]] == ["server1", "web", "kill-1", "cleared"]


def test_revoke_does_not_say_done_before_it_is(made):
    """Where a host does not answer, the exit status is 75, and the evidence names the host and what is left on it."""
    child = started(made.agent, "kill-2")
    made.agent.stop()
    try:
        status, out, err = ended(start(made, "revoke", "--run-ref", "kill-2", "--timeout", "1", "--json"))
        found = json.loads(out)
        again, table, _ = ended(start(made, "revocations", str(found["id"])))
    finally:
        child.kill()
        status_of(child)
        made.agent.start()

    assert status == 75
    told = err.splitlines()[-1]
    assert "not everything is known to be cleared: 1 silent (server1 silent); who is silent acts when it is back" in told
    assert told.endswith(f"prism-vault central revocations {found['id']}")
    assert (found["hosts"][0]["host"], found["hosts"][0]["state"], found["hosts"][0]["left"]) == ("server1", "silent", 1)
    assert again == 75
    assert "server1" in table
    wait_until(lambda: evidence(made.central, found["id"])["complete"])  # the next agent records that it has ended


def test_of_many_hosts_the_last_are_named():
    """Above fifty hosts progress is how many are in which state, and by name those that are still to come, if they are few."""

    def told(hosts: int, silent: int) -> dict[str, str]:
        of = [{"host": f"h{n}", "state": "silent" if n < silent else "cleared", "cleared": 3} for n in range(hosts)]
        counts = {"cleared": hosts - silent, **({"silent": silent} if silent else {})}
        return progress({"hosts": of, "states": counts, "complete": not silent})

    assert told(50, 1)["h0: "] == "silent, 3 cleared" and len(told(50, 1)) == 50
    assert told(60, 2) == {"": "58 cleared, 2 silent, not complete: h0 silent, h1 silent"}
    assert told(60, 11) == {"": "49 cleared, 11 silent, not complete"}
    assert told(60, 0) == {"": "60 cleared"}


def test_what_was_not_cleared_is_shown_last():
    """What is still out there follows what was cleared; what is not named is counted; the error says what to do.

    So it is with the answer of a central from before releases had scopes.
    """

    def host(name: str, state: str, **counts: int) -> dict[str, Any]:
        both: list[dict[str, Any]] = [{"audit_id": f"pva_{name}_{of}", "state": of, "at": None} for of in ("left", "cleared")]
        times = dict.fromkeys(("told_at", "received_at", "done_at"))
        none = dict.fromkeys(("cleared", "failed", "left", "unwatched"), 0)
        return {"host": name, "state": state, **times, **none, **counts, "releases": both}

    hosts = [host("a", "unwatched", unwatched=1, cleared=1), host("b", "cleared", cleared=3), host("c", "silent", left=1)]
    found = {"id": 7, "by": "ops", "made_at": 0, "emergency": True, "target": {"everything": True}, "complete": False}
    found |= {"states": {"cleared": 1, "silent": 1, "unwatched": 1}, "hosts": hosts}
    lines = shown(found).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["b", "a", "c"]
    assert [line.split()[1] for line in lines[6:12]] == [f"pva_{name}_{of}" for of in ("cleared", "left") for name in "abc"]
    assert (
        unfinished(found)
        .line()
        .endswith(
            "(a unwatched, c silent); who is silent acts when it is back; end by hand what is unwatched; "
            "look again with prism-vault central revocations 7"
        )
    )
    hosts[1]["cleared"] = 30
    assert shown(found).splitlines()[-1].startswith("  and 27 more; ")


def test_an_interrupt_stops_only_the_waiting(made):
    """After Ctrl-C the revocation is there all the same, and the last line says where to look."""
    child = started(made.agent, "kill-3", "slow", DEAF)
    waiting = start(made, "revoke", "--run-ref", "kill-3")
    assert waiting.stderr is not None
    first = waiting.stderr.readline()
    number = int(first.split()[1])
    wait_until(lambda: evidence(made.central, number)["states"] == {"ending": 1})
    waiting.send_signal(signal.SIGINT)
    status, _, err = ended(waiting)
    child.kill()
    status_of(child)

    assert status == 130
    assert f"the revocation goes on: prism-vault central revocations {number}" in err
    assert "Traceback" not in err


def test_rotate_and_no_wait_and_the_list(made):
    """``rotate`` takes scopes and references; ``revoke --no-wait`` returns at once; ``revocations`` lists the newest first.

    A revocation that finds nothing says so, as its name may be misspelled.
    """
    status, out, _ = ended(start(made, "rotate", "web", "vault://secret/web#canary", "--reason", "routine"))
    assert status == 0
    assert [line.split(" is on")[0].split(" of ")[1] for line in out.splitlines()] == [
        "scope web",
        "reference vault://secret/web#canary",
    ]
    status, _, err = ended(start(made, "revoke", "--scope", "nothing"))
    assert status == 0 and "nothing of that was out there" in err
    status, _, err = ended(start(made, "revoke", "--scope", "nothing", "--no-wait"))
    assert status == 0
    listed, out, _ = ended(start(made, "revocations"))
    assert listed == 0
    assert out.splitlines()[1].split()[0] == err.split()[1]


def test_what_to_revoke_must_be_said(made):
    """Without a condition nothing is revoked, nor with everything and a condition: 64, and nothing is sent."""
    for words in ((), ("--everything", "--scope", "web")):
        assert ended(start(made, "revoke", *words))[0] == 64
    status, out, _ = ended(start(made, "revocations", "--json"))
    assert status == 0
    assert {"everything": True} not in [each["target"] for each in json.loads(out)["revocations"]]
