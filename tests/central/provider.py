"""A host that has logged in at a real OpenBao, and mints identity tokens for central there."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import jwt

from tests.support.fault_proxy import FaultProxy
from tests.support.openbao import OpenBao

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AUDIENCE = "prism-vault-central"
STEADY = "steady"  # a role whose key is never rotated


class Login(NamedTuple):
    """A real OpenBao, the proxy through which central fetches its keys, and a host's token and entity there."""

    bao: OpenBao
    keys: FaultProxy
    token: str
    entity: str


@contextlib.contextmanager
def logged_in(directory: Path) -> Iterator[Login]:
    """Run an OpenBao whose issuer is the proxy, and log server1 in."""
    with OpenBao(directory) as bao, FaultProxy(bao.port) as keys:
        bao.must("POST", "identity/oidc/config", {"issuer": keys.address})
        bao.policy("mint", 'path "identity/oidc/token/*" { capabilities = ["read"] }')
        bao.identity_role(STEADY, audience=AUDIENCE)
        role_id, secret_id = bao.approle("server1", ["mint"])
        body = {"role_id": role_id.read_text(), "secret_id": secret_id.read_text()}
        login = bao.must("POST", "auth/approle/login", body, token="")["auth"]
        yield Login(bao, keys, login["client_token"], login["entity_id"])


@dataclass
class Provider:
    """A host's login, and a role of this test's own for its tokens; the key that signs them has the name of the role."""

    login: Login
    role: str = field(default_factory=lambda: f"role-{secrets.token_hex(3)}")

    def __post_init__(self) -> None:
        self.login.bao.identity_role(self.role, audience=AUDIENCE)

    @property
    def settings(self) -> dict[str, str]:
        """The issuer, as central is configured with it."""
        return {"url": f"{self.login.keys.address}/v1/identity/oidc", "audience": AUDIENCE}

    @property
    def asked(self) -> int:
        """How often the keys were asked for."""
        return self.login.keys.count(lambda seen: seen.path.endswith("/.well-known/keys"))

    def mint(self, role: str = "") -> str:
        """Return a new token of server1."""
        answer = self.login.bao.must("GET", f"identity/oidc/token/{role or self.role}", token=self.login.token)
        return str(answer["data"]["token"])

    def rotate(self, verification_ttl: str = "1h") -> str:
        """Rotate the key and return a token by the new one."""
        before = kid(self.mint())
        self.login.bao.must("POST", f"identity/oidc/key/{self.role}/rotate", {"verification_ttl": verification_ttl})
        token = self.mint()
        assert kid(token) != before
        return token

    def published(self) -> set[str]:
        """Return the ids of the keys that OpenBao publishes now."""
        return {str(key["kid"]) for key in self.login.bao.must("GET", "identity/oidc/.well-known/keys", token="")["keys"]}


def kid(token: str) -> str:
    """Return the id of the key that a token names."""
    return str(jwt.get_unverified_header(token)["kid"])
