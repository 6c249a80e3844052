"""SSH certificates, end to end with a real engine: a key for each release, made here, and believed by OpenSSH itself."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.asking import pid_of
from tests.support.agent import POLICY
from tests.support.files import Filed, filed
from tests.support.leased import LEASES
from tests.support.memory import copies
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.tool("ssh-keygen")

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
        for mount in ("ssh", "other"):
            openbao.must("POST", f"sys/mounts/{mount}", {"type": "ssh"})
            openbao.must("POST", f"{mount}/config/ca", {"generate_signing_key": True, "key_type": "ed25519"})
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


def lets_in(made: Filed, name: str, principal: str, tmp_path: Path, signer: str) -> bool:
    """Tell whether OpenSSH, which believes ``signer``, believes what the key signs with its certificate as ``principal``."""
    key, certificate = tmp_path / "key", tmp_path / "key-cert.pub"
    key.write_bytes(part(made, name, "private_key").read_bytes())
    key.chmod(0o600)
    certificate.write_bytes(part(made, name, "signed_key").read_bytes())
    allowed, message = tmp_path / "allowed", tmp_path / "message"
    allowed.write_text(f"{principal} cert-authority {signer}\n")
    message.write_text("let me in")
    (tmp_path / "message.sig").unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "test", "-f", certificate, message], check=True, capture_output=True)
    verify: list[str | Path] = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-n",
        "test",
        "-f",
        allowed,
        "-I",
        principal,
        "-s",
        f"{message}.sig",
    ]
    return subprocess.run(verify, input=message.read_bytes(), capture_output=True, check=False).returncode == 0


def test_openssh_believes_key_and_certificate(made, tmp_path):
    """The key opens what the certificate names and nothing else, by the authority of the engine, for a day by default."""
    name = scope(made, "whole", {"ca": [authority(made, "other"), authority(made)]})
    made.render(name)
    assert part(made, name, "private_key").stat().st_mode & 0o777 == 0o400
    assert lets_in(made, name, "deploy", tmp_path, authority(made))
    assert not lets_in(made, name, "ops", tmp_path, authority(made))
    assert not lets_in(made, name, "deploy", tmp_path, authority(made, "other"))
    found = told(part(made, name, "signed_key"))
    assert (found["Principals"], found["Extensions"]) == (["deploy"], ["permit-pty"])
    audit_id = made.told(name)["id"]
    assert audit_id.replace("_", "-") in found["Key ID"][0]  # so sshd's own log names the release
    (lease,) = made.rows(audit_id)[1]["leases"]
    assert (lease["path"], lease["lease_id"]) == ("ssh/sign/web", "") and 86_000 < lease["seconds"] <= 86_400


def test_principals_options_and_extensions_are_the_scopes(made):
    """What the scope says is in the certificate: a host's name, a forced command, no extension but the named."""
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


def test_a_new_pair_is_there_before_two_thirds_of_its_life(made):
    """Key and certificate are replaced together, between a half and two thirds of the life, as one generation."""
    name = scope(made, "anew", ttl="12s", grace="1s")
    made.render(name)
    first = [part(made, name, each).read_text() for each in PARTS]
    rendered_at = made.told(name)["rendered_at"]
    wait_until(lambda: made.told(name)["generation"] > 1)
    assert 6 <= made.told(name)["rendered_at"] - rendered_at <= 10
    second = [part(made, name, each).read_text() for each in PARTS]
    assert not set(first) & set(second)
    public = subprocess.run(
        ["ssh-keygen", "-y", "-f", part(made, name, "private_key")], check=True, capture_output=True, text=True
    )
    assert public.stdout.split()[1] == second[1].split()[1]
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
