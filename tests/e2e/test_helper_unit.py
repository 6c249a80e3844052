"""The helper under its units on a booted systemd: files of other users, their processes, and what happens without it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.agent_unit import AGENT, FILES, HELPER, HELPER_SOCKET, USER
from tests.support.booted import INSTALLED
from tests.support.roots import HERE
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agent_unit import AgentUnit

OWNER = "www-data"
RENDER = "prism-vault-render@owned.service"
RUN = "run.service"
UNITS = f"{HELPER}.d/units.conf"
# Where the helper sees sockets.
SEEN = ("/run/prism-vault/", "/run/dbus/", "/run/systemd/userdb/")
RUNNING = f"""\
[Service]
Type=exec
User={OWNER}
SupplementaryGroups=prism-vault-callers
ExecStart={INSTALLED}/bin/prism-vault exec --scope run --run-ref held -- /bin/sleep infinity
"""


@pytest.fixture(scope="module")
def made(host: AgentUnit) -> AgentUnit:
    """Return the machine with a scope whose file is another user's, and one that a service of that user runs with."""
    host.scope("owned", f'owner = "{OWNER}"\nmode = "0400"')
    host.rotate("run", 1)
    host.booted.path("/etc/prism-vault/scopes.d/run.toml").write_text(
        '[scopes.run]\nproject = "prism"\nenvironment = "lan"\npurposes = ["service"]\n'
        f'callers = [{{ kind = "service", user = "{OWNER}" }}]\n[scopes.run.env]\nKEY = "vault://secret/run#key"\n'
    )
    host.unit(RUN, RUNNING)
    wait_until(lambda: host.status()["ready"])
    wait_until(lambda: {"owned", "run"} <= {each["name"] for each in host.status()["scopes"]})
    return host


@pytest.fixture
def running(made: AgentUnit) -> Iterator[AgentUnit]:
    """Return the machine with the service running."""
    made.systemctl("restart", RUN)
    wait_until(lambda: made.booted.show(RUN, "MainPID") != "0" and "sleep" in command(made, made.pid(RUN)))
    wait_until(lambda: [run for run in made.status()["runs"] if run["run_ref"] == "held" and str(run["pid"]) == made.pid(RUN)])
    yield made
    made.systemctl("stop", RUN)
    made.booted.run("systemctl", "reset-failed", RUN, check=False)


def command(made: AgentUnit, pid: str) -> str:
    """Return the command line of a process."""
    return made.booted.run("cat", f"/proc/{pid}/cmdline", check=False).stdout


def path(name: str = "owned") -> str:
    """Return where the file of a scope is."""
    return f"{FILES}/{name}/web.env"


def test_a_file_is_its_owners(made):
    """An agent without any capability renders a file of another user, mode 0400, which that user reads and no other does."""
    made.systemctl("stop", HELPER)
    made.systemctl("start", RENDER)
    status = dict(
        line.split(":\t", 1) for line in made.booted.run("cat", f"/proc/{made.pid()}/status").stdout.splitlines() if ":\t" in line
    )

    assert (status["CapBnd"], status["CapEff"], status["CapAmb"]) == ("0" * 16, "0" * 16, "0" * 16)
    assert made.booted.run("stat", "-c", "%U %G %a", path()).stdout == f"{OWNER} {USER} 400\n"
    assert made.value("owned", 1) in made.booted.run("runuser", "-u", OWNER, "--", "cat", path()).stdout
    for other in ("nobody", USER):
        assert made.booted.run("runuser", "-u", other, "--", "cat", path(), check=False).returncode == 1
    assert made.status()["files"][0]["drift"] == []
    assert made.active(HELPER)


def test_a_rotation_and_a_stop_reach_another_users_file(made):
    """The new version is the owner's too; a stop empties what somebody still has open."""
    made.systemctl("start", RENDER)
    made.systemctl("reload-or-restart", AGENT)
    wait_until(lambda: made.status()["ready"])
    made.rotate("owned", 2)
    wait_until(lambda: made.holds("owned", 2))
    wait_until(lambda: made.ended("rotated", "owned"))
    assert made.booted.run("stat", "-c", "%U %a", path()).stdout == f"{OWNER} 400\n"

    with made.path("owned").open("rb") as opened:
        made.systemctl("stop", RENDER)
        assert opened.read() == b""
    assert not made.path("owned").exists()
    wait_until(lambda: made.ended("cleared", "owned"))
    made.rotate("owned", 1)


def test_without_a_helper_nothing_of_another_user_is_rendered(made):
    """While the helper is away the render fails with one line that says what to start, and no file is there; then it works."""
    made.systemctl("stop", HELPER_SOCKET)
    made.systemctl("stop", HELPER)
    made.systemctl("start", RENDER, check=False)

    wait_until(lambda: "no helper serves us at /run/prism-vault/helper.sock" in made.booted.journal(RENDER))
    assert "start prism-vault-helper.socket" in made.booted.journal(RENDER)
    assert not made.path("owned").exists()
    wait_until(lambda: made.booted.run("ls", f"{FILES}/.staged").stdout == "")
    told = json.loads(made.command("doctor", "--json", check=False).stdout)
    (check,) = [each for each in told if each["name"].startswith("files of other users")]
    assert check["state"] == "does not hold" and check["needed"]
    made.systemctl("start", HELPER_SOCKET)
    made.booted.run("systemctl", "reset-failed", RENDER)
    made.systemctl("start", RENDER)
    assert made.holds("owned", 1)
    made.systemctl("stop", RENDER)


