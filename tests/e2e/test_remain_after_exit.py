"""A unit that stays active when its process has ended (RemainAfterExit=): the agent says that it holds what systemd keeps for it.

systemd 252 keeps its credentials until it is stopped, 257 until its last process has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.agent_unit import AGENT, ETC, HELPER
from tests.support.roots import HERE, SUITE
from tests.support.signalled import evidence, order
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agent_unit import AgentUnit

UNITS = f"{HELPER}.d/units.conf"
UNIT = r"once\x2dmore.service"  # what is escaped stands in the names of its places, too
CREDENTIAL = f"/run/credentials/{UNIT}/key"
TEXT = """\
[Service]
Type=oneshot
RemainAfterExit=yes
LoadCredential=key:/run/prism-vault/credentials.sock
ExecStart=/bin/sh -c 'test -s "$CREDENTIALS_DIRECTORY/key"'
"""


class Once:
    """``once.service``, whose process has ended, with what it was given by scope ``once``."""

    def __init__(self, host: AgentUnit) -> None:
        self.host = host
        self.before = len(self.rows("cleared"))
        host.booted.run("systemctl", "start", UNIT)

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """Return the rows of its scope."""
        return self.host.rows(kind, "once")

    def held(self) -> bool:
        """Tell whether the agent's status has it."""
        return [run for run in self.host.status()["runs"] if run["unit"] == UNIT] != []

    def has(self) -> bool:
        """Tell whether systemd keeps its credential."""
        return self.host.booted.run("test", "-s", CREDENTIAL, check=False).returncode == 0

    def cleared(self) -> list[str]:
        """Return why what it was given ended, by the log."""
        return [row["reason"] for row in self.rows("cleared")[self.before :]]


@pytest.fixture
def once(host: AgentUnit) -> Iterator[Once]:
    """Return the unit, active without a process."""
    host.systemctl("start", AGENT)
    host.rotate("once", 1)
    host.booted.path(f"{ETC}/scopes.d/once.toml").write_text(
        '[scopes.once]\nproject = "prism"\nenvironment = "lan"\npurposes = ["service"]\ngrace = "1s"\n'
        f"callers = [{{ kind = 'service', unit = '{UNIT}' }}]\n"
        '[scopes.once.env]\nKEY = "vault://secret/once#key"\n'
        '[[scopes.once.credentials]]\nname = "key"\nvariable = "KEY"\n'
    )
    wait_until(lambda: "once" in [scope["name"] for scope in host.status()["scopes"]] and host.status()["ready"])
    host.unit(UNIT, TEXT)
    yield Once(host)
    host.systemctl("stop", UNIT)


def test_it_holds_what_it_has_as_long_as_systemd_keeps_that(once, suite):
    """Active without a process it is in the status as long as its credential is there; then its end is on the log, once."""
    assert (once.host.pid(UNIT), once.host.booted.show(UNIT, "SubState")) == ("0", "exited")
    if suite == SUITE:
        assert (once.has(), once.held(), once.cleared()) == (True, True, [])
        once.host.systemctl("restart", AGENT)
        assert (once.has(), once.held(), once.cleared()) == (True, True, []), "the next agent knows it too"
        once.host.systemctl("stop", UNIT)
    wait_until(lambda: once.cleared() == ["exited"])
    assert (once.has(), once.held()) == (False, False)
    once.host.systemctl("stop", UNIT)
    assert once.cleared() == ["exited"]


def test_a_revocation_says_that_it_is_to_be_stopped(once, suite):
    """What is kept without a process, and we may not stop, is told as failed, with what to do; stopped, nothing is left."""
    if suite != SUITE:
        wait_until(lambda: not once.held())
    number = order(once.host.central, "revocations", scope="once")
    (told,) = wait_until(lambda: [each for each in evidence(once.host.central, number)["hosts"] if each["done_at"]])
    kept = int(suite == SUITE)
    assert (told["failed"], told["left"], once.has(), once.held()) == (kept, kept, kept, kept)
    assert ("as long as it is active; stop it" in once.host.booted.journal(AGENT)) == bool(kept)

    once.host.systemctl("stop", UNIT)
    wait_until(lambda: [each["left"] for each in evidence(once.host.central, number)["hosts"]] == [0])
    assert (once.has(), once.held()) == (False, False)


def test_who_may_stops_it(once, suite):
    """By a helper that may tell units a revocation stops what is kept without a process: nothing failed, and nothing is left."""
    once.host.unit(UNITS, (HERE / "systemd" / UNITS).read_text())
    once.host.systemctl("stop", HELPER)
    number = order(once.host.central, "revocations", scope="once")
    (told,) = wait_until(lambda: [each for each in evidence(once.host.central, number)["hosts"] if each["done_at"]])
    assert (told["failed"], told["left"], once.has(), once.held()) == (0, 0, False, False)
    assert suite != SUITE or once.host.booted.show(UNIT, "ActiveState") == "inactive"
    once.host.without(UNITS)
    once.host.systemctl("stop", HELPER)
