"""Sets up the stack: ``files`` before anything runs, ``vault`` whenever that has started, ``rotate`` for a new value.

For trying it out. In production the unseal key is not beside the server, and an operator does by hand what stands here: see
docs/operate.md. What is there already is left as it is.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import json
import os
import secrets
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VAULT: Final = "https://vault:8200"
PLACE: Final = "secret/data/prism/lan/web"
OWNERS: Final[dict[str, int]] = {"vault": 10312, "raft": 10312, "central": 10310, "agent": 10311, "keys": 0}
SERVERS: Final = {"vault": ["vault"], "central": ["central-1", "central-2"]}
SECONDS: Final = 60.0
POLICY: Final = """\
path "secret/data/prism/*"      { capabilities = ["read"] }
path "secret/metadata/prism/*"  { capabilities = ["read"] }
path "sys/internal/ui/mounts/*" { capabilities = ["read"] }
path "auth/token/lookup-self"   { capabilities = ["read"] }
path "auth/token/renew-self"    { capabilities = ["update"] }
path "auth/token/revoke-self"   { capabilities = ["update"] }
"""
CENTRAL: Final = """\
listen = "0.0.0.0:8310"
database = "postgresql://prism_vault_central@/audit?host=/run/postgresql"
database_owner = "postgresql://postgres@/audit?host=/run/postgresql"
tls_cert = "/setup/central/tls.crt"
tls_key = "/setup/central/tls.key"
[log]
key_file = "/setup/central/log.key"
[[tokens]]
name = "server1-web"
sha256 = "{digest}"
role = "agent"
host = "server1-web"
projects = ["prism"]
[[policies]]
project = "prism"
environment = "lan"
scopes = ["web"]
hosts = ["server1-web"]
kinds = ["service"]
purposes = ["service"]
"""
AGENT: Final = """\
[agent]
host = "server1-web"
[vault]
address = "https://vault:8200"
ca_file = "/setup/agent/ca.crt"
poll = "5s"
[vault.auth]
method = "approle"
role_id_file = "/setup/agent/role-id"
secret_id_file = "/setup/agent/secret-id"
[central]
url = "https://central-1:8310"
replicas = ["https://central-2:8310"]
log_key = "{log_key}"
ca_file = "/setup/agent/ca.crt"
token_file = "/setup/agent/central-token"
[scopes.web]
project = "prism"
environment = "lan"
purposes = ["service"]
callers = [{{ kind = "service", uid = 10311 }}]
[scopes.web.env]
DATABASE_URL = "vault://secret/prism/lan/web#database_url"
[[scopes.web.files]]
path = "web.env"
format = "sh"
group = "10320"
mode = "0440"
"""


def put(part: str, name: str, content: str | bytes, mode: int = 0o400) -> Path:
    """Write a file that is a part's own to read, whole or not at all."""
    path = Path("/setup", part, name)
    new = path.with_name(f".{name}.new")
    new.unlink(missing_ok=True)
    new.touch(0o600)
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    new.chmod(mode)
    os.chown(new, OWNERS[part], OWNERS[part])
    new.rename(path)
    return path


def files(servers: Mapping[str, list[str]] = SERVERS, central: str = CENTRAL, agent: str = AGENT) -> None:
    """Make an authority and what it issues, central's key and token, and the configuration of both."""
    if Path("/setup/agent/agent.toml").exists():
        return
    for part, owner in OWNERS.items():
        os.chown(f"/setup/{part}", owner, owner)
        Path("/setup", part).chmod(0o700)
    key, authority = issue(None, "prism-vault stack")
    ca = pem(authority)
    for part, names in servers.items():
        its_key, certificate = issue((key, authority), *names)
        put(part, "tls.crt", pem(certificate) + ca, 0o444)
        put(part, "tls.key", pem(its_key))
    log_key = Path("/setup/central/log.key")
    log_key.unlink(missing_ok=True)
    keygen = ["/opt/prism-vault/bin/prism-vault", "central", "keygen", str(log_key), "--name", "stack/prism-vault"]
    printed = subprocess.run(keygen, check=True, capture_output=True, text=True).stdout.strip()
    os.chown(log_key, OWNERS["central"], OWNERS["central"])
    token = secrets.token_urlsafe(32)
    put("central", "central.toml", central.format(digest=hashlib.sha256(token.encode()).hexdigest()))
    put("keys", "ca.crt", ca)
    put("agent", "ca.crt", ca)
    put("agent", "central-token", token)
    put("agent", "agent.toml", agent.format(log_key=printed))


def issue(by: tuple[Any, x509.Certificate] | None, *names: str) -> tuple[Any, x509.Certificate]:
    """Return a new key and a certificate of it for these host names; the authority's own where ``by`` is None."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(by[1].subject if by else subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=825))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
    )
    if by:
        alternatives = [*map(x509.DNSName, names), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = made.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return key, made.sign(by[0] if by else key, hashes.SHA256())


def pem(what: Any) -> bytes:
    """Return a certificate or a private key as PEM."""
    if isinstance(what, x509.Certificate):
        return what.public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8
    return bytes(what.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what the server answers, as root where there is a root token.

    After its start, after it was unsealed, and after a mount it refuses for a moment, or is not there: it is asked for a minute.
    Nobody else than who waits for the answer of ``sys/init``, ten seconds or more, gets the keys.
    """
    context = ssl.create_default_context(cafile="/setup/keys/ca.crt")
    keys = Path("/setup/keys/vault.json")
    token = {"X-Vault-Token": json.loads(keys.read_text())["root_token"]} if keys.exists() else {}
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{VAULT}/v1/{path}", content, token, method=method)  # noqa: S310 - https, see above
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, context=context, timeout=SECONDS) as answer:  # noqa: S310 - as above
                text = answer.read()
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"setup: {method} {path} fails for {SECONDS:.0f} seconds: {error}; see the log of the service vault")
            time.sleep(0.2)
        else:
            return dict(json.loads(text)) if text else {}


def vault(policy: str = POLICY) -> None:
    """Initialise and unseal the server, and give the agent its role and a first secret."""
    state = ask("GET", "sys/seal-status")
    if not state["initialized"]:
        put("keys", "vault.json", json.dumps(ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})))
    if state["sealed"]:
        ask("PUT", "sys/unseal", {"key": json.loads(Path("/setup/keys/vault.json").read_text())["keys_base64"][0]})
    if Path("/setup/agent/secret-id").exists():
        return
    if "secret/" not in ask("GET", "sys/mounts")["data"]:
        ask("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
    if "approle/" not in ask("GET", "sys/auth")["data"]:
        ask("POST", "sys/auth/approle", {"type": "approle"})
    ask("PUT", "sys/policies/acl/prism-vault-agent", {"policy": policy})
    ask("POST", "auth/approle/role/server1-web", {"token_policies": ["prism-vault-agent"], "token_period": "1h"})
    rotate(secrets.token_urlsafe(24))
    put("agent", "role-id", ask("GET", "auth/approle/role/server1-web/role-id")["data"]["role_id"])
    put("agent", "secret-id", ask("POST", "auth/approle/role/server1-web/secret-id", {})["data"]["secret_id"])


def rotate(value: str) -> None:
    """Make a value the newest version of the demo's secret."""
    ask("POST", PLACE, {"data": {"database_url": value}})


if __name__ == "__main__":
    if sys.argv[1] == "rotate":
        rotate(sys.stdin.read())
    else:
        steps: Mapping[str, Callable[[], None]] = {"files": files, "vault": vault}
        steps[sys.argv[1]]()
