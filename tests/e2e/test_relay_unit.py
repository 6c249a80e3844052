"""The agent under its units on a booted systemd has no network: all that it asks goes by the relays of its configuration."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.agent_unit import AGENT, ETC, RENDER, WEB
from tests.support.booted import INSTALLED
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agent_unit import AgentUnit

RELAY = "prism-vault-relay@"
DIRECTORY = "/run/prism-vault/relay"
ASK = f"""
from prism_vault_agent.cli.reach import get
from prism_vault_agent.config.settings import TlsFiles
print(get("http://[::1]:8099", "/", TlsFiles(), 30, "{DIRECTORY}")[0])
"""


@pytest.fixture(scope="module")
def relayed(host: AgentUnit) -> AgentUnit:
    """Return the machine with an agent that is ready."""
    host.systemctl("start", AGENT)
    wait_until(lambda: host.status()["ready"])
    return host


@pytest.fixture
def networked(relayed: AgentUnit) -> Iterator[AgentUnit]:
    """Return the machine with an agent that was given the network; afterwards all is as it was."""
    told = relayed.command("install", "systemd", "--network").stdout
    assert told.endswith(f"next: systemctl restart {AGENT}\n"), told
    relayed.systemctl("restart", AGENT)
    wait_until(lambda: relayed.status()["ready"])
    yield relayed
    relayed.command("install", "systemd")
    relayed.systemctl("restart", AGENT)
    wait_until(lambda: relayed.status()["ready"])


def names(host: AgentUnit) -> list[str]:
    """Return the names of the relays to both servers."""
    return [urlsplit(url).netloc for url in (host.openbao.address, host.central.url)]


def exposed(host: AgentUnit, unit: str) -> float:
    """Return what systemd says of the exposure of a running unit."""
    told = host.booted.run("systemd-analyze", "security", "--no-pager", unit).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found is not None, told
    return float(found[1])


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
    """What systemd says of the running units as they ship: at most 0.5 of 10 for the agent, 1.0 for its relays."""
    assert exposed(relayed, AGENT) <= 0.5
    assert [each for each in names(relayed) if exposed(relayed, f"{RELAY}{each}.service") > 1.0] == []


def test_without_its_relay_the_provider_is_away(relayed):
    """What root has not enabled is not reached, by nobody of the agent's; it, its log and ``doctor`` name the command."""
    name = names(relayed)[0]
    relayed.systemctl("stop", f"{RELAY}{name}.socket")
    relayed.systemctl("stop", f"{RELAY}{name}.service")
    relayed.systemctl("restart", AGENT)

    told = f"no relay listens at {DIRECTORY}/{name}: systemctl enable --now {RELAY}{name}.socket"
    wait_until(lambda: told in relayed.status()["vault"]["last_error"])
    assert told in relayed.booted.journal(AGENT)
    found = relayed.command("doctor", check=False)
    assert (found.returncode, f"  the provider answers (needed): {told}\n" in found.stdout) == (78, True), found
    relayed.booted.run(*told.partition(": ")[2].split())
    wait_until(lambda: relayed.status()["ready"], 60)
    lines = relayed.command("doctor", check=False).stdout.splitlines()
    assert [line.split()[0] for line in lines if "the provider answers" in line or "central answers" in line] == ["holds"] * 2


def test_a_server_may_be_an_ipv6_address(relayed):
    """A relay leads to a server that is named by such an address, without brackets, as its socket is."""
    relayed.booted.run("systemd-run", "--unit=six", "python3", "-m", "http.server", "--bind", "::1", "8099")
    relayed.booted.run("systemctl", "start", f"{RELAY}::1:8099.socket")
    ask = ("runuser", "-u", "prism-vault", "--", f"{INSTALLED}/bin/python", "-Ic", ASK)
    wait_until(lambda: relayed.booted.run(*ask, check=False).stdout == "200\n")
    relayed.booted.run("systemctl", "stop", "six", f"{RELAY}::1:8099.socket", f"{RELAY}::1:8099.service")


def test_a_changed_configuration_has_its_relays(relayed):
    """Installing again enables the relay to a server that is new in the configuration, and disables one that is gone.

    The name is resolved by the relay, as the host does it.
    """
    relayed.booted.path("/etc/hosts").write_text("127.0.0.1 localhost\n")
    config = relayed.booted.path(f"{ETC}/agent.toml")
    before = config.read_text()
    vault, central = names(relayed)
    config.write_text(before.replace("127.0.0.1:" + central.partition(":")[2], "localhost:" + central.partition(":")[2]))
    told = relayed.command("install", "systemd").stdout
    other = central.replace("127.0.0.1", "localhost")
    assert [line for line in told.splitlines() if RELAY in line] == [
        f"disabled {RELAY}{central}.socket",
        f"enabled {RELAY}{other}.socket",
    ]
    relayed.systemctl("restart", AGENT)
    wait_until(lambda: relayed.status()["ready"])
    assert relayed.active(f"{RELAY}{vault}.socket")
    config.write_text(before)
    relayed.command("install", "systemd")
    relayed.systemctl("restart", AGENT)
    wait_until(lambda: relayed.status()["ready"])


def test_an_agent_with_the_network_needs_no_relay(networked):
    """With ``--network`` no relay is left, the agent is ready, and its unit is exposed as the documents say: 1.3."""
    assert exposed(networked, AGENT) == 1.3
    assert not [each for each in names(networked) if networked.active(f"{RELAY}{each}.socket")]
    assert networked.status()["relay"] == ""
