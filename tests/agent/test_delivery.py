"""What becomes of a delivery is known, whatever ends first: the time, the worker, or the caller's patience.

The worker is one in memory: a real one cannot be made to end between its last byte and its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.agent.delivery import SocketSink
from prism_vault_agent.agent.front.peer import Peer
from prism_vault_agent.agent.runs.records import RunRecords
from prism_vault_agent.errors import ProtocolError, ProviderUnavailable
from prism_vault_agent.model import Receipt
from tests.audit.nouns import resolution
from tests.support.groups import place_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from prism_vault_agent.model import Render

BLOCK = b"A=canary\0"


class Writing:
    """A worker that writes the block, and then does what ``after`` does before it answers."""

    def __init__(self, connection: socket.socket, after: Callable[[], Awaitable[None]]) -> None:
        self._connection = connection
        self._after = after

    async def ask(self, _job: dict[str, Any], _passed: int) -> dict[str, Any]:
        """Deliver."""
        self._connection.sendall(BLOCK)
        await self._after()
        return {"delivered": True}

    def end(self) -> None:
        """Do nothing."""


@pytest.fixture
def asking() -> Iterator[subprocess.Popen[bytes]]:
    """A process that asked for values."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()
    with contextlib.suppress(OSError):  # who is no root makes none
        place_of("self").joinpath(f"prism-vault-{1:032x}").rmdir()


def deliver(
    asking: subprocess.Popen[bytes], directory: Path, after: Callable[[], Awaitable[None]], seconds: float
) -> tuple[RunRecords, Render]:
    """Deliver to a process as the front does, which waits for ``seconds``."""
    records = RunRecords(str(directory / "runs"), {})
    ours, theirs = socket.socketpair()
    pidfd = os.pidfd_open(asking.pid)

    async def play() -> Render:
        peer = Peer(os.geteuid(), os.getegid(), asking.pid, pidfd, guaranteed=True)
        deadline = asyncio.get_running_loop().time() + seconds
        sink = SocketSink(ours, peer, peer.caller(), deadline, records)
        async with asyncio.timeout_at(deadline):
            return await sink.deliver(Receipt(resolution(Writing(ours, after)), 1))

    with ours, theirs:
        try:
            return records, asyncio.run(play())
        finally:
            os.close(pidfd)


def test_what_was_delivered_while_the_time_ended_is_a_release(asking, tmp_path):
    """A worker that tells of its success a moment too late has delivered: the process is one that holds values."""
    records, render = deliver(asking, tmp_path, lambda: asyncio.sleep(0.2), 0.1)
    assert render.names == ("A",)
    assert [each.render.reservation.id for each in RunRecords(records.path, {}).load()] == [render.reservation.id]
    assert asking.poll() is None


@pytest.mark.parametrize("how", ["ended", "hangs"])
def test_a_process_that_may_hold_values_and_nobody_knows_is_ended(asking, tmp_path, how):
    """Where the worker ends, or hangs, before it tells that it delivered, the caller is killed: the log says not delivered."""

    async def after() -> None:
        if how == "hangs":
            await asyncio.sleep(60)
        raise ProviderUnavailable("the worker ended before it answered", reason="worker_lost")

    with pytest.raises(ProviderUnavailable):
        deliver(asking, tmp_path, after, 0.1)
    wait_until(lambda: asking.poll() is not None)
    assert asking.returncode == -9
    assert len(list(RunRecords(str(tmp_path / "runs"), {}).load())) == 1  # until the log has that it was not delivered


def test_a_process_that_was_given_nothing_lives(asking, tmp_path):
    """Where the worker ends before it has begun to deliver, the caller hears that it is to try again, and lives."""

    async def after() -> None:
        raise ProviderUnavailable("the worker ended before it answered", reason="not_begun")

    with pytest.raises(ProviderUnavailable):
        deliver(asking, tmp_path, after, 5)
    assert asking.poll() is None


def test_a_process_that_was_given_less_than_all_is_told_so_and_lives(asking, tmp_path):
    """Where the worker tells that it could not write all, no value is out there, and the caller hears why."""

    async def after() -> None:
        raise ProtocolError("the worker failed: Broken pipe")

    with pytest.raises(ProtocolError):
        deliver(asking, tmp_path, after, 5)
    assert asking.poll() is None
