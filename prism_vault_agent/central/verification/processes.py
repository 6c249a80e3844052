"""Spreads the looking at rows over processes, so that reading them and what needs their order goes on beside it."""

from __future__ import annotations

import gc
import marshal
import multiprocessing
import os
import signal
from collections import deque
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MOST_PROCESSES: Final = 4
AHEAD: Final = 3  # parts that each process has before it


class Processes:
    """As many processes as there are processors, up to four; none where there is one. Each is a copy of this one."""

    def __init__(self) -> None:
        """Start them: before files and connections are opened, which a copy would have too."""
        processors = len(os.sched_getaffinity(0))
        self._count = min(MOST_PROCESSES, processors) if processors > 1 else 0
        self._executor: ProcessPoolExecutor | None = None
        if self._count:
            context = multiprocessing.get_context("fork")
            self._executor = ProcessPoolExecutor(self._count, context, _prepare)
            self._executor.submit(os.getpid).result()

    def close(self) -> None:
        """End them."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def spread(self, look: Callable[[Any], Any], parts: Iterable[Any]) -> Iterator[Any]:
        """Apply ``look`` to each part, in their order. Raises ``Unavailable`` where a process is lost."""
        if self._executor is None:
            yield from map(look, parts)
            return
        waiting: deque[Future[bytes]] = deque()
        coming = map(_packed, parts)
        try:
            waiting.extend(self._executor.submit(_apply, look, part) for part in islice(coming, self._count * AHEAD))
            while waiting:
                looked = waiting.popleft().result()
                waiting.extend(self._executor.submit(_apply, look, part) for part in islice(coming, 1))
                yield marshal.loads(looked)  # noqa: S302 - as below
        except BrokenExecutor:
            raise Unavailable("a process that verifies was lost", mend="see the free memory, and try again") from None


def _prepare() -> None:
    """Leave Ctrl-C to the process that started us, and look for no cycles: there are none, and that takes a tenth of the time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()


def _packed(part: Any) -> bytes:
    """Return rows as bytes: marshal takes half of pickle's time."""
    return marshal.dumps(part, 2)


def _apply(look: Callable[[Any], Any], part: bytes) -> bytes:
    return marshal.dumps(look(marshal.loads(part)), 2)  # noqa: S302 - from a process of ours, over a pipe of ours
