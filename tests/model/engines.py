"""Engines of the simulated provider: one that gives users of a database, one that issues certificates, and one that decrypts."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.vault.transport import Answer
from tests.model.kept import VALUE, Leased, Token, Version

if TYPE_CHECKING:
    import itertools
    from collections.abc import Callable, Mapping

    from tests.model.clock import Clock

LEASE_SECONDS: Final = 600
LEASE_LONGEST: Final = 3000


class Engines:
    """What they answer. Everything else of a provider is in ``provider.py``."""

    clock: Clock
    read: Callable[[str, int | None, str], None]
    engine_down: bool
    kv: dict[str, list[Version]]
    leases: dict[str, Leased]
    issued: dict[str, str]
    numbers: itertools.count[int]

    def creds(self, path: str, token: Token, _said: Mapping[str, Any]) -> Answer:
        """Give a user of a database, as long as it answers."""
        if self.engine_down:
            return Answer(400, {"errors": ["the database does not answer"]})
        lease = self._give(f"database/creds/{path}", token, LEASE_SECONDS, LEASE_LONGEST)
        plain = {"lease_id": lease.lease_id, "lease_duration": LEASE_SECONDS, "renewable": True}
        data = {"username": f"user-{lease.lease_id.rpartition('/')[2]}", "password": lease.value}
        return Answer(200, {**plain, "data": data})

    def issue(self, path: str, token: Token, said: Mapping[str, Any]) -> Answer:
        """Issue a certificate, whose parts are one value here."""
        seconds = int(str(said["ttl"]).removesuffix("s"))
        lease = self._give(f"pki/issue/{path}", token, seconds, seconds)
        parts = dict.fromkeys(("certificate", "private_key", "issuing_ca"), lease.value)
        data = {**parts, "ca_chain": [lease.value], "expiration": int(self.clock.wall) + seconds}
        return Answer(200, {"lease_id": lease.lease_id, "lease_duration": seconds, "renewable": False, "data": data})

    def _give(self, path: str, token: Token, seconds: int, longest: int) -> Leased:
        value, lease_id = self.mark(VALUE), f"{path}/{next(self.numbers)}"
        self.issued[lease_id] = value
        lease = Leased(lease_id, value, token, self.clock.boot + seconds, self.clock.boot + longest)
        self.leases[lease_id] = lease
        self.read(path, None, token.accessor)
        return lease

    def decrypt(self, path: str, token: Token, said: Mapping[str, Any]) -> Answer:
        """Decrypt whatever is asked for, as long as that version of the key may be used."""
        path = f"transit/decrypt/{path}"
        (version,) = self.kv[path]
        if not version.stands:
            told = {"error": "ciphertext or signature version is disallowed by policy (too old)"}
            return Answer(400, {"data": {"batch_results": [told for _ in said["batch_input"]]}})
        self.read(path, 1, token.accessor)
        plaintext = base64.b64encode(version.value.encode()).decode()
        return Answer(200, {"data": {"batch_results": [{"plaintext": plaintext} for _ in said["batch_input"]]}})

    def key(self, path: str, _token: Token, _said: Mapping[str, Any]) -> Answer:
        """Tell which versions of a key may be used."""
        (version,) = self.kv[f"transit/decrypt/{path}"]
        least = 1 if version.stands else 2
        return Answer(200, {"data": {"min_decryption_version": least, "latest_version": least, "soft_deleted": False}})

    def mark(self, kind: str) -> str:
        """Return what nobody was given before."""
        return f"{kind}{next(self.numbers):06}"
