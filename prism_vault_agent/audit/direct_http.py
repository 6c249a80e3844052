"""One event at a time to central, for a render without an agent: blocking, on a lean connection, with fail-over and receipts."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING

from prism_vault_agent.audit.answers import AWAY, BATCH, LIMITED, REFUSED, Answer, Check, limited, results
from prism_vault_agent.audit.replicas import Replica, Replicas
from prism_vault_agent.errors import AuditUnavailable, IntegrityError
from prism_vault_agent.vault.connection import Broken, Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.config.settings import CentralSettings


class DirectHttp:
    """Central's audit API.

    ``bearer`` returns the token, or nothing where our certificate does without; it raises the error that keeps it from being had.
    """

    def __init__(self, settings: CentralSettings, state: str, bearer: Callable[[], str]) -> None:
        """Send nothing yet. Raises ``IntegrityError`` where the agent whose directory is ``state`` has refused the log."""
        self._seconds = settings.timeout
        self._bearer = bearer
        self._replicas = Replicas(settings)
        self._connections: dict[Replica, Connection] = {}
        self._check = _receipts(settings.log_keys, state) if settings.log_keys else None

    def post(self, body: bytes, deadline: float) -> Answer:
        """Send one sealed event and return the answer to it; what is not an answer leaves it unknown (``AuditUnavailable``).

        The next attempt is at another replica, where there is one and this one did not answer; at the same one after
        ``RateLimited``. ``deadline`` is CLOCK_MONOTONIC.
        """
        content = json.dumps({"events": [body.decode()]}, ensure_ascii=False).encode()
        replica = self._replicas.current
        bearer = self._bearer()
        authorization = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
        head = (
            f"POST {replica.prefix}{BATCH} HTTP/1.1\r\nHost: {replica.authority}\r\n{authorization}"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        limit = min(deadline, time.monotonic() + self._seconds)
        try:
            reply = self._connection(replica).exchange(head.encode("ascii") + content, "POST", limit)
        except Broken as broken:
            self._replicas.failed(replica)
            raise AuditUnavailable(broken.error.message) from None
        if reply.status == AWAY:
            self._replicas.failed(replica)
        if reply.status == LIMITED:
            raise limited(reply.headers)
        return results(reply.status, reply.body, [body], self._check, reply.headers.get("x-request-id", ""))[0]

    def _connection(self, replica: Replica) -> Connection:
        if replica not in self._connections:
            self._connections[replica] = Connection(replica.host, replica.port, replica.context, told="central")
        return self._connections[replica]


def _receipts(log_keys: tuple[str, ...], state: str) -> Check:
    """Return what looks at receipts. Raises ``IntegrityError`` where there is evidence against the log."""
    from prism_vault_agent.audit.held import WitnessFiles  # noqa: PLC0415 - 5 ms, for those who set the key
    from prism_vault_agent.audit.receipts import promise  # noqa: PLC0415 - as above
    from prism_vault_agent.proof.keys import VerifyingKey  # noqa: PLC0415 - as above

    keys = [VerifyingKey.parse(text) for text in log_keys]
    if found := WitnessFiles(state, keys[0].name).accused():
        raise IntegrityError(found, mend=REFUSED)
    return partial(promise, keys)
