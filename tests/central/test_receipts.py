"""Signing receipts with a key that is elsewhere: what waits goes together, and an answer never waits long for it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.central.log import receipts as module
from prism_vault_agent.central.log.receipts import MOST_AT_ONCE, Receipts
from prism_vault_agent.errors import ProviderUnavailable
from prism_vault_agent.proof.keys import SigningKey, VerifyingKey, from_base64
from prism_vault_agent.proof.receipt import check_receipt
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

Receipt = dict[str, Any] | None
ROWS = [(7, bytes(32)), (9, bytes(range(32)))]


class Elsewhere:
    """A signer that is not at hand, with the faults that a real one has at moments that no test can choose."""

    at_hand = False

    def __init__(self) -> None:
        self.key = SigningKey.generate("log.example/one")
        self.asked: list[int] = []
        self.under_way = 0
        self.most_under_way = 0
        self.go = threading.Event()
        self.fault: Exception | None = None

    @property
    def verifying_key(self) -> VerifyingKey:
        """The key's public half."""
        return self.key.verifying_key

    def sign_many(self, texts: Sequence[bytes]) -> list[bytes]:
        """Sign once the test says go, unless there is a fault."""
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.asked.append(len(texts))
        self.go.wait()
        self.under_way -= 1
        if self.fault is not None:
            raise self.fault
        return self.key.sign_many(texts)

    def close(self) -> None:
        """Hold nothing open."""


def test_all_that_waits_is_signed_in_one_request():
    """While one request is under way, everything else waits and then goes together; each answer gets its own receipt."""

    async def scenario() -> tuple[Elsewhere, list[tuple[int, Receipt]]]:
        signer = Elsewhere()
        receipts = Receipts(signer)
        asking = [asyncio.create_task(receipts.sign([(n, bytes(32))])) for n in range(MOST_AT_ONCE + 21)]
        await asyncio.to_thread(wait_until, lambda: signer.asked)
        late = asyncio.create_task(receipts.sign([(1000, bytes(32))]))
        await asyncio.sleep(0)
        signer.go.set()
        return signer, [*enumerate(await asyncio.gather(*asking)), (1000, await late)]

    signer, signed = asyncio.run(scenario())

    assert signer.asked == [MOST_AT_ONCE, 22]
    assert signer.most_under_way == 1
    for n, receipt in signed:
        assert receipt is not None
        signature = from_base64(receipt["signature"])
        check_receipt(signer.verifying_key, signature, receipt["origin"], receipt["at"], [(n, bytes(32))])


@pytest.mark.parametrize("fault", [ProviderUnavailable("the provider is sealed"), ZeroDivisionError()])
def test_a_signer_that_fails_costs_the_receipts_only(fault, monkeypatch):
    """All that waited get none, the trouble is told and the signer left alone for a while; then it signs again."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.05)

    async def scenario() -> tuple[Elsewhere, Receipts, list[Receipt], Receipt, str]:
        signer = Elsewhere()
        signer.fault = fault
        signer.go.set()
        receipts = Receipts(signer)
        missed = list(await asyncio.gather(*(receipts.sign(ROWS) for _ in range(5))))
        missed.append(await receipts.sign(ROWS))
        trouble = receipts.trouble
        signer.fault = None
        receipt = None
        async with asyncio.timeout(30):
            while receipt is None:
                await asyncio.sleep(0.01)
                receipt = await receipts.sign(ROWS)
        return signer, receipts, missed, receipt, trouble

    signer, receipts, missed, receipt, trouble = asyncio.run(scenario())

    assert missed == [None] * 6
    assert signer.asked[0] == 5
    assert len(signer.asked) == 2
    assert trouble in ("the provider is sealed", "ZeroDivisionError")
    assert receipts.trouble == ""
    assert receipts.missed >= 6
    assert receipts.signed == 1
    assert receipt is not None
    check_receipt(signer.verifying_key, from_base64(receipt["signature"]), receipt["origin"], receipt["at"], ROWS)


def test_a_signer_that_hangs_holds_no_answer_back(monkeypatch):
    """An answer that has waited its time goes out without a receipt, and those after it do not wait until it signs again."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)

    async def scenario() -> tuple[list[Receipt], list[int], Receipt]:
        signer = Elsewhere()
        receipts = Receipts(signer)
        hung = list(await asyncio.gather(*(receipts.sign(ROWS) for _ in range(3))))
        hung.append(await receipts.sign(ROWS))
        asked = list(signer.asked)
        signer.go.set()
        receipt = None
        async with asyncio.timeout(30):
            while receipt is None:
                await asyncio.sleep(0.01)
                receipt = await receipts.sign(ROWS)
        return hung, asked, receipt

    hung, asked, receipt = asyncio.run(scenario())

    assert hung == [None] * 4
    assert asked == [3]
    assert receipt is not None


def test_nothing_appended_is_nothing_signed():
    """Without rows there is no receipt, and the signer is not asked."""
    signer = Elsewhere()

    assert asyncio.run(Receipts(signer).sign([])) is None
    assert signer.asked == []
