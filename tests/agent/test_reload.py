"""A changed configuration is applied while the agent serves; a bad one is refused and changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from watchfiles import Change

from prism_vault_agent.agent.reload import _matters
from tests.agent.asking import answer, eventually, exec_request, rows
from tests.agent.puppet import Puppet
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.agent import AgentProcess

BINDING = {"URL": "vault://secret/web#url"}


def scopes(agent: AgentProcess) -> list[str]:
    """Return the names of the scopes that the agent has now."""
    return sorted(scope["name"] for scope in agent.status()["scopes"])


def error(agent: AgentProcess) -> str:
    """Return what the agent says is wrong with its configuration."""
    told: str = agent.status()["config"]["error"]
    return told


def scope_file(agent: AgentProcess, name: str = "web") -> Path:
    """Return the file of a scope."""
    return agent.directory / "scopes.d" / f"{name}.toml"


def run(agent: AgentProcess, scope: str = "web") -> int:
    """Return how an exec of a scope ends."""
    return agent.exec("--scope", scope, "--", "true").returncode


def sleeping(agent: AgentProcess, scope: str, *words: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """Return a run of a scope, and what status says of it."""
    child = agent.spawn("--scope", scope, "--", *(words or ("sleep", "1000")))
    return child, wait_until(lambda: [run for run in agent.status()["runs"] if run["pid"] == child.pid], 30)[0]


def test_a_scope_dropped_in_is_picked_up(make_agent):
    """A file dropped into scopes.d is a scope without a restart, a changed one is another, and a removed one is none."""
    agent = make_agent().start()
    loaded = agent.status()["config"]["loaded_at"]
    agent.scope("more", BINDING)
    eventually(lambda: scopes(agent) == ["more", "web"])
    assert run(agent, "more") == 0
    agent.scope("more", BINDING, callers=[{"kind": "operator", "uid": os.geteuid() + 1}])
    eventually(lambda: run(agent, "more") == 77)
    scope_file(agent, "more").unlink()
    eventually(lambda: scopes(agent) == ["web"])
    assert agent.status()["config"]["loaded_at"] >= loaded
    assert error(agent) == ""


def test_a_first_scopes_directory_is_noticed(make_agent):
    """A scopes.d that appears after the start, as a whole, is read."""
    agent = make_agent()
    kept = agent.directory / "elsewhere"
    (agent.directory / "scopes.d").rename(kept)
    agent.start()
    assert scopes(agent) == []
    kept.rename(agent.directory / "scopes.d")
    eventually(lambda: scopes(agent) == ["web"])


def test_sighup_reads_what_cannot_be_watched(make_agent, tmp_path):
    """SIGHUP reads the configuration anew, also where a file that a link leads to was changed out of sight."""
    agent = make_agent()
    real = tmp_path / "scope.toml"
    scope_file(agent).rename(real)
    tmp_path.chmod(0o755)
    scope_file(agent).symlink_to(real)
    agent.start()
    real.write_text(real.read_text().replace("[scopes.web]", "[scopes.renamed]"))
    agent.hang_up()
    eventually(lambda: scopes(agent) == ["renamed"])


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("[scopes.bad\n", "bad.toml:1: is not TOML"),
        ('[scopes.bad]\nproject = "p"\nsurprise = 1\n', "surprise"),
        ('[scopes.web]\nproject = "p"\nenvironment = "e"\npurposes = ["t"]\ncallers = [{kind = "operator", uid = 1}]\n', "web"),
        ("\xff\n", "bad.toml"),
        ("x = " + "[" * 5000 + "\n", "bad.toml"),
    ],
)
def test_f92_a_bad_file_changes_nothing(make_agent, central, bad, says):
    """F92: a file that is wrong is refused with its place; status, log and an audit row say so, the old scopes serve on."""
    agent = make_agent().start()
    before = central.events()[-1]["n"] if central.events() else 0
    path = scope_file(agent, "bad")
    path.touch(mode=0o600)
    path.write_bytes(bad.encode("latin-1"))
    eventually(lambda: says in error(agent))
    assert scopes(agent) == ["web"]
    assert run(agent) == 0
    assert agent.status()["ready"]
    assert '"config.refused"' in agent.log
    told = wait_until(lambda: [event["fields"] for event in central.events(kind="admin") if event["n"] > before])
    assert any(fields["reason"] == "config_refused" and "bad.toml" in fields["message"] for fields in told)
    path.unlink()
    eventually(lambda: error(agent) == "")
    assert scopes(agent) == ["web"]


def test_f92_what_others_could_have_written_changes_nothing(make_agent):
    """F92: a scope file that the group may write is refused while the agent runs, as at its start."""
    agent = make_agent().start()
    agent.scope("more", BINDING)
    eventually(lambda: "more" in scopes(agent))
    scope_file(agent, "more").chmod(0o620)
    agent.hang_up()
    eventually(lambda: "more.toml" in error(agent))
    assert scopes(agent) == ["more", "web"]


def test_f60_a_removed_scope_ends_its_runs(make_agent, central):
    """F60: when a scope is removed its runs end, each with a row that says so; the others' live on; it is denied from then on."""
    agent = make_agent().scope("gone", BINDING).start()
    child, shown = sleeping(agent, "gone")
    other, _ = sleeping(agent, "web")
    scope_file(agent, "gone").unlink()
    assert child.wait(60) == -15
    eventually(lambda: [row["fields"].get("reason") for row in rows(central, shown["id"])][2:] == ["scope_removed"])
    assert run(agent, "gone") == 77
    assert other.poll() is None
    other.kill()
    other.communicate()
    child.communicate()


