"""The agent without a network under its units on a booted systemd: all that it asks goes by the relays that root has enabled."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.agent_unit import AGENT, ETC, RENDER, WEB
from tests.support.booted import HERE
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agent_unit import AgentUnit

pytestmark = [
    pytest.mark.root,
    pytest.mark.namespaces,
    pytest.mark.tool("systemd-nspawn"),
    pytest.mark.tool("debootstrap"),
    pytest.mark.timeout(600),
]

RELAY = "prism-vault-relay@"
DROP_IN = f"{AGENT}.d/relay.conf"


@pytest.fixture(scope="module")
def relayed(host: AgentUnit) -> Iterator[AgentUnit]:
    """Return the machine with the drop-in in place and both relays enabled; afterwards all is as it was."""
    for name in (f"{RELAY}.service", f"{RELAY}.socket", DROP_IN):
        host.unit(name, (HERE / "systemd" / name).read_text())
    config = host.booted.path(f"{ETC}/agent.toml")
    before = config.read_text()
    config.write_text(before.replace("[agent]\n", '[agent]\nrelay = "/run/prism-vault/relay"\n'))
    sockets = [f"{RELAY}{urlsplit(url).netloc}.socket" for url in (host.openbao.address, host.central.url)]
    host.booted.run("systemctl", "enable", "--now", *sockets)
    host.systemctl("restart", AGENT)
    wait_until(lambda: host.status()["ready"])
    yield host
    config.write_text(before)
    host.booted.run("systemctl", "disable", "--now", *sockets)
    host.without(DROP_IN)
    host.systemctl("restart", AGENT)
    wait_until(lambda: host.status()["ready"])


def test_a_unit_starts_with_its_secret(relayed):
    """An agent with a loopback that is down, and nothing else, renders, records, and hears of central's signals."""
    relayed.rotate("web", 1)
    relayed.systemctl("restart", RENDER)
    relayed.systemctl("restart", WEB)

    assert relayed.given() == relayed.value("web", 1)
    wait_until(lambda: relayed.status()["signals"]["connected"])
    inside = ["nsenter", "--target", relayed.pid(), "--net", "--"]
    assert relayed.booted.run(*inside, "cat", "/proc/net/route").stdout.splitlines()[1:] == [], "there is no route"
    devices = relayed.booted.run(*inside, "cat", "/proc/net/dev").stdout.splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices if not line.strip().startswith(("tunl", "sit", "ip"))] == ["lo"]
    relayed.systemctl("stop", RENDER)


def test_it_is_hardly_exposed(relayed):
    """What systemd says of the running units: 0.5 of 10 at most for the agent, 1.0 for the relay."""
    relay = f"{RELAY}{urlsplit(relayed.openbao.address).netloc}.service"
    for unit, most in ((AGENT, 5), (relay, 10)):
        assert relayed.booted.run("systemd-analyze", "security", "--no-pager", f"--threshold={most}", unit).returncode == 0


def test_without_its_relay_the_provider_is_away(relayed):
    """What root has not enabled is not reached, by nobody of the agent's, and the line names the unit."""
    name = urlsplit(relayed.openbao.address).netloc
    relayed.systemctl("stop", f"{RELAY}{name}.socket")
    relayed.systemctl("stop", f"{RELAY}{name}.service")
    relayed.systemctl("restart", AGENT)

    wait_until(lambda: f"enable {RELAY}{name}.socket" in relayed.status()["vault"]["last_error"])
    relayed.systemctl("start", f"{RELAY}{name}.socket")
    wait_until(lambda: relayed.status()["ready"], 60)
