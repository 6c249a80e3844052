"""Accepting connections: so many of each user, and never so busily that those already accepted wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.agent.front.http import refusal
from prism_vault_agent.agent.front.peer import credentials
from prism_vault_agent.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

log = structlog.get_logger()

ACCEPT_PAUSE: Final = 0.1
# Refusing costs little: a user who never stops connecting is pushed back faster than others have to wait behind it.
REFUSED_AT_ONCE: Final = 32
BUSY: Final = refusal(Unavailable("too many connections of this user", mend="retry", reason="busy"))


async def accept(
    listening: socket.socket, most: Callable[[], int], serve: Callable[[socket.socket], Coroutine[None, None, None]]
) -> None:
    """Have each connection of ``listening`` served, until cancelled; those above ``most()`` of one user are told to retry.

    Running out of descriptors pauses accepting; it never spins.
    """
    held: Counter[int] = Counter()
    refused = 0

    async def one(connection: socket.socket, uid: int) -> None:
        try:
            with connection:
                await serve(connection)
        finally:
            held[uid] -= 1
            if not held[uid]:
                del held[uid]

    async with asyncio.TaskGroup() as connections:
        while True:
            try:
                connection, _ = await asyncio.get_running_loop().sock_accept(listening)
            except OSError as error:
                log.error("accept.failed", errno=error.errno)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            uid = credentials(connection)[1]
            if held[uid] < most():
                held[uid] += 1
                connections.create_task(one(connection, uid))
                refused = 0
            else:
                _refuse(connection)
                refused = (refused + 1) % REFUSED_AT_ONCE
            if not refused:
                # sock_accept() does not wait while somebody is in the queue; the others' turn comes here.
                await asyncio.sleep(0)


def _refuse(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        connection.send(BUSY, socket.MSG_DONTWAIT)
