"""The shipped unit of an agent of which nothing is to stay, on a booted systemd: stopped or killed, it is cleared after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.agent_unit import AGENT, DROP_IN, ETC, RENDER, AgentUnit
from tests.support.booted import INSTALLED
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

HELD = "held.service"
GRACE = 10
# The command and a daemon, both deaf to SIGTERM; another user's, so it takes the helper to end them.
COMMAND = "trap '' TERM; setsid sleep 600 & while :; do sleep 0.2; done"
SERVICE = f"""\
[Service]
Type=exec
User=nobody
SupplementaryGroups=prism-vault-callers
ExecStart={INSTALLED}/bin/prism-vault exec --scope held --timeout 60s -- /bin/sh -c "{COMMAND}"
"""
# No other agent comes, and systemd alone would wait less than the grace.
ALONE = f"[Service]\nRestart=no\nTimeoutStopSec={GRACE - 4}\n"


@pytest.fixture
def clearing(web: AgentUnit) -> Iterator[AgentUnit]:
    """The machine with such an agent, a file of ``web``, and a service that holds values."""
    config = web.booted.path(f"{ETC}/agent.toml")
    before = config.read_text()
    web.rotate("held", 1)
    web.booted.path(f"{ETC}/scopes.d/held.toml").write_text(
        f'[scopes.held]\nproject = "prism"\nenvironment = "lan"\npurposes = ["service"]\ngrace = "{GRACE}s"\n'
        f'callers = [{{ kind = "service", unit = "{HELD}" }}]\n[scopes.held.env]\nKEY = "vault://secret/held#key"\n'
    )
    config.write_text(before.replace("[agent]\n", '[agent]\non_end = "clear"\n'))
    web.unit(HELD, SERVICE)
    web.unit(DROP_IN, ALONE)
    web.systemctl("restart", AGENT)
    wait_until(lambda: web.status()["ready"])
    yield web
    config.write_text(before)
    web.booted.path(f"{ETC}/scopes.d/held.toml").unlink()
    web.without(HELD)
    web.without(DROP_IN)
    web.systemctl("restart", AGENT)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_end_of_the_unit_clears(clearing, end):
    """``systemctl stop`` and SIGKILL: files, and a deaf command of another user with its daemon, are gone when the unit is."""
    clearing.systemctl("restart", RENDER)
    clearing.systemctl("restart", HELD)
    wait_until(lambda: [run["unit"] or run["scopes"] for run in clearing.status()["runs"]] == [["held"]])
    assert clearing.path().exists()
    assert "ExecStopPost=" in clearing.booted.path(f"/etc/systemd/system/{AGENT}").read_text()
    doctor = clearing.command("doctor", check=False).stdout
    assert f"{AGENT} clears after it" in doctor

    if end == "stop":
        clearing.systemctl("stop", AGENT)
    else:
        clearing.signal("KILL")
    wait_until(lambda: clearing.booted.show(AGENT, "ActiveState") in ("inactive", "failed"), 60)

    assert not clearing.path().exists()
    assert clearing.booted.show(HELD, "ActiveState") in ("inactive", "failed")
    assert clearing.booted.show(AGENT, "Result") == ("success" if end == "stop" else "signal")
    clearing.systemctl("start", AGENT)
    assert clearing.status()["runs"] == []
    wait_until(lambda: clearing.ended("stopped") and clearing.ended("stopped", "held"))
