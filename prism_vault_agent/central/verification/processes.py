"""Spreads the looking at rows over processes, so that reading them and what needs their order goes on beside it."""

from __future__ import annotations

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

    from prism_vault_agent.central.verification.row import Looked

MOST_PROCESSES: Final = 3
AHEAD: Final = 3  # parts that each process has before it


class Processes:
    """One process less than there are processors, up to three; none where there is one. Each is a copy of this one."""

    def __init__(self) -> None:
        """Start them: before files and connections are opened, which a copy would have too."""
        self._count = min(MOST_PROCESSES, len(os.sched_getaffinity(0)) - 1)
        self._executor: ProcessPoolExecutor | None = None
        if self._count:
            context = multiprocessing.get_context("fork")
            self._executor = ProcessPoolExecutor(self._count, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))
            self._executor.submit(os.getpid).result()

    def close(self) -> None:
        """End them."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def spread(self, look: Callable[[Any], list[Looked]], parts: Iterable[Any]) -> Iterator[list[Looked]]:
        """Apply ``look`` to each part, in their order. Raises ``Unavailable`` where a process is lost."""
        if self._executor is None:
            yield from map(look, parts)
            return
        waiting: deque[Future[list[Looked]]] = deque()
        coming = iter(parts)
        try:
            waiting.extend(self._executor.submit(look, part) for part in islice(coming, self._count * AHEAD))
            while waiting:
                looked = waiting.popleft().result()
                waiting.extend(self._executor.submit(look, part) for part in islice(coming, 1))
                yield looked
        except BrokenExecutor:
            raise Unavailable("a process that verifies was lost", mend="see the free memory, and try again") from None
