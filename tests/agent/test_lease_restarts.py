"""An agent that ends, however it ends: the next one keeps what is held, and revokes what nobody holds."""

from __future__ import annotations

import json
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.agent import LAUNCHER
from tests.support.fault_proxy import Fault, with_kind
from tests.support.leased import Leased, leased
from tests.support.soak import count
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.fault_proxy import Seen


@pytest.fixture(scope="module")
def made() -> Iterator[Leased]:
    """A stack of this file's own; each test has a role and a scope of its own in it."""
    with leased() as running:
        yield running


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_what_is_held_is_kept_over_a_restart(made, how):
    """A run and a file keep their users when the agent is stopped or killed; the next agent ends and replaces them as ever."""
    name = made.scope(f"kept{how}", grace="1s")
    agent = made.filed.stack.agent
    with made.running(name) as child:
        audit_id = made.told(child.pid)["id"]
        made.filed.render(name)
        path = made.filed.top / name / "db.json"
        before = json.loads(path.read_text())
        getattr(agent, how)()
        assert child.poll() is None and made.logs_in(before["DB_USER"], before["DB_PASSWORD"])
        agent.start()
        wait_until(lambda: json.loads(path.read_text()) != before, 60)  # of the new agent's token, as soon as there is one
        assert [run["id"] for run in agent.status()["runs"]] == [audit_id]
        made.becomes(name, 2)
        assert child.poll() is None
    made.becomes(name, 1)
    assert made.filed.ended(audit_id) == "exited"
    made.filed.command("clear", name)
    made.becomes(name, 0)


def test_a_run_that_ended_while_there_was_no_agent_leaves_nothing(made):
    """What a run had that ended between two agents is revoked by the next one, and the token of the one before with it."""
    name = made.scope("between")
    agent = made.filed.stack.agent
    with made.running(name) as child:
        audit_id = made.told(child.pid)["id"]
        assert len(made.children(audit_id)) == 1
        agent.kill()
    assert made.count(name) == (1, 1)
    agent.start()
    made.becomes(name, 0)
    assert made.children(audit_id) == []
    wait_until(lambda: agent.status()["leases"] == {"held": 0, "revoking": 0, "last_error": ""}, 30)
    assert (agent.directory / "state" / "leases").read_text() == ""


POINTS: dict[str, Callable[[Seen], bool]] = {
    "before the child token is made": lambda seen: seen.path == "/v1/auth/token/create",
    "before the lease is made": lambda seen: seen.path.startswith("/v1/database/creds/"),
    "before the success is on the log": with_kind("success"),
    "before the child token is revoked": lambda seen: seen.path == "/v1/auth/token/revoke-accessor",
}


@pytest.mark.parametrize("forwarded", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize("point", POINTS)
def test_an_agent_killed_at_any_point_of_a_leased_render_loses_no_lease(made, point, forwarded):
    """Whatever the server had done when the agent was killed, after the next start the server has the leases that are held."""
    name = made.scope(f"k{list(POINTS).index(point)}{int(forwarded)}")
    for _ in range(count(1, 12)):
        killed_at(made, name, POINTS[point], forwarded=forwarded)
        made.becomes(name, 0)


@pytest.mark.parametrize("forwarded", [False, True], ids=["not done", "done"])
def test_an_agent_killed_while_it_replaces_a_file_keeps_the_old_lease_or_the_new_one(made, forwarded):
    """Killed before or after the success of a new generation is on the log, it leaves one generation and the lease of that."""
    name = made.scope(f"r{int(forwarded)}")
    path = made.filed.top / name / "db.json"
    for _ in range(count(1, 12)):
        made.filed.render(name)
        killed_at(made, name, POINTS["before the success is on the log"], forwarded=forwarded, words=("render", name))
        made.becomes(name, 1)
        user = json.loads(path.read_text())
        assert made.logs_in(user["DB_USER"], user["DB_PASSWORD"])
    made.filed.command("clear", name)
    made.becomes(name, 0)


def killed_at(made: Leased, name: str, point: Callable[[Seen], bool], *, forwarded: bool, words: tuple[str, ...] = ()) -> None:
    """Kill the agent while one request is under way, or has been carried out and not answered; start another one.

    ``words`` are a command instead of a run with the scope.
    """
    stack = made.filed.stack
    reached = threading.Event()

    def decide(seen: Seen) -> Fault | None:
        if not point(seen):
            return None
        reached.set()
        return Fault("hang", forwarded=forwarded)

    with stack.to_openbao.failing(decide), stack.to_central.failing(decide):
        command = [LAUNCHER, *(words or ("exec", "--timeout", "60s", "--scope", name, "--", "/bin/true"))]
        child = subprocess.Popen(command, env=stack.agent.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert reached.wait(60)
        if forwarded and "/creds/" in stack.to_openbao.seen[-1].path:
            wait_until(lambda: made.leases(name), 30)
        stack.agent.kill()
        child.communicate(timeout=60)
    stack.agent.start()
