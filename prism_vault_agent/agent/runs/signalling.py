"""Sending a signal to processes: by ourselves, or by the helper where we may not."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.helper.client import signal_by

if TYPE_CHECKING:
    from collections.abc import Iterator

Refused = PermissionError | CannotCreate
# What many processes take to be signalled, the other work of the agent is done between.
_AT_A_TIME = 64


async def signal_all(descriptors: Iterator[int], number: int, helper: str) -> Refused | None:
    """Signal the processes behind ``descriptors`` (pidfd_open(2)), each good until the next one is asked for.

    Those of other users are signalled by the helper at ``helper``, where the agent may not. Return why one was not, where others
    were. Raises ``ProcessLookupError`` where there are none any more; ``PermissionError``, or what the helper says against it,
    where none may be.
    """
    reached, refused = 0, None
    for place, descriptor in enumerate(descriptors, start=1):
        try:
            await _signal(descriptor, number, helper)
        except ProcessLookupError:
            continue
        except (PermissionError, CannotCreate) as error:
            refused = error
            continue
        reached += 1
        if place % _AT_A_TIME == 0:
            await asyncio.sleep(0)
    if reached:
        return refused
    if refused is not None:
        raise refused
    raise ProcessLookupError


async def _signal(pidfd: int, number: int, helper: str) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except PermissionError:
        if not helper:
            raise
        await asyncio.to_thread(signal_by, helper, os.dup(pidfd), number)
