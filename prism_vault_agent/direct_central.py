"""Central's audit API as ``exec --direct`` uses it: one event at a time, on the transport that blocks."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from prism_vault_agent.audit.answers import AWAY, BATCH, REFUSED, Answer, Check, results
from prism_vault_agent.audit.replicas import Replica, Replicas
from prism_vault_agent.errors import AuditUnavailable, IntegrityError
from prism_vault_agent.vault import credentials, login
from prism_vault_agent.vault.connection import Broken, Connection

if TYPE_CHECKING:
    from prism_vault_agent.config.settings import CentralSettings
    from prism_vault_agent.direct import Vault


@dataclass(slots=True)
class DirectCentral:
    """Central's audit API, one event at a time."""

    settings: CentralSettings
    vault: Vault
    replicas: Replicas = field(init=False)
    check: Check | None = None
    connections: dict[Replica, Connection] = field(default_factory=dict)
    _credential: str = ""

    def __post_init__(self) -> None:
        """Nothing is sent yet."""
        self.replicas = Replicas(self.settings)
        if self.settings.log_key:
            self._demand_receipts()

    def post(self, body: bytes, deadline: float) -> Answer:
        """Send one sealed event and return the answer to it; what is not an answer leaves it unknown.

        The next attempt is at another replica, where there is one and this one did not answer.
        """
        content = json.dumps({"events": [body.decode()]}, ensure_ascii=False).encode()
        replica = self.replicas.current
        head = (
            f"POST {replica.prefix}{BATCH} HTTP/1.1\r\nHost: {replica.authority}\r\nAuthorization: Bearer {self._bearer()}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        limit = min(deadline, time.monotonic() + self.settings.timeout)
        try:
            reply = self._connection(replica).exchange(head.encode("ascii") + content, "POST", limit)
        except Broken as broken:
            self.replicas.failed(replica)
            raise AuditUnavailable(broken.error.message) from None
        if reply.status == AWAY:
            self.replicas.failed(replica)
        return results(reply.status, reply.body, [body], self.check)[0]

    def _demand_receipts(self) -> None:
        """Believe central's signature only. Raises ``IntegrityError`` where this configuration's agent has refused the log."""
        from prism_vault_agent.audit.held import WitnessFiles  # noqa: PLC0415 - 5 ms, for those who set the key
        from prism_vault_agent.audit.receipts import promise  # noqa: PLC0415 - as above
        from prism_vault_agent.proof.keys import VerifyingKey  # noqa: PLC0415 - as above

        key = VerifyingKey.parse(self.settings.log_key)
        if found := WitnessFiles(self.vault.settings.agent.state, key.name).accused():
            raise IntegrityError(found, mend=REFUSED)
        self.check = partial(promise, key)

    def _connection(self, replica: Replica) -> Connection:
        if replica not in self.connections:
            self.connections[replica] = Connection(replica.host, replica.port, replica.context, told="central")
        return self.connections[replica]

    def _bearer(self) -> str:
        """Return the credential for central: an identity token of our login, or the service token's file."""
        if not self._credential and self.settings.identity_role:
            minted = login.identity_token(
                self.vault.transport, self.vault.token, self.settings.identity_role, self.vault.deadline
            )
            self._credential = minted.value
        elif not self._credential:
            self._credential = credentials.read(self.settings.token_file)
        return self._credential
