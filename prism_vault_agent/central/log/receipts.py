"""Central's signature for the rows of an answer, so that a host can show what it was promised (``proof/receipt.py``).

A key at hand signs at once. A key elsewhere signs everything that waits in one request, with one request under way at a time.
An answer never waits long for it: its rows are durable without a signature too.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import structlog

from prism_vault_agent.errors import PrismVaultError
from prism_vault_agent.proof.keys import to_base64
from prism_vault_agent.proof.receipt import receipt_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prism_vault_agent.proof.keys import Signer

    Waiting = tuple[bytes, asyncio.Future[bytes | None]]

# How long an answer waits for its receipt (an agent gives up after 5 s), and how long nobody asks a signer that has just failed.
WAIT_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 1.0
MOST_AT_ONCE: Final = 256


class Receipts:
    """Signs receipts. ``trouble`` says why the last one could not be had, and is empty where it could.

    ``signed`` and ``missed`` count the answers that got one and those that did not.
    """

    def __init__(self, signer: Signer) -> None:
        """Sign with ``signer``, under its key's name."""
        self._signer = signer
        self._origin = signer.verifying_key.name
        self._waiting: deque[Waiting] = deque()
        self._asking: asyncio.Task[None] | None = None
        self._asked = 0.0
        self._paused_until = 0.0
        self._log = structlog.get_logger("receipts")
        self.trouble = ""
        self.signed = 0
        self.missed = 0

    async def sign(self, rows: Sequence[tuple[int, bytes]]) -> dict[str, Any] | None:
        """Return the receipt for ``rows``, the number and leaf hash of each; None where there are none, or no signature now."""
        if not rows:
            return None
        at = time.time_ns() // 1_000_000
        text = receipt_text(self._origin, at, rows)
        signature = self._signer.sign_many((text,))[0] if self._signer.at_hand else await self._wait_for(text)
        if signature is None:
            self.missed += 1
            return None
        self.signed += 1
        return {"origin": self._origin, "at": at, "signature": to_base64(signature)}

    async def _wait_for(self, text: bytes) -> bytes | None:
        """Return the signature of a signer that is elsewhere, if it comes soon."""
        now = time.monotonic()
        if now < self._paused_until or (self._asking is not None and now - self._asked > WAIT_SECONDS):
            return None  # nobody waits where the last one waited in vain
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, future))
        if self._asking is None:
            self._asked = now
            self._asking = asyncio.create_task(self._ask())
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await future
        except TimeoutError:
            self._tell("the signer does not answer in time")
            return None

    async def _ask(self) -> None:
        """Have everything that waits signed, one request after the other, until nothing waits."""
        try:
            while self._waiting:
                await self._ask_once([self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))])
        finally:
            self._asking = None

    async def _ask_once(self, asked: list[Waiting]) -> None:
        asked = [(text, future) for text, future in asked if not future.done()]
        signatures: Sequence[bytes | None]
        self._asked = time.monotonic()
        try:
            signatures = await asyncio.to_thread(self._signer.sign_many, [text for text, _ in asked]) if asked else []
            self.trouble = ""
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a signer, the rows are acknowledged
            self._tell(error.line() if isinstance(error, PrismVaultError) else type(error).__name__)
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            asked += self._waiting
            self._waiting.clear()
            signatures = [None] * len(asked)
        for (_, future), signature in zip(asked, signatures, strict=True):
            if not future.done():
                future.set_result(signature)

    def _tell(self, trouble: str) -> None:
        """Log what is wrong where that is news."""
        if trouble != self.trouble:
            self._log.error("receipts_not_signed", cause=trouble)
        self.trouble = trouble
