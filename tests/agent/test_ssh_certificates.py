"""SSH certificates, end to end with a real engine: a key for each release, made here, and let in by OpenSSH's server."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.asking import pid_of
from tests.support.agent import POLICY
from tests.support.files import Filed, filed
from tests.support.leased import LEASES
from tests.support.memory import copies
from tests.support.sshd import SshServer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.tool("ssh-keygen"), pytest.mark.tool("sshd")]

PARTS = ("private_key", "public_key", "signed_key", "serial_number")
ROLE = {
    "key_type": "ca",
    "allow_user_certificates": True,
    "allow_host_certificates": True,
    "allowed_users": "deploy,ops",
    "allowed_domains": "*",
    "allow_bare_domains": True,
    "allowed_extensions": "permit-pty,permit-port-forwarding",
    "allowed_critical_options": "force-command",
    "default_extensions": {"permit-pty": ""},
    "ttl": "1h",
    "max_ttl": "48h",
}


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack with an SSH engine; each test has a scope of its own in it."""
    with filed() as running:
        openbao = running.stack.openbao
        for mount, key in (("ssh", "ecdsa-sha2-nistp256"), ("other", "ed25519")):
            openbao.must("POST", f"sys/mounts/{mount}", {"type": "ssh"})
            openbao.must("POST", f"{mount}/config/ca", {"generate_signing_key": True, "key_type": key})
        openbao.must("POST", "ssh/roles/web", ROLE)
        openbao.policy("prism-vault", POLICY + LEASES + 'path "ssh/sign/*" { capabilities = ["update"] }\n')
        yield running


def authority(made: Filed, mount: str = "ssh") -> str:
    """Return the public key of an engine."""
    return str(made.stack.openbao.must("GET", f"{mount}/config/ca")["data"]["public_key"]).strip()


def scope(made: Filed, name: str, entry: dict[str, Any] | None = None, **more: Any) -> str:
    """Make a scope with a certificate, each part in a file of its own."""
    env = {part.upper(): f"vault://ssh/sign/web#{part}" for part in PARTS}
    files = [{"path": "ssh", "format": "dir"}]
    table = {"ssh/sign/web": {"principals": ["deploy"], **(entry or {})}}
    made.stack.agent.scope(name, env, **{"files": files, "ssh": table, **more})
    made.reload()
    wait_until(lambda: name in [each["name"] for each in made.stack.agent.status()["scopes"]])
    return name


def part(made: Filed, name: str, which: str) -> Path:
    """Return the file of a part."""
    return made.top / name / "ssh" / which.upper()


def told(path: Path) -> dict[str, list[str]]:
    """Return what ``ssh-keygen -L`` tells of a certificate, by its headings."""
    lines = subprocess.run(["ssh-keygen", "-L", "-f", path], check=True, capture_output=True, text=True).stdout.splitlines()
    found: dict[str, list[str]] = {}
    for line in lines[1:]:
        heading, _, rest = line.strip().partition(": ")
        if line.startswith(" " * 16):
            found[list(found)[-1]].append(line.strip())
        else:
            found[heading.rstrip(":")] = [rest] if rest else []
    return found


def pair(made: Filed, name: str) -> tuple[Path, Path]:
    """Return the files with the key and the certificate."""
    return part(made, name, "private_key"), part(made, name, "signed_key")


def test_openssh_lets_key_and_certificate_in(made, tmp_path):
    """The key opens what the certificate names and nothing else, by the authority of the engine, for a day by default."""
    name = scope(made, "whole", {"ca": [authority(made, "other"), authority(made)]})
    made.render(name)
    assert part(made, name, "private_key").stat().st_mode & 0o777 == 0o400
    audit_id = made.told(name)["id"]
    with SshServer(tmp_path / "deploy", authority(made)) as server:
        assert server.lets_in(*pair(made, name)), server.log
        assert audit_id.replace("_", "-") in server.log  # so the server's log names the release
    with SshServer(tmp_path / "ops", authority(made), "ops") as server:
        assert not server.lets_in(*pair(made, name))
        assert "does not contain an authorized principal" in server.log
    with SshServer(tmp_path / "other", authority(made, "other")) as server:
        assert not server.lets_in(*pair(made, name))
    found = told(part(made, name, "signed_key"))
    assert (found["Principals"], found["Extensions"]) == (["deploy"], ["permit-pty"])
    (lease,) = made.rows(audit_id)[1]["leases"]
    assert (lease["path"], lease["lease_id"]) == ("ssh/sign/web", "") and 86_000 < lease["seconds"] <= 86_400


