"""F85: callers that end, hang up or become another program while their request is under way."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from tests.agent.asking import answer, eventually, exec_request, rows
from tests.agent.conftest import SECRET, agents
from tests.agent.puppet import Puppet
from tests.support.agent import AgentProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.central import CentralProcess

CANARY = str(SECRET["url"]).encode()


@pytest.fixture(scope="module")
def agent(place, openbao, central) -> Iterator[AgentProcess]:
    """An agent that waits for central as long as a test holds it up."""
    with agents(place, openbao, central) as make:
        yield make(central_lines='timeout = "60s"').start()


@contextlib.contextmanager
def held_up(agent: AgentProcess, central: CentralProcess, puppet: Puppet) -> Iterator[None]:
    """Have the puppet's exec wait for central's answer to its reservation, which comes when this ends."""
    central.pause()
    try:
        puppet.connection.sendall(exec_request("web", timeout_ms=60_000))
        eventually(lambda: agent.status()["central"]["queued"] >= 1)
        yield
    finally:
        central.resume()


def ended(central: CentralProcess, pid: int) -> list[tuple[str, str]]:
    """Return kind and reason of the rows of the last reservation of a process, once it has ended."""

    def complete() -> list[tuple[str, str]]:
        mine = [event["fields"] for event in central.events(kind="reserved") if event["fields"]["caller"]["pid"] == pid]
        found = rows(central, mine[-1]["reservation"]) if mine else []
        return [(row["kind"], row["fields"].get("reason", "")) for row in found] if len(found) > 1 else []

    return wait_until(complete, 30)


def test_f85_a_caller_that_ends_meanwhile(agent, central):
    """F85: a caller that ends while its exec is under way gets nothing: not released, and the reservation ends as denied."""
    with Puppet(agent.socket) as puppet:
        with held_up(agent, central, puppet):
            puppet.end()
        told = answer(puppet.connection)
    assert (told.exit, CANARY in told.body) == (77, False)
    assert b"the caller has ended" in told.body
    assert ended(central, puppet.pid) == [("reserved", ""), ("denied", "peer_gone")]


def test_f85_a_caller_that_becomes_another_program_meanwhile(agent, central):
    """F85: a caller that executes another program before the release is not the one that policy looked at: denied."""
    with Puppet(agent.socket) as puppet:
        with held_up(agent, central, puppet):
            puppet.become_another_program()
        told = answer(puppet.connection)
        assert (told.exit, CANARY in told.body) == (77, False)
        assert b"became another program" in told.body
        assert ended(central, puppet.pid) == [("reserved", ""), ("denied", "peer_gone")]


def test_f85_a_caller_that_hangs_up_meanwhile(agent, central):
    """F85: where nobody listens any more nothing is sent: the reservation ends as denied."""
    with Puppet(agent.socket) as puppet:
        with held_up(agent, central, puppet):
            puppet.hang_up()
        assert ended(central, puppet.pid) == [("reserved", ""), ("denied", "peer_gone")]


def test_f85_a_caller_that_has_said_all_still_listens(agent, central):
    """A caller that shuts down its sending side after the request, as some tools do, has not hung up: it is served."""
    with Puppet(agent.socket, exec_request("web")) as puppet:
        puppet.connection.shutdown(socket.SHUT_WR)
        told = answer(puppet.connection)
        assert (told.status, CANARY in told.body) == (200, True)
        assert ended(central, puppet.pid)[:2] == [("reserved", ""), ("success", "")]


def test_f85_a_caller_that_ends_after_the_release(agent, central):
    """F85: a caller that ends once it has the values is a run that ended: success, then cleared."""
    with Puppet(agent.socket, exec_request("web")) as puppet:
        assert answer(puppet.connection).status == 200
        eventually(lambda: any(run["pid"] == puppet.pid for run in agent.status()["runs"]))
        puppet.end()
        eventually(lambda: ("cleared", "exited") in ended(central, puppet.pid))
        assert ended(central, puppet.pid) == [("reserved", ""), ("success", ""), ("cleared", "exited")]