def test_f60_a_scope_removed_while_a_release_is_under_way(make_agent, central):
    """F60: a run whose scope was removed between decision and release is ended as soon as it is there."""
    agent = make_agent(central_lines='timeout = "60s"').scope("gone", BINDING).start()
    with Puppet(agent.socket) as puppet:
        central.pause()
        try:
            puppet.connection.sendall(exec_request("gone", timeout_ms=60_000))
            eventually(lambda: agent.status()["central"]["queued"] >= 1)
            scope_file(agent, "gone").unlink()
            eventually(lambda: scopes(agent) == ["web"])
        finally:
            central.resume()
        answer(puppet.connection)
        eventually(lambda: agent.status()["runs"] == [])
        mine = [event["fields"] for event in central.events(kind="reserved") if event["fields"]["caller"]["pid"] == puppet.pid]
        eventually(lambda: "scope_removed" in [row["fields"].get("reason") for row in rows(central, mine[-1]["reservation"])])


def test_a_run_that_does_not_listen_holds_nothing_up(make_agent):
    """While a removed scope's run is given its grace, further changes are applied."""
    agent = make_agent().scope("gone", BINDING, grace="1h").start()
    child, _ = sleeping(agent, "gone", "sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done")
    assert child.stdout is not None
    child.stdout.readline()
    scope_file(agent, "gone").unlink()
    eventually(lambda: scopes(agent) == ["web"])
    agent.scope("more", BINDING)
    eventually(lambda: scopes(agent) == ["more", "web"])
    assert child.poll() is None
    assert agent.stop() == 0
    child.kill()
    child.communicate()


@pytest.mark.parametrize(("section", "line"), [("vault", 'timeout = "7s"'), ("agent", "workers = 2")])
def test_what_needs_a_restart_says_so(make_agent, section, line):
    """A change to another section than the scopes is not half applied: status and log say that it needs a restart."""
    agent = make_agent().start()
    agent.scope("more", BINDING)
    agent.config.write_text(agent.main.replace(f"[{section}]\n", f"[{section}]\n{line}\n"))
    eventually(lambda: error(agent) == f"restart the agent to apply: {section}")
    eventually(lambda: scopes(agent) == ["more", "web"])
    assert agent.status()["workers"]["idle"] == 4
    assert run(agent) == 0
    agent.config.write_text(agent.main)
    eventually(lambda: error(agent) == "")


def test_many_changes_end_in_the_last_one(make_agent):
    """After many quick changes the last one holds, and no reader saw a half-written one applied."""
    agent = make_agent().start()
    for number in range(40):
        draft = agent.directory / "scopes.d" / ".draft"
        draft.touch(mode=0o600)
        draft.write_text(scope_file(agent).read_text().replace("[scopes.web]", f"[scopes.n{number}]"))
        draft.rename(scope_file(agent, "changing"))
    eventually(lambda: scopes(agent) == ["n39", "web"])
    applied = [json.loads(line) for line in agent.log.splitlines() if "config.applied" in line]
    assert applied[-1]["needs_restart"] == []


@pytest.mark.parametrize(
    ("path", "matters"),
    [
        ("/etc/prism-vault/agent.toml", True),
        ("/etc/prism-vault/scopes.d/web.toml", True),
        ("/etc/prism-vault/scopes.d", True),
        ("/etc/prism-vault/..data", True),
        ("/etc/prism-vault/agent.log", False),
        ("/etc/prism-vault/state/journal", False),
        ("/etc/prism-vault/scopes.d/.web.toml.swp", False),
    ],
)
def test_only_the_configuration_matters(path, matters):
    """What lies beside the configuration can change as it likes."""
    assert _matters(Change.modified, path) == matters


NO_INOTIFY = ("/usr/bin/unshare", "--user", "--map-root-user", "/bin/sh", "-c")


@pytest.mark.namespaces
def test_a_host_without_inotify_is_looked_at(make_agent):
    """Where the kernel has no instance of inotify(7) left for us, the agent serves all the same and looks for changes itself."""
    limited = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
    agent = make_agent(before=[*NO_INOTIFY, limited, "sh"]).start()
    agent.scope("more", BINDING)
    eventually(lambda: scopes(agent) == ["more", "web"])
    assert "changes.polled" in agent.log
