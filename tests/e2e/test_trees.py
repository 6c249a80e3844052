"""A command's tree in a unit or session of a booted systemd with cgroup v2: ended whole by each agent, systemd's as before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.agent_unit import AGENT, DROP_IN, ETC, FILES, HELPER, HELPER_SOCKET, AgentUnit
from tests.support.booted import INSTALLED, Booted
from tests.support.central import CentralProcess
from tests.support.openbao import OpenBao
from tests.support.roots import NEWER
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

UNIT = "tree.service"
GROUP = f"/sys/fs/cgroup/system.slice/{UNIT}"
PROCESSES = 6
# The command, and five daemons that have left its session and are nobody's children; all ignore SIGTERM.
DAEMONS = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork(): os._exit(0)
        time.sleep(600)
    os.wait()
time.sleep(600)
"""
SERVICE = f"""\
[Service]
Type=exec
User=nobody
SupplementaryGroups=prism-vault-callers
ExecStart={INSTALLED}/bin/prism-vault exec --scope tree --run-ref tree -- /usr/bin/python3 /opt/daemons.py
TimeoutStopSec=2
"""
SCOPE = "session-of-ours.scope"
SESSION = f"/sys/fs/cgroup/system.slice/{SCOPE}"
# As in a login session: a shell that stays starts a plain command, and neither has the unit to itself.
LOGIN = (
    "setpriv --reuid=nobody --regid=nogroup --groups=prism-vault-callers "
    f"{INSTALLED}/bin/prism-vault exec --scope session --run-ref session -- /usr/bin/python3 /opt/daemons.py & sleep infinity"
)
# What is the agent's user's.
OWNED = (f"{ETC}/role-id", f"{ETC}/secret-id", f"{ETC}/token", FILES)
# The agent is root's and may make control groups.
ROOTS = """\
[Service]
User=root
Group=root
CapabilityBoundingSet=~
SystemCallFilter=
ProtectControlGroups=no
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentUnit]:
    """A machine with cgroup v2 and nothing else, its agent as it ships, and a service that starts daemons."""
    own = tmp_path_factory.mktemp("central")
    with (
        OpenBao(tmp_path_factory.mktemp("openbao")) as openbao,
        CentralProcess(own) as central,
        Booted(tmp_path_factory.mktemp("booted"), our_network=True, suite=NEWER) as booted,
    ):
        made = AgentUnit(booted, openbao, central)
        made.rotate("tree", 1)
        booted.path(f"{ETC}/scopes.d/tree.toml").write_text(
            '[scopes.tree]\nproject = "prism"\nenvironment = "lan"\npurposes = ["service"]\ngrace = "1s"\n'
            f'callers = [{{ kind = "service", unit = "{UNIT}" }}]\n[scopes.tree.env]\nKEY = "vault://secret/tree#key"\n'
        )
        made.rotate("session", 1)
        booted.path(f"{ETC}/scopes.d/session.toml").write_text(
            '[scopes.session]\nproject = "prism"\nenvironment = "lan"\npurposes = ["service"]\ngrace = "1s"\n'
            'callers = [{ kind = "service", user = "nobody" }]\n[scopes.session.env]\nKEY = "vault://secret/session#key"\n'
        )
        booted.path("/opt/daemons.py").write_text(DAEMONS)
        made.unit(UNIT, SERVICE)
        wait_until(lambda: made.status()["ready"])
        yield made


@pytest.fixture(params=["shipped", "roots"])
def agent(machine: AgentUnit, request: pytest.FixtureRequest) -> Iterator[AgentUnit]:
    """The agent as it ships, and one that is root's, with the service running."""
    if request.param == "roots":
        machine.unit(DROP_IN, ROOTS)
        machine.booted.run("chown", "root", *OWNED)
    machine.systemctl("restart", AGENT)
    wait_until(lambda: machine.status().get("ready"))
    machine.systemctl("restart", UNIT)
    wait_until(lambda: len(processes(machine)) == PROCESSES)
    yield machine
    machine.systemctl("stop", UNIT)
    if request.param == "roots":
        machine.without(DROP_IN)
        machine.booted.run("chown", "prism-vault", *OWNED)