def test_a_revocation_ends_another_users_process(running):
    """A process of another user that holds a value is ended by its descriptor, and that is on the log as revoked."""
    pid = running.pid(RUN)
    done = running.command("revoke", "--run-ref", "held")

    assert f"pid {pid}" in done.stdout and "SIGTERM" in done.stdout
    wait_until(lambda: not running.active(RUN))
    wait_until(lambda: running.ended("revoked", "run"))
    assert f'"pid": {pid}' in running.booted.journal(HELPER)


def test_without_a_helper_a_process_is_told_as_failed(running):
    """While the helper is away the revocation says that it could not end the process, and that is the exit status."""
    running.systemctl("stop", HELPER_SOCKET)
    running.systemctl("stop", HELPER)
    done = running.command("revoke", "--run-ref", "held", check=False)

    assert done.returncode == 75 and "no helper serves us at" in done.stderr
    assert running.active(RUN)
    running.systemctl("start", HELPER_SOCKET)
    assert running.command("revoke", "--run-ref", "held").returncode == 0


def test_a_unit_is_told_by_a_helper_that_may(made):
    """With the drop-in that makes it root the helper reloads the unit that a notify names, and serves others meanwhile."""
    made.unit(UNITS, (HERE / "systemd" / UNITS).read_text())
    made.systemctl("stop", HELPER)
    slow = "test ! -e /run/slow || cat /run/slow >/dev/null; echo reloaded >>/run/reloads"
    made.unit("told.service", f"[Service]\nType=exec\nExecStart=/bin/sleep infinity\nExecReload=/bin/sh -c '{slow}'\n")
    made.systemctl("start", "told.service")
    made.scope("told", 'notify = { unit = "told.service", action = "reload", min_interval = "0s" }')
    wait_until(lambda: "told" in [each["name"] for each in made.status()["scopes"]])
    made.systemctl("start", "prism-vault-render@told.service")
    made.booted.run("mkfifo", "/run/slow")
    made.rotate("told", 2)
    wait_until(lambda: made.booted.show("told.service", "ActiveState") == "reloading")
    made.systemctl("restart", RENDER)
    assert made.booted.run("stat", "-c", "%U", path()).stdout == f"{OWNER}\n", "while the reload hangs another file is given"
    assert made.booted.show("told.service", "ActiveState") == "reloading"
    made.booted.run("sh", "-c", "echo go >/run/slow; rm /run/slow")

    wait_until(lambda: made.booted.path("/run/reloads").exists())
    wait_until(lambda: [each for each in made.central.events() if each["fields"].get("reason") == "notified"])
    assert '"verb": "unit", "unit": "told.service", "how": "reload"' in made.booted.journal(HELPER)
    assert made.booted.run("systemd-analyze", "security", "--no-pager", "--threshold=25", HELPER).returncode == 0
    made.systemctl("stop", "prism-vault-render@told.service")
    made.systemctl("stop", RENDER)
    made.without(UNITS)
    made.systemctl("stop", HELPER)


def test_the_helper_serves_nobody_but_the_agents_unit(made):
    """The agent's user outside of its unit is refused, and so is root; other users cannot even connect."""
    ask = (
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('/run/prism-vault/helper.sock');"
        "s.send(bytes([4]) + bytes(8)); print(s.recv(2000))"
    )
    told = {
        user: made.booted.run("runuser", "-u", user, "--", "python3", "-c", ask, check=False) for user in ("root", USER, "nobody")
    }
    assert "serves user prism-vault, and not uid 0" in told["root"].stdout
    assert "serves prism-vault-agent.service, and not" in told[USER].stdout
    assert "PermissionError" in told["nobody"].stderr


def test_the_helper_has_three_capabilities_and_nothing_else(made):
    """It runs as a user of its own with three capabilities, has no network, no socket of root's, and writes no file of root's."""
    made.systemctl("start", HELPER)
    pid = made.pid(HELPER)
    status = dict(
        line.split(":\t", 1) for line in made.booted.run("cat", f"/proc/{pid}/status").stdout.splitlines() if ":\t" in line
    )
    inside = ["nsenter", "--target", pid, "--mount", "--net", "--"]

    assert {status[each] for each in ("CapBnd", "CapEff", "CapPrm", "CapAmb")} == {f"{1 << 0 | 1 << 1 | 1 << 5:016x}"}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Uid"].split() == [made.booted.run("id", "-u", "prism-vault-helper").stdout.strip()] * 4
    assert int(status["VmRSS"].split()[0]) < 64 * 1024
    assert made.booted.run(*inside, "touch", "/etc/prism-vault/written", check=False).returncode == 1
    sockets = made.booted.run(*inside, "find", "/run", "-type", "s").stdout.split()
    assert f"{FILES.rpartition('/')[0]}/helper.sock" in sockets and all(each.startswith(SEEN) for each in sockets)
    assert made.booted.run(*inside, "cat", "/proc/net/route", check=False).stdout.count("\n") <= 1
    assert made.booted.run("systemd-analyze", "security", "--threshold=25", HELPER).returncode == 0
