"""What is known of a delivery whose worker is lost: that it had not begun, or that all of it may be out there."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import TYPE_CHECKING, cast

import pytest

from prism_vault_agent.agent import workers
from prism_vault_agent.errors import ProviderUnavailable
from prism_vault_agent.worker import jobs
from prism_vault_agent.worker.messages import BEGUN, receive, send

if TYPE_CHECKING:
    from prism_vault_agent.config.settings import VaultSettings

JOB = {"do": "deliver", "head": "", "deadline": time.monotonic() + 3600}


def asked(act: str) -> str:
    """Have a worker deliver that is lost when it has come so far; return the reason that the front tells of it."""
    front, end = socket.socketpair()
    receiver, ours = socket.socketpair()

    def be_lost() -> None:
        if act != "before":
            receive(end)
        if act == "begun":
            send(end, BEGUN)
        end.close()

    with front, receiver, ours:
        lost = threading.Thread(target=be_lost)
        lost.start()
        if act == "before":
            lost.join()
        with pytest.raises(ProviderUnavailable) as told:
            asyncio.run(workers.Worker(front).ask(JOB, receiver.fileno()))
        lost.join()
    return told.value.reason


@pytest.mark.parametrize(("act", "reason"), [("before", "not_begun"), ("taken", "not_begun"), ("begun", "worker_lost")])
def test_a_lost_worker_has_delivered_nothing_unless_it_had_begun(act, reason):
    """A worker that was lost before the job, or before it said that it begins, has written nothing; later nobody knows."""
    assert asked(act) == reason


def test_a_worker_says_that_it_begins_before_the_first_byte():
    """Where it can no longer say so it writes nothing."""
    front, end = socket.socketpair()
    receiver, ours = socket.socketpair()
    with end, ours:
        worker = jobs.Worker(end, cast("VaultSettings", None), None)  # type: ignore[arg-type]
        worker.block = b"A=canary\0"
        front.close()
        with pytest.raises(BrokenPipeError):
            worker.deliver(JOB, receiver.detach())
        assert ours.recv(1) == b""
