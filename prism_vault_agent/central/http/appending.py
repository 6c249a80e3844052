"""The three routes that append, as plain ASGI: parse, call the verb, map its answer. ``docs/protocol.md`` has their promises.

They are not FastAPI routes because each exec waits for two of them: the framework costs more there than all the rest.
``openapi.py`` describes them.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from prism_vault_agent.audit.event import NAMELESS
from prism_vault_agent.central.access.rate import Turns
from prism_vault_agent.central.http.body import read_body
from prism_vault_agent.central.http.problem import Problem
from prism_vault_agent.central.log.answer import Answer
from prism_vault_agent.central.log.append import append
from prism_vault_agent.central.log.holding import Refusal, Sender
from prism_vault_agent.central.log.incoming import LARGEST_EVENT, Event, Malformed, read

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from prism_vault_agent.central.access.identity import Identity
    from prism_vault_agent.central.access.live import Live
    from prism_vault_agent.central.access.rate import Rates
    from prism_vault_agent.central.log.names import Names
    from prism_vault_agent.central.log.receipts import Receipts
    from prism_vault_agent.central.log.writer import Writer
    from prism_vault_agent.central.metrics import Metrics

    Route = Callable[[Scope, Receive, Send, str], Awaitable[None]]

MOST_EVENTS: Final = 256
LARGEST_BATCH: Final = 4 * 1024 * 1024
LARGEST_BODY: Final = 2 * LARGEST_BATCH  # a text within JSON takes two bytes for a quote
BATCH: Final = "/v1/audit/events:batch"
RESERVATIONS: Final = "/v1/audit/reservations"
FINALIZE: Final = "/finalize"


class AppendRoutes:
    """The routes, over one writer."""

    def __init__(
        self, writer: Writer, live: Live, receipts: Receipts, metrics: Metrics, *, rates: Rates, names: Names
    ) -> None:  # fmt: skip
        """Append through ``writer``, deciding by the policies that ``live`` has, within ``rates``.

        ``receipts`` signs, ``metrics`` counts, ``names`` tells the operator of an installation that does not have its name.
        """
        self._writer = writer
        self._rates = rates
        self._turns = Turns()
        self._live = live
        self._receipts = receipts
        self._metrics = metrics
        self._names = names
        self._log = structlog.get_logger("audit")

    def route(self, path: str) -> Route | None:
        """Return the route of ``path``, if it is one of ours; its method is POST."""
        if path == BATCH:
            return self.append_batch
        if path == RESERVATIONS:
            return self.reserve
        if path.startswith(RESERVATIONS + "/") and path.endswith(FINALIZE):
            return self.finalize
        return None

    async def append_batch(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """Append events of one host in order, in one transaction; the answer has one result for each."""
        agent: Identity = scope["state"]["identity"]
        texts = _texts(await read_body(scope, receive, LARGEST_BODY))
        answers = await self._append(agent, [_read(text) for text in texts], request_id)
        await _send(send, 200, {"results": [answer.plain() for answer in answers], "receipt": await self._receipt(answers)})

    async def reserve(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """Append one ``reserved`` event: 201, or 403 with both rows on the log where policy says no."""
        agent: Identity = scope["state"]["identity"]
        event = _read(await read_body(scope, receive, LARGEST_EVENT))
        await self._one(agent, event, {"reserved"}, send, request_id)

    async def finalize(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """Append the event that ends a reservation: 200, or 409 where it has ended."""
        agent: Identity = scope["state"]["identity"]
        event = _read(await read_body(scope, receive, LARGEST_EVENT))
        reservation = scope["path"].removeprefix(RESERVATIONS + "/").removesuffix(FINALIZE).removeprefix("pva_")
        if isinstance(event, Event) and event.reservation != reservation:
            raise Problem(400, "other_reservation", "the event is about another reservation than the path")
        await self._one(agent, event, {"success", "failure", "denied"}, send, request_id)

    async def _append(self, agent: Identity, events: list[Event | Answer], request_id: str) -> list[Answer]:
        """Append durably, and log it: one line, and one for each event that was refused or denied."""
        self._rates.take(agent, len(events) - 1, again=len(events))  # the door has taken one, and will again
        async with self._turns.turn(agent.host, len(events)):
            answers = await self._writer.do(
                partial(append, identity=agent, policies=self._live.policies, events=events),
                [event.reservation for event in events if isinstance(event, Event)],
            )
        self._metrics.appended(events, answers)
        taken = [answer.n for answer in answers if answer.n is not None]
        if taken:
            self._log.info("appended", request_id=request_id, host=agent.host, events=len(taken), n=taken[-1])
        for event, answer in zip(events, answers, strict=True):
            if answer.reason and answer.status != 424:  # that one only follows a refusal, which is told
                self._log.warning(
                    "reservation_denied" if answer.appended else "event_refused",
                    request_id=request_id,
                    host=agent.host,
                    status=answer.status,
                    reason=answer.reason,
                    audit_id=answer.audit_id,
                )
            if answer.reason in NAMELESS and isinstance(event, Event):
                sender = Sender(agent.host, event.epoch, event.fields.get("installation") or "")
                await self._names.refused(agent, sender, Refusal(answer.reason, answer.message))
        return answers

    async def _one(self, agent: Identity, event: Event | Answer, kinds: set[str], send: Send, request_id: str) -> None:
        """Append one event, and answer in the status of the whole response."""
        if isinstance(event, Event) and event.kind not in kinds:
            raise Problem(400, "other_kind", f"the event's kind is none of {', '.join(sorted(kinds))}")
        (answer,) = await self._append(agent, [event], request_id)
        told = {**answer.plain(), "receipt": await self._receipt([answer])}
        if answer.reason:
            raise Problem(answer.status, answer.reason, answer.message, more=told, told=True)
        await _send(send, answer.status, told)

    async def _receipt(self, answers: list[Answer]) -> dict[str, Any] | None:
        """Return central's signature for the rows of these answers."""
        return await self._receipts.sign([(answer.n, bytes.fromhex(answer.leaf)) for answer in answers if answer.n is not None])


def _texts(body: bytes) -> list[str]:
    """Return the event texts of a batch, or raise :class:`Problem` 400 or 413."""
    try:
        texts = json.loads(body)["events"]
    except (ValueError, KeyError, TypeError, RecursionError):
        texts = None
    if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
        raise Problem(400, "malformed", 'a batch is {"events": [text, ...]} with at least one event')
    if len(texts) > MOST_EVENTS or sum(map(len, texts)) > LARGEST_BATCH:
        raise Problem(413, "too_large", f"a batch has at most {MOST_EVENTS} events and {LARGEST_BATCH} bytes")
    return texts


def _read(text: str | bytes) -> Event | Answer:
    """Return the event, or the answer that refuses it: 400 where its bytes are not one, 413 where it is too large."""
    try:
        body = text.encode() if isinstance(text, str) else text
        if len(body) > LARGEST_EVENT:
            return Answer(413, appended=False, reason="too_large", message="an event has at most 256 KiB")
        return read(body)
    except Malformed as error:
        return Answer(400, appended=False, event_id=error.event_id, reason="malformed", message=str(error))
    except UnicodeEncodeError:
        return Answer(400, appended=False, reason="malformed", message="an event is UTF-8")


async def _send(send: Send, status: int, content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
