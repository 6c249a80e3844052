"""An agent that ends, however it ends: the next one keeps what is held, and revokes what nobody holds."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.exec.wire import request
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


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_with_an_agent_of_which_nothing_stays_no_lease_does(made, how):
    """``on_end = "clear"``: SIGTERM leaves no user at the database, with no agent there; after SIGKILL the next one does."""
    name = made.scope(f"ended{how}", grace="1m")
    agent = made.filed.stack.agent
    agent.stop()
    agent.config.write_text(agent.main.replace("[agent]\n", '[agent]\non_end = "clear"\n'))
    try:
        agent.start()
        with made.running(name) as child:
            made.filed.render(name)
            made.filed.render(name)
            made.becomes(name, 3)  # that of the files which were replaced has its grace, while there are others
            getattr(agent, how)()
            wait_until(lambda: child.poll() is not None and not (made.filed.top / name).exists())
        if how == "kill":
            agent.start()
        made.becomes(name, 0)
    finally:
        agent.stop()
        agent.config.write_text(agent.main)
        agent.start()


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
    wait_until(lambda: (agent.directory / "state" / "leases").read_text() == "")


def test_what_expired_while_there_was_no_agent_is_taken_back_by_the_next(made):
    """A plain run whose lease has ended at the server, where nobody renewed it, is ended by the next agent, and on the record."""
    name = made.scope("lapsed", role=("3s", "1h"), grace="1s", files=[])
    agent = made.filed.stack.agent
    with made.running(name) as child:
        audit_id = made.told(child.pid)["id"]
        agent.kill()
        made.becomes(name, 0)
        assert child.poll() is None
        agent.start()
        assert child.wait(30) == -signal.SIGTERM
    assert made.filed.ended(audit_id) == "lease_expired"


@contextlib.contextmanager
def supervised(made: Leased, name: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Have a supervised command run with a scope; yield its supervisor, and the audit id."""
    agent = made.filed.stack.agent
    words = ("--timeout", "60s", "--scope", name, "--run-ref", name, "--supervise", "--", "/bin/sleep", "600")
    child = agent.spawn(*words, stdout=subprocess.DEVNULL)
    try:
        (audit_id,) = wait_until(lambda: [run["id"] for run in agent.status()["runs"] if run["run_ref"] == name], 60)
        yield child, audit_id
    finally:
        child.kill()
        child.communicate()


def test_f69_a_supervised_command_ends_with_its_lease_while_there_is_no_agent(made):
    """Nobody renews the lease any more: its supervisor ends the command by then, and says so; what is unbounded goes on."""
    agent = made.filed.stack.agent
    name, stale, free = made.scope("unattended", role=("10s", "1h"), grace="1s", files=[]), "unattended-kv", "unattended-free"
    made.filed.scope(stale, stale_ok="9s", files=[])
    made.filed.scope(free, files=[])
    words = (("--scope", each, "--supervise", "--", "/bin/sleep", "600") for each in (stale, free))
    bounded, unbounded = (agent.spawn(*each, stdout=subprocess.DEVNULL) for each in words)
    try:
        with supervised(made, name) as (child, audit_id):
            agent.kill()
            assert (child.wait(60), bounded.wait(60), unbounded.poll()) == (69, 69, None)
            for each in (child, bounded):
                assert each.stderr is not None
                assert "what the command was given has come to its end" in each.stderr.read()
            agent.start()
            made.becomes(name, 0)
            assert made.filed.ended(audit_id) == "exited"
    finally:
        for each in (bounded, unbounded):
            each.kill()
            each.communicate()


def test_f69_the_next_agent_renews_what_a_supervised_command_has(made):
    """The next agent knows the command, renews its lease, and tells its supervisor an end that is later than that of before."""
    agent = made.filed.stack.agent
    name = made.scope("attended", role=("60s", "1h"), grace="1s", files=[])
    with supervised(made, name) as (child, audit_id):
        before = wait_until(lambda: told_end(agent.socket, audit_id))
        agent.kill()
        agent.start()
        wait_until(lambda: told_end(agent.socket, audit_id) > before, 30)
        assert (child.poll(), [run["id"] for run in agent.status()["runs"]]) == (None, [audit_id])
    made.becomes(name, 0)


def told_end(path: str, audit_id: str) -> int:
    """Return the end that an agent tells who waits for orders about a release, in milliseconds; 0 where it does not know one.

    The supervisor comes back at once and takes the connection over.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(path)
        connection.sendall(request(b"/v1/orders", audit_id.encode()))
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    return int(answer.rpartition(b"ends ")[2]) if b"ends " in answer else 0


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
    name = made.scope(f"r{int(forwarded)}", grace="1s")
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
