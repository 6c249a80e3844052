"""An agent of which nothing is to stay (``on_end = "clear"``): however it ends, its files and processes end with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.agent.leases.child import boot
from prism_vault_agent.agent.sentinel import mark
from prism_vault_agent.agent.sentinel.mark import Mark
from tests.agent.asking import command_line, rows
from tests.agent.conftest import agents
from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.as_user import NOBODY, prefix
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

GRACE = 0.5
# The command leaves a daemon, and ignores what it can ignore; the value is in both.
STUBBORN = 'trap "" TERM HUP INT; setsid sleep 1000 & echo here; while :; do sleep 0.1; done'
BINDING = {"URL": "vault://secret/web#url"}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Iterator[Path]:
    """Where the agents of this file render."""
    found = tmp_path_factory.mktemp("memory") / "files"
    yield found
    if found.is_mount():
        subprocess.run(["umount", "--lazy", str(found)], check=True)


@pytest.fixture(scope="module")
def made(place, openbao, central, files) -> Iterator[AgentProcess]:
    """An agent of which nothing is to stay, with a scope that has a file and a short grace."""
    with agents(place, openbao, central) as make:
        agent = make(agent=f'on_end = "clear"\nfiles = "{files}"\nfiles_risks = ["swap"]')
        yield scoped(agent)
    wait_until(lambda: not sentinels(agent))


@pytest.fixture
def agent(made: AgentProcess) -> AgentProcess:
    """The same, which serves, whatever the test before has done to it."""
    return made if made.process is not None else made.start()


def scoped(agent: AgentProcess) -> AgentProcess:
    """Return an agent whose scope has a file and a short grace."""
    agent.scope("web", BINDING, grace=f"{GRACE * 1000:.0f}ms", files=[{"path": "web.env", "format": "systemd"}])
    return agent


class Given:
    """A file, and a stubborn command with its daemon."""

    def __init__(self, agent: AgentProcess, files: Path, *options: str) -> None:
        """Have both given out."""
        assert agent.http("POST", "/v1/render", b'{"scopes": ["web"]}')[0] == 200
        self.file = files / "web/web.env"
        self.opened = self.file.open()
        self.mark = f"MARK={os.urandom(8).hex()}"
        words = ("--scope", "web", *options, "--", "/bin/sh", "-c", STUBBORN)
        self.child = agent.spawn(*words, env=dict([self.mark.split("=")]), start_new_session=True)
        assert self.child.stdout is not None
        assert self.child.stdout.readline() == "here\n"
        assert len(self.alive()) >= 2
        run = wait_until(lambda: [each for each in agent.status()["runs"] if each["pid"] in self.alive()])[0]
        self.ids = {run["id"], agent.status()["files"][0]["id"]}

    def alive(self) -> list[int]:
        """Return the processes that have the mark."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._has(pid)]

    def gone(self) -> bool:
        """Tell whether no process is left."""
        self.child.poll()
        return not self.alive()

    def nothing(self) -> None:
        """Wait until nothing is left, and see that who had the file open reads nothing more."""
        wait_until(lambda: not self.file.exists())
        assert self.opened.read() == ""
        wait_until(self.gone)
        self.close()

    def close(self) -> None:
        """Close what the test has of it, when it has ended."""
        self.opened.close()
        self.child.communicate(timeout=30)

    def _has(self, pid: int) -> bool:
        try:
            return self.mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False


def sentinels(agent: AgentProcess) -> list[int]:
    """Return the sentinels of this agent's state."""
    state = str(agent.directory / "state")
    found = [int(name) for name in os.listdir("/proc") if name.isdigit() and "agent/sentinel" in command_line(int(name))]
    return [pid for pid in found if state in command_line(pid)]


def reasons(agent: AgentProcess, central, given: Given) -> list[str]:
    """Return why what was given is out no more, by the log, once all of it has its row."""

    def told() -> list[str]:
        found = [[row for row in rows(central, each) if row["kind"] == "cleared"] for each in given.ids]
        return [row["fields"]["reason"] for each in found for row in each] if all(found) else []

    return wait_until(told)


def test_sigterm_leaves_nothing_and_tells_why(agent, central, files):
    """SIGTERM clears files, kills a command that ignores SIGTERM and its daemon after their grace, and all of it is logged."""
    given = Given(agent, files)
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began >= GRACE
    given.nothing()
    assert reasons(agent, central, given) == ["stopped", "stopped"]
    wait_until(lambda: not sentinels(agent))
    assert not (agent.directory / "state/sentinel").exists()


@pytest.mark.parametrize("options", [(), ("--supervise",)])
def test_sigkill_leaves_nothing_and_the_next_agent_tells_why(agent, central, files, options):
    """SIGKILL: the same with no agent there, file first; the next one has a row of each, and a sentinel of its own."""
    given = Given(agent, files, *options)
    (before,) = sentinels(agent)
    agent.kill()
    wait_until(lambda: not given.file.exists())
    given.nothing()
    wait_until(lambda: not command_line(before))
    agent.start()
    assert agent.status()["runs"] == agent.status()["files"] == []
    assert reasons(agent, central, given) == ["stopped", "stopped"]
    assert len(sentinels(agent)) == 1


