"""One who follows the stream and does not read: cut off after its time, at no cost to others; told all when it comes again."""

from __future__ import annotations

import contextlib
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.http.protocol import READING_SECONDS
from prism_vault_agent.central.log.signals import signal
from prism_vault_agent.central.log.store import Store
from prism_vault_agent.central.storage.engines import writing_engine
from tests.support.central import CentralProcess
from tests.support.soak import count
from tests.support.stream import Following
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from prism_vault_agent.central.log.transaction import Transaction

SECONDS = count(1, int(READING_SECONDS))
# Runs central's module as it would be run, but for the time that a reader has.
SHORTER = f"""
import runpy, sys
from prism_vault_agent.central.http import protocol
protocol.READING_SECONDS = {SECONDS}.0
sys.argv = sys.argv[3:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
SIGNALS = 20_000  # of 700 bytes: more than the kernel keeps for a connection


def _several(transaction: Transaction, many: int) -> None:
    row = transaction.insert_own({"kind": "admin", "reservation": new_id(), "reason": "rotation", "message": "several"})
    for _ in range(many):
        signal(transaction, "rotation", {"target": {"scope": "x" * 600}, "projects": ["*"]}, row.n)


def streams(central: CentralProcess) -> float:
    """Return how many streams central has open."""
    with central.client() as client:
        lines = client.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith("prism_vault_central_signal_streams ")]
    return float(line.split()[1])


@pytest.mark.timeout(300)
def test_who_does_not_read_is_cut_off_and_misses_nothing(tmp_path):
    """A connection that takes nothing for its time is cut off; another reader gets every signal meanwhile; it may come again."""
    with contextlib.ExitStack() as stack:
        central = CentralProcess(tmp_path)
        central.start(under=[sys.executable, "-c", SHORTER])
        stack.callback(central.stop)
        where = urlsplit(central.url)
        deaf = stack.enter_context(socket.socket())
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((where.hostname or "", where.port or 0))
        head = (
            f"GET /v1/signals?after=0 HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {central.operator_token}\r\n\r\n"
        )
        deaf.sendall(head.encode())
        wait_until(lambda: streams(central) == 1)
        with Following(central, query="?after=0") as quick:
            with contextlib.closing(Store(writing_engine(central.setting("database")))) as store:
                work: Any = partial(_several, many=SIGNALS // 10)
                for _ in range(10):
                    store.run([work])
            wait_until(lambda: len(quick.events) == SIGNALS, 120)
            wait_until(lambda: streams(central) == 1, 60)
        left = b"".join(iter(partial(deaf.recv, 65_536), b""))  # what the kernel had taken
        assert 0 < left.count(b"event: rotation") < SIGNALS
        assert not left.endswith(b"0\r\n\r\n")
        with Following(central, last=SIGNALS - 5) as again:
            assert [event.id for event in again.wait_for(5)] == list(range(SIGNALS - 4, SIGNALS + 1))
