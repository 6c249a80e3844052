"""The agent under its units on a booted systemd: a unit starts with its secret, and nobody else has it."""

from __future__ import annotations

import re

from tests.support.agent_unit import AGENT, DROP_IN, FILES, RENDER, USER, WEB
from tests.support.waiting import wait_until


def test_who_connects_starts_the_agent(host):
    """A command that asks at the socket is answered by an agent that systemd started for it."""
    host.systemctl("stop", AGENT)
    assert not host.active(AGENT)
    told = host.status()

    assert told["socket"] == {"path": "/run/prism-vault/agent.sock", "ours": True}
    assert host.active(AGENT)
    assert host.pid() == str(told["pid"])


def test_a_unit_starts_with_its_secret(web):
    """Its environment is the rendered file's, which only the agent and systemd can read, in memory that is never swapped."""
    found = web.path().stat()
    listed = web.booted.run("cat", f"{FILES}/web/web.env").stdout
    stranger = web.booted.run("runuser", "-u", "nobody", "--", "cat", f"{FILES}/web/web.env", check=False)
    reserved = web.rows("reserved")[-1]

    assert web.given() == web.value("web", 1)
    assert web.value("web", 1) in listed, "outside of the agent's unit the file is there"
    assert (found.st_uid, found.st_mode & 0o777) == (web.path().parent.parent.stat().st_uid, 0o400)
    assert web.booted.run("stat", "-c", "%U %a", f"{FILES}/web/web.env").stdout == f"{USER} 400\n"
    assert "Permission denied" in stranger.stderr
    assert web.status()["files_memory"] == "noswap"
    assert (reserved["mode"], reserved["caller"]["kind"], reserved["caller"]["unit"]) == ("file", "service", RENDER)
    assert [row["reservation"] for row in web.rows("success")][-1] == reserved["reservation"]


def test_only_the_unit_may_have_it_rendered(web):
    """Another caller is denied, root too: the scope names the unit, and the kernel says who is in it."""
    assert web.command("render", "web", check=False).returncode == 77


def test_what_is_denied_is_told_and_not_tried_again(web):
    """A render that the scope does not allow fails at once with 77 and a line that says why, and is not restarted."""
    web.systemctl("start", "prism-vault-render@other.service", check=False)

    assert not web.active("prism-vault-render@other.service")
    assert web.booted.show("prism-vault-render@other.service", "ExecMainStatus") == "77"
    assert web.booted.show("prism-vault-render@other.service", "NRestarts") == "0"
    assert "prism-vault: " in web.booted.journal("prism-vault-render@other.service")


def test_a_rotation_is_rendered_anew(web):
    """A new version is in the file within a poll, and in the unit when that is restarted; the old one's end is on the log."""
    web.rotate("web", 2)

    wait_until(lambda: web.holds("web", 2))
    wait_until(lambda: web.ended("rotated"))
    assert web.given() == web.value("web", 1), "what a process has read is its own"
    web.systemctl("restart", WEB)
    assert web.given() == web.value("web", 2)


def test_a_stop_clears(web):
    """``systemctl stop`` of the unit that rendered stops who needs the files, then takes them away, on the log."""
    web.systemctl("restart", WEB)
    assert web.holds("web", 1), "they stay while their reader is stopped"
    with web.path().open("rb") as opened:
        web.systemctl("stop", RENDER)
        assert opened.read() == b""

    assert not web.path().exists()
    assert not web.active(WEB)
    wait_until(lambda: web.ended("cleared"))


def test_a_group_reads_a_file(web):
    """An agent that is in a group, by a drop-in, gives a file to it: its members read the file, and others do not."""
    web.unit(DROP_IN, "[Service]\nSupplementaryGroups=www-data\nSystemCallFilter=@chown\n")
    web.scope("shared", 'group = "www-data"\nmode = "0440"')
    web.systemctl("restart", AGENT)
    assert "shared" in [each["name"] for each in web.status()["scopes"]]
    web.systemctl("start", "prism-vault-render@shared.service")
    read = ["cat", f"{FILES}/shared/web.env"]

    assert web.value("shared", 1) in web.booted.run("runuser", "-u", "www-data", "--", *read).stdout
    assert web.booted.run("runuser", "-u", "nobody", "--", *read, check=False).returncode == 1
    web.systemctl("stop", "prism-vault-render@shared.service")
    web.without(DROP_IN)


def test_the_agent_works_within_the_bounds_of_its_unit(web):
    """The agent has no capability and no core, cannot be read, and writes nothing but state and files."""
    pid = web.pid()
    status = dict(
        line.split(":\t", 1) for line in web.booted.path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    limits = re.sub(" +", " ", web.booted.path(f"/proc/{pid}/limits").read_text())
    inside = ["nsenter", "--target", pid, "--mount", "--"]
    places = ("/etc", "/usr", "/opt/prism-vault", "/var/lib", "/home", "/etc/prism-vault")
    written = {place: web.booted.run(*inside, "touch", f"{place}/written", check=False).returncode for place in places}

    assert (status["CapBnd"], status["CapEff"], status["CapAmb"]) == ("0" * 16, "0" * 16, "0" * 16)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Uid"].split() == [web.booted.run("id", "-u", USER).stdout.strip()] * 4
    assert "Max core file size 0 0 " in limits
    assert web.status()["process"]["not_dumpable"]
    assert written == dict.fromkeys(places, 1), "not by root either"
    own = {FILES: 0, "/var/lib/prism-vault": 0, "/run/prism-vault": 1, "/run": 1}
    as_user = [*inside, "runuser", "-u", USER, "--", "mktemp"]
    assert {place: web.booted.run(*as_user, f"{place}/XXXXXX", check=False).returncode for place in own} == own


def test_no_value_is_told(web):
    """Neither the journal of the machine nor what systemd shows of the units has a value."""
    web.systemctl("restart", WEB)
    told = web.booted.run("journalctl", "--output=json", "--no-pager").stdout
    told += web.booted.run("systemctl", "show", WEB, RENDER, AGENT).stdout

    assert "Started web.service" in told
    assert web.canary not in told
