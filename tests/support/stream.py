"""One who follows central's stream of signals, as any client of server-sent events would."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from prism_vault_agent.central.log.holding import Sender
    from tests.support.central import CentralProcess


@dataclass(frozen=True)
class Told:
    """One event of the stream."""

    id: int
    kind: str
    data: dict[str, Any]


class Following:
    """Follows in a thread of its own. ``events`` are those so far, ``position`` the last id, ``end`` how it ended."""

    def __init__(
        self,
        central: CentralProcess,
        token: str | None = None,
        *,
        query: str = "",
        last: int | None = None,
        sender: Sender | None = None,
    ) -> None:
        where = urlsplit(central.url)
        headers = {"Authorization": f"Bearer {central.operator_token if token is None else token}"}
        if sender is not None:
            headers["Prism-Vault-Installation"] = sender.installation
            query = f"?epoch={sender.epoch}"
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        self._connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        self._connection.request("GET", f"/v1/signals{query}", headers=headers)
        self.answer = self._connection.getresponse()
        self.events: list[Told] = []
        self.position: int | None = None
        self.comments = 0
        self.end = ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        if self.answer.status == 200:
            self._thread.start()
            wait_until(lambda: self.position is not None or self.end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Go; once more is nothing."""
        if self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(2)
        if self._thread.ident is not None:
            self._thread.join(10)
        self._connection.close()

    @property
    def ids(self) -> list[int]:
        """The ids of the events so far."""
        return [event.id for event in self.events]

    def wait_for(self, count: int) -> list[Told]:
        """Return the events, once there are at least ``count``."""
        wait_until(lambda: len(self.events) >= count, timeout=30)
        return list(self.events)

    def _read(self) -> None:
        fields: dict[str, str] = {}
        try:
            while line := self.answer.readline().decode():
                if line == "\n":
                    self._take(fields)
                    fields = {}
                elif line.startswith(":"):
                    self.comments += 1
                else:
                    name, _, value = line.rstrip("\n").partition(": ")
                    fields[name] = value
            self.end = "ended"
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.end = type(error).__name__

    def _take(self, fields: dict[str, str]) -> None:
        if "data" in fields:
            self.events.append(Told(int(fields["id"]), fields["event"], json.loads(fields["data"])))
        if "id" in fields:
            self.position = int(fields["id"])