def test_principals_options_and_extensions_are_the_scopes(made, tmp_path):
    """What the scope says is in the certificate: a host's name, by which clients know it, a forced command, extensions."""
    name = scope(
        made, "options", {"extensions": {"permit-port-forwarding": ""}, "critical_options": {"force-command": "/bin/id"}}
    )
    made.render(name)
    found = told(part(made, name, "signed_key"))
    assert (found["Extensions"], found["Critical Options"]) == (["permit-port-forwarding"], ["force-command /bin/id"])
    host = scope(made, "host", {"principals": ["web.lan", "www.lan"], "cert_type": "host", "extensions": {}})
    made.render(host)
    found = told(part(made, host, "signed_key"))
    assert "host certificate" in found["Type"][0] and found["Principals"] == ["web.lan", "www.lan"]
    user = scope(made, "visitor")
    made.render(user)
    with SshServer(tmp_path / "web", authority(made), host=made.top / host / "ssh") as server:
        assert server.lets_in(*pair(made, user), host="www.lan"), server.log
        assert not server.lets_in(*pair(made, user), host="db.lan")


def test_a_new_pair_is_there_before_two_thirds_of_its_life(made, tmp_path):
    """Key and certificate are replaced together, between a half and two thirds of the life; after it the old ones are refused."""
    name = scope(made, "anew", ttl="9s", grace="1s")
    made.render(name)
    old = [Path(shutil.copy(each, tmp_path)) for each in pair(made, name)]
    first = [part(made, name, each).read_text() for each in PARTS]
    rendered_at = made.told(name)["rendered_at"]
    with SshServer(tmp_path / "deploy", authority(made)) as server:
        assert server.lets_in(*old), server.log
        wait_until(lambda: made.told(name)["generation"] > 1)
        assert 4 <= made.told(name)["rendered_at"] - rendered_at <= 8
        second = [part(made, name, each).read_text() for each in PARTS]
        assert not set(first) & set(second)
        ends = datetime.fromisoformat(told(old[1])["Valid"][0].split(" to ")[1]).timestamp()
        wait_until(lambda: time.time() > ends)
        assert not server.lets_in(*old)
        assert "Certificate invalid: expired" in server.log
        wait_until(lambda: server.lets_in(*pair(made, name)))  # again, where they were just replaced between the two
    made.command("clear", name)


def test_a_run_ends_with_its_certificate_and_nothing_stays(made):
    """A run gets a key of its own and is ended before its certificate; afterwards the agent holds and revokes nothing."""
    name = scope(made, "short", ttl="4s", grace="1s")
    child = made.stack.agent.spawn(
        "--timeout", "60s", "--scope", name, "--", "/bin/sh", "-c", 'test -n "$PRIVATE_KEY"; exec sleep 600'
    )
    try:
        (audit_id,) = wait_until(lambda: [run["id"] for run in made.stack.agent.status()["runs"] if run["pid"] == child.pid], 60)
        child.wait(60)
    finally:
        child.kill()
        child.communicate()
    assert made.ended(audit_id) == "lease_expired"
    wait_until(lambda: not children(made, audit_id))


def children(made: Filed, audit_id: str) -> list[str]:
    """Return the accessors of the child tokens of a release that the server has."""
    everyone = made.stack.openbao.must("LIST", "auth/token/accessors")["data"]["keys"]
    found = [made.stack.openbao.request("POST", "auth/token/lookup-accessor", {"accessor": each}) for each in everyone]
    metas = [answer["data"].get("meta") or {} for status, answer in found if status == 200]
    return [meta["audit_id"] for meta in metas if meta.get("audit_id") == audit_id]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"principals": ["root"]}, "check principals, extensions and ttl"),
        ({"extensions": {"permit-agent-forwarding": ""}}, "check principals, extensions and ttl"),
        ({"ttl": "100h"}, "check principals, extensions and ttl"),
    ],
)
def test_what_the_role_does_not_allow_is_told(made, entry, told):
    """A principal, an extension or a life that the role refuses ends the render with what to look at."""
    line = made.refused(78, "render", scope(made, f"refused{len(str(entry))}", entry))
    assert "the engine refuses vault://ssh/sign/web" in line and told in line


def test_another_authority_is_not_believed(made):
    """Where the scope names who signs, a certificate of somebody else is not released."""
    name = scope(made, "foreign", {"ca": [authority(made, "other")]})
    assert "a certificate of another authority" in made.refused(78, "render", name)
    assert not (made.top / name).exists()


@pytest.mark.root  # the agent is not dumpable: its memory is root's to see
def test_g4_the_key_is_nowhere_but_in_its_file(made):
    """The private key is neither in the agent's memory, log, state or status, nor in a row, nor was it sent to the provider."""
    name = scope(made, "nowhere")
    made.render(name)
    agent = made.stack.agent
    key = "".join(part(made, name, "private_key").read_text().splitlines()[3:5])
    places = [agent.log, json.dumps(agent.status()), *(event["body"] for event in made.stack.central.events())]
    places += [path.read_text(errors="replace") for path in (agent.directory / "state").rglob("*") if path.is_file()]
    assert [place for place in places if key in place] == []
    assert copies(pid_of(agent), key) == 0
    assert copies(made.stack.openbao.pid, key) == 0
