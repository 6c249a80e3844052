"""One thread that writes. It takes everything that waits, does it in one transaction, and only then answers (group commit)."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from prism_vault_agent.central.log.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prism_vault_agent.central.log.store import Store
    from prism_vault_agent.central.log.transaction import Transaction

LARGEST_GROUP: Final = 256
MOST_WAITING: Final = 2_000

Result = TypeVar("Result")


class Busy(Exception):
    """More work waits than the disk takes; nothing was queued."""


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[Transaction], object]
    reservations: Sequence[str]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class Writer:
    """Runs works on a store, in the order in which they are given, in groups."""

    def __init__(self, store: Store, failed: Callable[[Exception], None], news: Callable[[], None] = lambda: None) -> None:
        """Write to ``store``; ``failed`` is told, in the writer's thread, of each transaction that did not succeed.

        ``news`` is called, in the callers' loop, when events are durably on the log; ``told`` with each channel on which
        a durable transaction has told something. ``done`` is called in the writer's thread after each durable transaction, with
        the number of its works and the seconds that it took.
        """
        self._store = store
        self._failed = failed
        self.news = news
        self.told: Callable[[str], None] = lambda _channel: None
        self.done: Callable[[int, float], None] = lambda _works, _seconds: None
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="audit-writer")

    @property
    def waiting(self) -> int:
        """Return how many works wait."""
        return self._waiting.qsize()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Do what waits, then end the thread and close the store. Blocks until it is done."""
        self._waiting.put(None)
        self._thread.join()

    async def do(self, work: Callable[[Transaction], Result], reservations: Sequence[str] = ()) -> Result:
        """Return what ``work`` returned once it is durable; ``reservations`` are those that it will look at.

        Raises :class:`Busy` where nothing was queued, :class:`StorageError` where nothing may be believed. ``work`` may
        run more than once; a caller that is cancelled does not stop it.
        """
        if self._waiting.qsize() >= MOST_WAITING:
            raise Busy
        loop = asyncio.get_running_loop()
        job = _Job(work, reservations, loop, loop.create_future())
        self._waiting.put(job)
        return cast("Result", await job.future)

    async def probe(self) -> None:
        """Raise :class:`StorageError` unless a transaction can be written durably."""
        await self.do(_PROBE)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            group = [self._waiting.get()]
            while len(group) < LARGEST_GROUP and not self._waiting.empty():
                group.append(self._waiting.get())
            jobs = [job for job in group if job is not None]
            stopping = len(jobs) < len(group)
            if jobs:
                self._write(jobs)
        self._store.close()

    def _write(self, jobs: list[_Job]) -> None:
        outcome: list[object] | StorageError
        appended, told = False, frozenset[str]()
        began = time.perf_counter()
        try:
            if any(job.work is _PROBE for job in jobs):
                self._store.probe()
            outcome = self._store.run([job.work for job in jobs], [each for job in jobs for each in job.reservations])
            appended, told = self._store.appended, self._store.told
            self.done(len(jobs), time.perf_counter() - began)
        except Exception as error:  # noqa: BLE001 - a defect in one work must not end the thread that serves all
            self._failed(error)
            outcome = error if isinstance(error, StorageError) else StorageError(type(error).__name__)
        jobs[0].loop.call_soon_threadsafe(_answer, jobs, outcome)
        if appended:
            jobs[0].loop.call_soon_threadsafe(self.news)
        for channel in told:
            jobs[0].loop.call_soon_threadsafe(self.told, channel)


def _PROBE(_transaction: Transaction) -> None:  # noqa: N802 - stands for a work; the store does what it asks for
    """Ask for a durable write besides the group's own."""


def _answer(jobs: list[_Job], outcome: list[object] | StorageError) -> None:
    """Give each waiting caller its result; a caller that is gone gets none."""
    for index, job in enumerate(jobs):
        if job.future.done():
            continue
        if isinstance(outcome, StorageError):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome[index])
