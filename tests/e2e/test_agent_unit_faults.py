"""The agent under its units on a booted systemd: restarted, killed, hung, alone or without memory, it leaves nothing stale."""

from __future__ import annotations

import os

from tests.support.agent_unit import AGENT, DROP_IN, FILES, MOUNT, RENDER, SOCKET, WEB
from tests.support.waiting import wait_until


def test_a_restart_of_the_agent_disturbs_nobody(web):
    """Files, and units that have read them, stay as they are while the agent is restarted in good order."""
    before = (web.pid(WEB), web.path().stat().st_ino)
    agent = web.pid()
    web.systemctl("restart", AGENT)

    assert web.pid() != agent
    assert [each["scope"] for each in web.status()["files"]] == ["web"]
    assert (web.pid(WEB), web.path().stat().st_ino) == before


def test_a_killed_agent_leaves_nothing_stale(web):
    """After SIGKILL systemd starts another one, which clears what was forbidden meanwhile and keeps the rest, for units too."""
    web.scope("gone")
    wait_until(lambda: "gone" in [each["name"] for each in web.status()["scopes"]])
    web.systemctl("start", "prism-vault-render@gone.service")
    assert web.holds("gone", 1)
    before = (web.pid(WEB), web.path().stat().st_ino)

    agent = web.signal("STOP")  # so that it cannot see what follows
    web.booted.path("/etc/prism-vault/scopes.d/gone.toml").unlink()
    web.signal("KILL")

    wait_until(lambda: web.pid() not in ("0", agent) and web.active(AGENT))
    wait_until(lambda: web.ended("scope_removed", "gone"))
    assert not web.path("gone").exists()
    assert os.listdir(web.booted.path(f"{FILES}/.staged")) == []
    assert [each["scope"] for each in web.status()["files"]] == ["web"]
    assert (web.pid(WEB), web.path().stat().st_ino) == before
    web.systemctl("stop", "prism-vault-render@gone.service")


def test_a_hung_agent_is_replaced(web):
    """An agent that no longer runs is killed by systemd's watchdog and started anew; files and units stay as they are."""
    web.unit(DROP_IN, "[Service]\nWatchdogSec=5s\n")
    web.systemctl("restart", AGENT)
    before = (web.pid(WEB), web.path().stat().st_ino)
    agent = web.signal("STOP")

    wait_until(lambda: web.pid() not in ("0", agent) and web.active(AGENT))
    assert "Watchdog timeout" in web.booted.journal(AGENT)
    assert (web.pid(WEB), web.path().stat().st_ino) == before
    web.rotate("web", 3)
    wait_until(lambda: web.holds("web", 3))
    web.without(DROP_IN)


def test_a_unit_waits_for_central(web):
    """While central is away the unit does not start; when it is back it is started without anybody's doing."""
    web.systemctl("stop", RENDER)
    web.booted.run("systemctl", "add-wants", RENDER, WEB)
    web.central.stop()
    assert web.systemctl("start", WEB, check=False) == 1
    assert not web.active(WEB)
    assert not web.path().exists()
    web.central.start()

    wait_until(lambda: web.active(WEB), 60)
    assert web.given() == web.value("web", 1)


def test_without_its_memory_no_agent_serves(web):
    """The agent is stopped before its mount is, nothing is left where that was, and the next start mounts it again."""
    web.systemctl("stop", RENDER)
    web.systemctl("stop", SOCKET)
    web.systemctl("stop", MOUNT)
    assert not web.active(AGENT)
    assert os.listdir(web.booted.path(FILES)) == []
    web.systemctl("start", WEB)

    assert web.given() == web.value("web", 1)
    assert web.status()["files_memory"] == "noswap"
