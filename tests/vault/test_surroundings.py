"""Nothing is picked up from the surroundings: no token, no address, no proxy, no certificate of whoever starts us."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.fake_server import FakeServer, always, answer
from tests.support.openbao import OpenBao

BAIT = "hvs.BAIT-7c1f"
ADDRESSES = (
    "http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY VAULT_ADDR BAO_ADDR VAULT_AGENT_ADDR"
    " VAULT_PROXY_ADDR VAULT_HTTP_PROXY"
).split()
ACT = """
import sys, time
from prism_vault_agent.config.settings import AuthSettings, VaultSettings
from prism_vault_agent.errors import Denied
from prism_vault_agent.scope import Binding, SecretReference
from prism_vault_agent.vault import login, reading, session
from prism_vault_agent.vault.transport import Transport
address, role_id, secret_id = sys.argv[1:]
deadline = time.monotonic() + 10
auth = AuthSettings("approle", "approle", role_id_file=role_id, secret_id_file=secret_id)
bindings = [Binding("K", SecretReference.parse("vault://secret/bait#k"))]
transport = Transport(VaultSettings(address, auth))
try:
    reading.read(transport, "", bindings, deadline=deadline)
except Denied:
    print("denied without a token")
token = login.log_in(transport, auth, deadline)
print(reading.read(transport, token.value, bindings, deadline=deadline).values)
print(session.renew(transport, token.value, deadline) > 0)
print(session.lookup(transport, token.value, deadline).accessor == token.accessor)
session.revoke_self(transport, token.value, deadline)
"""


def test_tokens_addresses_and_proxies_of_the_surroundings_are_ignored(bao: OpenBao, tmp_path) -> None:
    """With bait in every variable and file that Vault clients know, each request goes where it should, with our token."""
    bao.kv_put("secret/bait", {"k": "v"})
    bao.policy("read-secret", 'path "secret/*" { capabilities = ["read"] }')
    role_id, secret_id = bao.approle("surroundings", ["read-secret"])
    (tmp_path / ".vault-token").write_text(bao.root_token)
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login x password {BAIT}\n")
    (tmp_path / ".netrc").chmod(0o600)
    with FakeServer(always(answer(b"{}"))) as trap:
        bait = dict.fromkeys(ADDRESSES, trap.address)
        bait |= {"VAULT_TOKEN": bao.root_token, "BAO_TOKEN": bao.root_token, "VAULT_NAMESPACE": "bait"}
        bait |= {"VAULT_CACERT": "/nonexistent", "VAULT_CLIENT_CERT": "/nonexistent", "VAULT_CLIENT_KEY": "/nonexistent"}
        ran = subprocess.run(
            [sys.executable, "-c", ACT, bao.address, str(role_id), str(secret_id)],
            env={**bait, "HOME": str(tmp_path), "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert trap.connections == 0
    assert ran.stdout.splitlines() == ["denied without a token", "{'K': 'v'}", "True", "True"], ran.stderr


@pytest.mark.parametrize("module", ["transport", "login", "reading"])
def test_direct_mode_imports_little(module: str) -> None:
    """What direct mode imports for the provider leaves out every large library."""
    code = f"import sys; import prism_vault_agent.vault.{module}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.getcwd())
    loaded = {name.split(".")[0] for name in ran.stdout.split()} | set(ran.stdout.split())
    assert not loaded & {"hvac", "requests", "urllib3", "asyncio", "pydantic", "logging", "http.client", "email", "structlog"}
