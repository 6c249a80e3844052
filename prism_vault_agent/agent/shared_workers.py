"""Workers that stage the files of several scopes, one after the other, while many are rendered anew at one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from typing import Self

    from prism_vault_agent.agent.workers import Worker, Workers

# So many scopes' values are in one process at the most, for well under a second.
MOST: Final = 32


class Taking(Protocol):
    """Where a worker for one job comes from, and goes when it has answered."""

    async def take(self, deadline: float) -> Worker:
        """Return a worker. Raises ``ProviderUnavailable`` when none comes before ``deadline`` (loop time)."""

    def done(self, worker: Worker) -> None:
        """Have back a worker that has answered its job."""


class SharedWorkers:
    """Hands a worker that has answered to the next who asks; each ends after ``MOST`` jobs, and all at the end of the block."""

    def __init__(self, workers: Workers) -> None:
        """Take from these workers those that are missing."""
        self._workers = workers
        self._idle: list[Worker] = []
        self._jobs: dict[Worker, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        while self._idle:
            self._idle.pop().end()

    async def take(self, deadline: float) -> Worker:
        """Return a worker that has answered, or a new one."""
        while self._idle:
            if (worker := self._idle.pop()).alive():
                return worker
            worker.end()
        return await self._workers.take(deadline)

    def done(self, worker: Worker) -> None:
        """Keep the worker for the next, or let it end."""
        self._jobs[worker] = self._jobs.get(worker, 0) + 1
        if self._jobs[worker] < MOST:
            self._idle.append(worker)
        else:
            del self._jobs[worker]
            worker.end()