@pytest.fixture(params=["helper", "no-helper"])
def session(machine: AgentUnit, request: pytest.FixtureRequest) -> Iterator[tuple[AgentUnit, bool]]:
    """The agent as it ships, and a session in which the command runs beside others; whether the helper is there at its start."""
    helped = request.param == "helper"
    if not helped:
        machine.systemctl("stop", HELPER_SOCKET)
    machine.systemctl("start" if helped else "stop", HELPER)
    machine.systemctl("restart", AGENT)
    wait_until(lambda: machine.status().get("ready"))
    machine.booted.run("sh", "-c", f"systemd-run --scope --unit={SCOPE} -- sh -c '{LOGIN}' >/dev/null 2>&1 </dev/null &")
    wait_until(lambda: len(processes(machine, SESSION)) == PROCESSES + 2)
    yield machine, helped
    machine.systemctl("start", HELPER_SOCKET)
    machine.booted.run("systemctl", "kill", "--signal=KILL", SCOPE, check=False)
    wait_until(lambda: not machine.active(SCOPE))


def processes(machine: AgentUnit, group: str = GROUP) -> list[str]:
    """Return the processes in the unit's control group and below."""
    return machine.booted.run("sh", "-c", f"find {group} -name cgroup.procs -exec cat {{}} +", check=False).stdout.split()


def groups(machine: AgentUnit, group: str = GROUP) -> list[str]:
    """Return the groups of runs below the unit's."""
    return machine.booted.run("sh", "-c", f"ls -d {group}/prism-vault-*", check=False).stdout.split()


def is_roots(machine: AgentUnit) -> bool:
    """Tell whose the agent is."""
    return machine.booted.show(AGENT, "User") == "root"


def test_a_revocation_ends_all_of_the_unit(agent):
    """Every process ends, also those that have left parent and session and ignore SIGTERM, whoever's the agent is."""
    main = agent.pid(UNIT)
    (run,) = [run for run in agent.status()["runs"] if run["run_ref"] == "tree"]
    own = f"/prism-vault-{run['id'].removeprefix('pva_')}" if is_roots(agent) else ""
    assert f"\n0::/system.slice/{UNIT}{own}\n" in "\n" + agent.booted.run("cat", f"/proc/{main}/cgroup").stdout
    assert len(groups(agent)) == is_roots(agent)
    ended = agent.command("revoke", "--run-ref", "tree").stdout
    assert ended == f"pid {main}: SIGKILL\n"
    assert processes(agent) == []
    wait_until(lambda: agent.ended("revoked", "tree"))
    assert groups(agent) == []


def test_the_unit_stays_systemds(agent):
    """What is in a group of ours is still the unit's: shown by it, ended with it, and the group goes; the log has the end."""
    shown = agent.booted.run("systemctl", "status", "--full", "--no-pager", UNIT).stdout
    assert all(pid in shown for pid in processes(agent)) and len(groups(agent)) == is_roots(agent)
    assert agent.booted.show(UNIT, "ControlGroup") == f"/system.slice/{UNIT}"
    ends = len(agent.rows("cleared", "tree"))
    agent.systemctl("stop", UNIT)
    assert processes(agent) == []
    wait_until(lambda: len(agent.rows("cleared", "tree")) == ends + 1)
    assert agent.ended("exited", "tree") and groups(agent) == []


def test_a_revocation_ends_all_of_a_command_in_a_session(session):
    """Daemons of a plain command end, in a group that the helper has made or as what it adopted; the rest of it stays."""
    machine, helped = session
    assert len(groups(machine, SESSION)) == helped
    (run,) = [run for run in machine.status()["runs"] if run["run_ref"] == "session"]
    told = json.loads(machine.command("doctor", "--json", check=False).stdout)
    (check,) = [each for each in told if each["name"].startswith("what a command starts")]
    assert (check["state"] == "holds") == helped and ("made by the helper" in check["why"]) == helped
    machine.systemctl("start", HELPER_SOCKET)  # who signals another user's processes
    assert machine.command("revoke", "--run-ref", "session").stdout == f"pid {run['pid']}: SIGKILL\n"
    wait_until(lambda: len(processes(machine, SESSION)) == 2)
    wait_until(lambda: machine.ended("revoked", "session"))
    wait_until(lambda: groups(machine, SESSION) == [])
    assert machine.active(SCOPE)
