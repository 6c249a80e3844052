"""Central's configuration: what is wrong is refused at start, by file and key, and nothing of it is repeated."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from prism_vault_agent.central.access.policy import Rule
from prism_vault_agent.central.config import load
from prism_vault_agent.errors import ConfigError
from tests.support.central import CentralProcess

SHA = hashlib.sha256(b"token").hexdigest()
GOOD = f"""
listen = "127.0.0.1:0"
database = "/var/lib/prism-vault/audit.db"
reservation_ttl = "90s"
[issuer]
url = "http://127.0.0.1:8200/v1/identity/oidc"
audience = "client"
[[agents]]
subject = "entity-1"
host = "server1"
projects = ["prism"]
[[tokens]]
name = "ops"
sha256 = "{SHA}"
role = "operator"
host = ""
projects = ["*"]
[[policies]]
project = "prism"
environment = "lan"
scopes = ["web"]
hosts = ["server1"]
kinds = ["service"]
purposes = ["service"]
"""


def written(tmp_path, text: str, mode: int = 0o600):
    """Return a configuration file with this text."""
    path = tmp_path / "central.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_documented_configuration_is_read(tmp_path):
    """Every section of the reference is read into its place."""
    config = load(written(tmp_path, GOOD))

    assert config.address == ("127.0.0.1", 0)
    assert config.reservation_ttl == 90.0
    assert config.agents[0].host == "server1"
    assert config.tokens[0].sha256 == SHA
    assert config.policies[0].rule() == Rule(
        "prism", "lan", frozenset({"web"}), frozenset({"server1"}), frozenset({"service"}), frozenset({"service"})
    )


BAD = {
    "not toml": ("listen = ", "not TOML"),
    "unknown key": (GOOD.replace("[issuer]", 'colour = "red"\n[issuer]'), "colour"),
    "unknown key inside": (GOOD.replace('audience = "client"', 'audience = "client"\nsecret = "hunter2"'), "issuer.secret"),
    "no database": (GOOD.replace('database = "/var/lib/prism-vault/audit.db"', ""), "database"),
    "relative database": (GOOD.replace("/var/lib", "var/lib"), "absolute"),
    "wrong type": (GOOD.replace('"90s"', "90"), "reservation_ttl"),
    "no unit": (GOOD.replace('"90s"', '"90"'), "reservation_ttl"),
    "zero": (GOOD.replace('"90s"', '"0s"'), "reservation_ttl"),
    "plain http off loopback": (GOOD.replace("127.0.0.1:0", "0.0.0.0:8310"), "loopback"),
    "plain http on a name": (GOOD.replace("127.0.0.1:0", "server1.lan:8310"), "loopback"),
    "no port": (GOOD.replace("127.0.0.1:0", "127.0.0.1"), "host:port"),
    "a port too high": (GOOD.replace("127.0.0.1:0", "127.0.0.1:70000"), "host:port"),
    "certificate without key": (GOOD.replace("[issuer]", 'tls_cert = "/c"\n[issuer]'), "go together"),
    "a hash that is none": (GOOD.replace(SHA, "hunter2"), "sha256"),
    "the same token twice": (GOOD + f'[[tokens]]\nname="b"\nsha256="{SHA}"\nrole="operator"\nprojects=["*"]\n', "twice"),
    "the same subject twice": (GOOD + '[[agents]]\nsubject="entity-1"\nhost="b"\nprojects=["*"]\n', "twice"),
    "operator with a host": (GOOD.replace('host = ""', 'host = "server1"'), "operator has none"),
    "agent without a host": (GOOD.replace('"operator"', '"agent"'), "needs a host"),
    "host called central": (GOOD.replace('"server1"\nprojects', '"central"\nprojects'), "central"),
    "another kind": (GOOD.replace('kinds = ["service"]', 'kinds = ["root"]'), "kinds"),
    "issuer with a slash behind": (GOOD.replace("identity/oidc", "identity/oidc/"), "issuer.url"),
    "an agent known by nothing": (GOOD.replace('subject = "entity-1"\n', ""), "either subject or certificate"),
    "an agent known by both": (GOOD.replace('"entity-1"\n', '"entity-1"\ncertificate = "a"\n'), "either subject or certificate"),
    "certificate without an authority": (GOOD + '[[agents]]\ncertificate="a"\nhost="b"\nprojects=["*"]\n', "[mtls] ca_file"),
    "authority without tls": (GOOD + '[mtls]\nca_file = "/ca.pem"\n', "needs tls_cert"),
    "the same certificate twice": (
        GOOD.replace("[issuer]", 'tls_cert = "/c"\ntls_key = "/k"\n[mtls]\nca_file = "/ca.pem"\n[issuer]')
        + '[[agents]]\ncertificate="a"\nhost="b"\nprojects=["*"]\n[[operators]]\ncertificate="a"\nname="b"\nprojects=["*"]\n',
        "twice",
    ),
    "agents without issuer": (
        GOOD.replace('[issuer]\nurl = "http://127.0.0.1:8200/v1/identity/oidc"\naudience = "client"\n', ""),
        "issuer",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_configuration_is_refused(tmp_path, name):
    """The error names the file and the key, and repeats no value."""
    text, told = BAD[name]

    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text))

    assert told in caught.value.line()
    assert "central.toml" in caught.value.line()
    assert "hunter2" not in caught.value.line()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_a_file_that_others_can_write_is_refused(tmp_path, mode):
    """A group- or world-writable file decides nothing, and the error tells the chmod."""
    with pytest.raises(ConfigError, match="mode") as caught:
        load(written(tmp_path, GOOD, mode))

    assert "chmod" in caught.value.mend


@pytest.mark.root
def test_a_file_of_someone_else_is_refused(tmp_path):
    """A file that neither we nor root own decides nothing."""
    path = written(tmp_path, GOOD)
    os.chown(path, 65534, 65534)

    with pytest.raises(ConfigError, match="65534"):
        load(path)


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run central's process until it ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "prism_vault_agent.central.serve", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_database_that_is_not_migrated_is_not_served(tmp_path):
    """Serving an empty database ends with 78 and the command that makes it."""
    central = CentralProcess(tmp_path)
    central.write_config()

    ended = serve("--config", str(central.config_file))

    assert ended.returncode == 78
    assert f"prism-vault central migrate --config {central.config_file}" in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o777])
def test_a_directory_that_others_can_enter_is_refused(tmp_path, mode):
    """A database directory wider than 0700 is refused with 78, before anything is made in it."""
    central = CentralProcess(tmp_path)
    central.write_config()
    central.database.parent.mkdir()
    central.database.parent.chmod(mode)

    ended = serve("--migrate", "--config", str(central.config_file))

    assert (ended.returncode, list(central.database.parent.iterdir())) == (78, [])
    assert "chmod 0700" in ended.stderr


def test_a_database_that_others_can_read_is_refused(tmp_path):
    """A database file wider than 0600 is refused with 78."""
    central = CentralProcess(tmp_path)
    central.start().stop()
    central.database.chmod(0o640)

    ended = serve("--config", str(central.config_file))

    assert ended.returncode == 78
    assert "chmod 0600" in ended.stderr


def test_an_address_that_is_taken_is_told(tmp_path):
    """Where another process listens, central ends with 73 and says where."""
    with CentralProcess(tmp_path) as central:
        central.write_config()
        ended = serve("--config", str(central.config_file))

    assert ended.returncode == 73
    assert "cannot listen" in ended.stderr
