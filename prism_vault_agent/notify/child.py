"""One child process, without a shell: bounded in time by who waits for it, and ended with all of its group when it is not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LARGEST_ANSWER: Final = 4096


async def run(words: Sequence[str], environment: Mapping[str, str], *, answer: bool) -> tuple[int, bytes]:
    """Run a program to its end; return its exit status (negative for a signal) and, with ``answer``, the beginning of its output.

    It has no descriptor but these, no terminal, and nothing in its environment but ``PATH`` and what is given. Raises ``OSError``
    where it cannot be started. Cancelled, it is killed, with every process of its group.
    """
    output = asyncio.subprocess.PIPE if answer else asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT if answer else output,
        env={"PATH": PATH, **environment},
        cwd="/",
        start_new_session=True,
    )
    try:
        told = await _beginning(child.stdout) if child.stdout else b""
        return await child.wait(), told
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()


async def _beginning(stream: asyncio.StreamReader) -> bytes:
    """Return the first bytes of a stream, and read it to its end, so that who writes it is not held up."""
    kept = b""
    while part := await stream.read(LARGEST_ANSWER):
        kept = (kept + part)[:LARGEST_ANSWER]
    return kept
