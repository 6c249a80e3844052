"""Which relays an agent takes, by its servers' addresses; what is kept of those that were enabled."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from prism_vault_agent.cli.install import relays
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.install import manifest
from prism_vault_agent.install.manifest import Manifest
from prism_vault_agent.install.relays import of, wanted
from prism_vault_agent.install.system import System
from prism_vault_agent.relay import DIRECTORY, lacking, name_of, socket_of, unit_of

CONFIGURED = """
[vault]
[vault.auth]
method = "approle"
role_id_file = "/etc/prism-vault/role-id"
secret_id_file = "/etc/prism-vault/secret-id"
[central]
url = "https://central.lan"
identity_role = "central"
"""


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://vault.lan:8200", "vault.lan:8200"),
        ("https://Vault.LAN", "vault.lan:443"),
        ("http://localhost", "localhost:80"),
        ("https://central.lan/behind/a/proxy", "central.lan:443"),
        ("https://[2001:db8::1]:8200", "2001:db8::1:8200"),
        ("https://192.0.2.1", "192.0.2.1:443"),
    ],
)
def test_a_relay_has_its_servers_address(url: str, name: str):
    """Its name is the host and the port, that of the scheme where there is none, as the agent looks for its socket."""
    assert name_of(url) == name
    host, _, port = name.rpartition(":")
    assert socket_of(DIRECTORY, host, int(port)) == f"{DIRECTORY}/{name}"


def test_each_server_has_one():
    """Servers of one address have one relay; an agent that looks for relays elsewhere takes none of these."""
    urls = ("https://vault.lan:8200", "https://central.lan", "https://central.lan:443")
    assert wanted(None, urls) == wanted(DIRECTORY, urls) == ["vault.lan:8200", "central.lan:443"]
    assert wanted("/run/own", urls) == []


def test_an_address_in_the_environment_of_the_unit_is_one(tmp_path: Path):
    """Where the file has no address of the provider, it is what a drop-in or its file gives the unit; else that is told."""
    system = System(str(tmp_path))
    config = tmp_path / "etc/prism-vault/agent.toml"
    dropin = tmp_path / "etc/systemd/system/prism-vault-agent.service.d/vault.conf"
    for path in (config, dropin):
        path.parent.mkdir(parents=True)
    config.write_text(CONFIGURED)
    with pytest.raises(ConfigError, match=r"vault\.address"):
        relays(system)
    dropin.write_text('[Service]\n# VAULT_ADDR\nEnvironment=HOME=/ "VAULT_ADDR=https://vault.lan:8200"\n')
    assert relays(system) == ["vault.lan:8200", "central.lan:443"]
    dropin.write_text(dropin.read_text() + "EnvironmentFile=-/etc/prism-vault/vault.env\n")
    assert relays(system) == ["vault.lan:8200", "central.lan:443"]
    (config.parent / "vault.env").write_text("; of the host\nVAULT_ADDR='https://other.lan:8200'\n\n")
    assert relays(system) == ["other.lan:8200", "central.lan:443"], "as systemd has it, what a file says counts"
    dropin.write_text("[Service]\nEnvironment=VAULT_ADDR=https://vault.lan:8200\nEnvironment=\n")
    with pytest.raises(ConfigError, match=r"vault\.address"):
        relays(system)
    dropin.write_text("[Service]\nEnvironment='VAULT_ADDR=x\n")
    with pytest.raises(ConfigError, match=r"vault\.conf: a quote is not closed"):
        relays(system)


def test_an_address_that_no_socket_can_have_is_refused():
    """A socket's path has at most 107 bytes: a longer address is told before anything is enabled."""
    longest = "v" * (107 - len(DIRECTORY) - len("/:443"))
    assert wanted(None, [f"https://{longest}"]) == [f"{longest}:443"]
    with pytest.raises(ConfigError, match="too long for the name of a socket"):
        wanted(None, [f"https://{longest}v"])


def test_the_units_of_a_relay_are_known():
    """Its socket and its service are its own, and those of another relay are not."""
    names = ["vault.lan:8200"]
    assert [of(unit_of("vault.lan:8200", kind), names) for kind in ("socket", "service")] == [True, True]
    assert [of(unit, names) for unit in (unit_of("vault.lan:82"), "prism-vault-relay@.socket")] == [False, False]


def test_what_lacks_is_told_with_its_command(tmp_path: Path):
    """A server without a socket, or with something else in its place, is told by the command that makes one; others are not."""
    (tmp_path / "file.lan:443").touch()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "vault.lan:8200"))
        told = list(
            lacking(str(tmp_path), ["https://vault.lan:8200", "https://file.lan", "https://no.lan", "https://no.lan:443"])
        )
    assert told == [
        f"no relay listens at {tmp_path}/{name}: systemctl enable --now prism-vault-relay@{name}.socket"
        for name in ("file.lan:443", "no.lan:443")
    ]
    assert list(lacking("", ["https://no.lan"])) == [], "an agent with a network needs none"


def test_what_was_enabled_is_kept(tmp_path: Path):
    """The manifest has the relays; one of an earlier version has none, and one with relays alone is no empty one."""
    manifest.write(str(tmp_path), Manifest(relays=["vault.lan:8200"]))
    assert manifest.read(str(tmp_path)).relays == ["vault.lan:8200"]
    file = tmp_path / manifest.DIRECTORY[1:] / "systemd.json"
    file.write_text(json.dumps({"files": {}, "directories": []}))
    assert manifest.read(str(tmp_path)) == Manifest()