def test_the_sentinel_outlives_what_ends_the_agents_group_and_is_replaced_when_it_ends(agent, files):
    """SIGTERM does not end it, nor does a SIGKILL of its agent's process group; after one of its own the agent has another.

    That one has all of its code before it is needed.
    """
    (first,) = sentinels(agent)
    told = [subprocess.run([LAUNCHER, word, *more], env=agent.environment(), capture_output=True, text=True, check=False).stdout
            for word, *more in (("status",), ("doctor", "--config", str(agent.config)))]  # fmt: skip
    assert [f"pid {first})" in each for each in told] == [True, True]
    os.kill(first, signal.SIGTERM)
    os.kill(first, signal.SIGKILL)
    (second,) = wait_until(lambda: [pid for pid in sentinels(agent) if pid != first])
    wait_until(lambda: str(second) in (agent.directory / "state/sentinel").read_text())
    wait_until(lambda: "psutil" in Path(f"/proc/{second}/maps").read_text())
    given = Given(agent, files)
    assert agent.process is not None
    assert os.getpgid(second) != os.getpgid(agent.process.pid)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        os.kill(second, number)
    agent.kill()
    given.nothing()


def test_without_a_sentinel_the_next_agent_clears(agent, central, files):
    """Where agent and sentinel are killed at once the next agent takes everything back before it serves."""
    given = Given(agent, files)
    (sentinel,) = sentinels(agent)
    os.kill(sentinel, signal.SIGSTOP)
    agent.kill()
    os.kill(sentinel, signal.SIGKILL)
    assert given.file.exists() and given.alive()
    agent.start()
    given.nothing()
    assert reasons(agent, central, given) == ["stopped", "stopped"]


def test_an_agent_that_comes_meanwhile_waits_for_the_sentinel(agent, central, files):
    """An agent that starts while the sentinel gives a command its grace serves, ends it no second time, and records its end."""
    given = Given(agent, files)
    (sentinel,) = sentinels(agent)
    agent.kill()
    wait_until(lambda: not given.file.exists())
    agent.start()
    assert agent.http("POST", "/v1/render", b'{"scopes": ["web"]}')[0] == 200
    wait_until(given.gone)
    given.close()
    wait_until(lambda: not command_line(sentinel))
    assert reasons(agent, central, given) == ["stopped", "stopped"]
    assert [each["scope"] for each in agent.status()["files"]] == ["web"]  # what is new stays


def test_a_sentinel_that_has_not_begun_leaves_it_to_the_next_agent(agent, files):
    """Where the next agent is there first the sentinel of the one before does nothing, least of all to what is new."""
    given = Given(agent, files)
    (sentinel,) = sentinels(agent)
    os.kill(sentinel, signal.SIGSTOP)
    agent.kill()
    agent.start()
    given.nothing()
    after = Given(agent, files)
    os.kill(sentinel, signal.SIGCONT)
    wait_until(lambda: not command_line(sentinel))
    assert after.file.exists() and after.alive()
    agent.stop()
    after.nothing()


def test_agent_clear_does_it_after_the_end_and_refuses_before(agent, central, files):
    """``agent --clear`` takes back what an agent left, whoever killed its sentinel; with a living agent it refuses (75)."""
    given = Given(agent, files)
    words = [LAUNCHER, "agent", "--clear", "--config", str(agent.config)]
    refused = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 75 and "the agent lives" in refused.stderr
    assert given.file.exists() and given.alive()
    (sentinel,) = sentinels(agent)
    os.kill(sentinel, signal.SIGSTOP)
    agent.kill()
    os.kill(sentinel, signal.SIGKILL)
    stranger = subprocess.run([*prefix(NOBODY, NOBODY), *words], capture_output=True, text=True, check=False, timeout=60)
    assert stranger.returncode and stranger.stderr.startswith("prism-vault: ") and stranger.stderr.count("\n") == 1
    assert subprocess.run(words, capture_output=True, check=False, timeout=60).returncode == 0
    assert not given.file.exists()
    given.nothing()
    agent.start()
    assert reasons(agent, central, given) == ["stopped", "stopped"]


def test_a_mark_of_an_earlier_boot_is_none(tmp_path):
    """What an agent has left before the host was restarted ended with that: nobody has anything to take back."""
    mark.write(str(tmp_path), Mark(mark.who(os.getpid())))
    assert mark.read(str(tmp_path)) == Mark(mark.who(os.getpid()))
    kept = tmp_path / mark.NAME
    kept.write_text(kept.read_text().replace(boot(), boot()[::-1]))
    assert mark.read(str(tmp_path)) is None


def test_what_an_agent_keeps_is_left_alone(made, make_agent, files):
    """By default ``agent --clear`` and the end of the agent clear nothing, and there is no sentinel."""
    made.stop()
    agent = scoped(make_agent(agent=f'files = "{files}"\nfiles_risks = ["swap"]')).start()
    given = Given(agent, files)
    assert sentinels(agent) == []
    agent.kill()
    words = [LAUNCHER, "agent", "--clear", "--config", str(agent.config)]
    assert subprocess.run(words, capture_output=True, check=False, timeout=60).returncode == 0
    assert given.file.exists() and given.alive()
    for pid in given.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(given.gone)
    given.close()
