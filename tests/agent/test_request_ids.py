"""Two logs, one request: what central refuses is found in its log by what the agent's log says of it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.central import CentralProcess
from tests.support.own_agent import logged
from tests.support.stack import Stack, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def stacked() -> Iterator[Stack]:
    with stack(central_lines='timeout = "1s"') as made:
        yield made


def told_by(central: CentralProcess, line: dict[str, Any], event: str) -> dict[str, Any]:
    """Return the line of central's log about the request that a line of the agent's names."""

    def found() -> list[dict[str, Any]]:
        lines = [json.loads(each) for each in central.log]
        return [each for each in lines if each.get("request_id") == line["request_id"] and each["event"] == event]

    return wait_until(found)[0]


def test_a_request_that_central_refuses(stacked: Stack) -> None:
    """A batch and a stream that central refuses as a whole are told with its code and request id, which its log has too."""
    token = stacked.central.agent_tokens["server1"]
    stacked.central.agent_tokens["server1"] = "x" * 43
    stacked.central.restart()
    try:
        done = stacked.exec()
        away = wait_until(lambda: refused(stacked, "central.away"))[-1]
        signals = wait_until(lambda: refused(stacked, "signals.away"), 30)[-1]
        lines = [told_by(stacked.central, line, "request_failed") for line in (away, signals)]
    finally:
        stacked.central.agent_tokens["server1"] = token
        stacked.central.restart()

    assert done.returncode == 75
    assert "(central answered with status 401 (unknown_token))" in done.stderr
    assert [line["code"] for line in (away, signals, *lines)] == ["unknown_token"] * 4
    assert [line["path"] for line in lines] == ["/v1/audit/events:batch", "/v1/signals"]
    wait_until(lambda: stacked.exec().returncode == 0)


def refused(stacked: Stack, event: str) -> list[dict[str, Any]]:
    """Return the agent's lines of this name that name a code."""
    return [line for line in logged(stacked.agent, event) if "code" in line]


def test_an_event_that_central_denies(stacked: Stack) -> None:
    """A reservation that central's policy denies is told with the request's id, the reason, and the audit id of both logs."""
    with (
        CentralProcess(Path(tempfile.mkdtemp(dir=stacked.directory)), policies=[]) as strict,
        stacked.second(central=strict) as agent,
    ):
        done = agent.exec("--scope", "web", "--", "true")
        (line,) = wait_until(lambda: logged(agent, "audit.denied"))
        told = told_by(strict, line, "reservation_denied")

    assert done.returncode == 77
    assert (line["kind"], line["status"]) == ("reserved", 403)
    assert (line["reason"], line["audit_id"]) == (told["reason"], told["audit_id"])
    assert line["audit_id"] in done.stderr


def test_an_event_that_central_refuses(stacked: Stack) -> None:
    """An event of another host than the credential's is told with the request's id and the reason, as in central's log."""
    with (
        CentralProcess(Path(tempfile.mkdtemp(dir=stacked.directory)), agents={"server2": ["*"]}) as other,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setitem(other.agent_tokens, "server1", other.agent_tokens["server2"])
        with stacked.second(central=other, host="server1") as agent:
            done = agent.exec("--scope", "web", "--", "true")
            (line,) = wait_until(lambda: logged(agent, "audit.refused"))
            told = told_by(other, line, "event_refused")

    assert done.returncode == 77
    assert (line["status"], line["reason"], told["reason"]) == (403, "host_mismatch", "host_mismatch")
