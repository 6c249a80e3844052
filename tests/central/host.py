"""A host as central sees it: an event chain of its own and a credential, without an agent behind it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx2

from prism_vault_agent.audit.event import Chain, new_id

if TYPE_CHECKING:
    from tests.support.central import CentralProcess

OPEN: list[httpx2.Client] = []  # closed after each test
SCOPE = {"project": "prism", "environment": "lan", "scopes": ["web"]}


def fields(kind: str, reservation: str, **more: Any) -> dict[str, Any]:
    """Return the fields of an event as an agent makes them; ``more`` adds or replaces."""
    made: dict[str, Any] = {
        "kind": kind,
        "event_id": new_id(),
        "reservation": reservation,
        "at": time.time_ns() // 1_000_000,
        "boot_ms": time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000,
        **SCOPE,
    }
    if kind == "reserved":
        made |= {"purpose": "service", "caller": {"kind": "service", "uid": 1000}, "run_ref": None, "job_id": None}
    if kind in ("denied", "failure", "cleared"):
        made |= {"reason": "because"}
    return made | more


def told(answer: httpx2.Response) -> dict[str, Any]:
    """Return what an answer says of its event, which is the same whenever the event is sent: not the receipt's time."""
    return {name: value for name, value in answer.json().items() if name not in ("receipt", "request_id")}


class Host:
    """Makes events of one host and sends them with one credential."""

    def __init__(
        self, central: CentralProcess, name: str = "server1", token: str | None = None, client: httpx2.Client | None = None
    ) -> None:
        self.chain = Chain(name, new_id())
        self.client = client or central.client(central.agent_tokens[name] if token is None else token)
        OPEN.append(self.client)

    def make(self, kind: str, reservation: str | None = None, **more: Any) -> bytes:
        """Return the next event of the chain, which does not move."""
        return self.chain.seal(fields(kind, reservation or new_id(), **more))

    def send(self, body: bytes) -> httpx2.Response:
        """Send one event to the route of its kind; the chain moves if central says that it took it."""
        event = json.loads(body)
        if event["kind"] == "reserved":
            answer = self.client.post("/v1/audit/reservations", content=body)
        else:
            answer = self.client.post(f"/v1/audit/reservations/{event['reservation']}/finalize", content=body)
        if answer.headers["content-type"].endswith("json") and answer.json().get("appended"):
            self._follow(body)
        return answer

    def batch(self, bodies: list[bytes]) -> list[dict[str, Any]]:
        """Send a batch and return its results; the chain moves over what was taken."""
        answer = self.client.post("/v1/audit/events:batch", json={"events": [body.decode() for body in bodies]})
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        for body, result in zip(bodies, results, strict=True):
            if result["appended"]:
                self._follow(body)
        return results

    def reserve(self, reservation: str | None = None, **more: Any) -> str:
        """Open a reservation and return its id."""
        body = self.make("reserved", reservation, **more)
        answer = self.send(body)
        assert answer.status_code == 201, answer.text
        return str(json.loads(body)["reservation"])

    def end(self, kind: str, reservation: str, **more: Any) -> httpx2.Response:
        """Send the event that ends a reservation."""
        return self.send(self.make(kind, reservation, **more))

    def clear(self, reservation: str) -> dict[str, Any]:
        """Send the event that takes a release back."""
        return self.batch([self.make("cleared", reservation)])[0]

    def _follow(self, body: bytes) -> None:
        if json.loads(body)["seq"] == self.chain.seq + 1:
            self.chain.accept(body)
