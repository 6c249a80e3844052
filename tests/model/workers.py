"""The agent's workers: their real code on the simulated provider, in a thread each that runs while the agent's loop waits."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from typing import TYPE_CHECKING, Any

from prism_vault_agent.agent.workers import Worker, Workers
from prism_vault_agent.errors import ProviderUnavailable, from_plain
from prism_vault_agent.worker import jobs
from prism_vault_agent.worker.messages import Message, encode, receive

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prism_vault_agent.config.settings import VaultSettings
    from prism_vault_agent.vault.transport import Answer
    from tests.model.provider import Provider

LATENCY = (0.002, 0.03)


class Killed(BaseException):
    """The process that this thread stands for was killed."""


class MemoryTransport:
    """What a worker reaches the provider through."""

    def __init__(self, provider: Provider) -> None:
        self.address = "https://provider.test"
        self.killed = False
        self._provider = provider

    def request(
        self,
        method: str,
        path: str,
        *,
        deadline: float,
        token: str = "",
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        repeatable: bool | None = None,
        exact_numbers: bool = False,
    ) -> Answer:
        """Ask the provider."""
        if self.killed:
            raise Killed
        return self._provider.request(method, path, token, body or {}, query or {})

    def another(self) -> MemoryTransport:
        """Return itself: it is one connection."""
        return self

    def close(self) -> None:
        """Do nothing."""


class SimulatedWorker(Worker):
    """One worker, as the front sees it. ``before`` is shown each job that the worker begins."""

    def __init__(
        self, settings: VaultSettings, provider: Provider, before: Callable[[Message], None], defects: list[str]
    ) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(ours)
        self.transport = MemoryTransport(provider)
        self._provider = provider
        self._before = before
        self._defects = defects
        self._thread = threading.Thread(target=self._serve, args=(theirs, settings), daemon=True)
        self._thread.start()

    def _serve(self, theirs: socket.socket, settings: VaultSettings) -> None:
        with theirs:
            try:
                jobs.Worker(theirs, settings, self.transport).serve()  # type: ignore[arg-type]  # it asks as ``Transport`` does
            except Killed:
                return
            except Exception as error:
                self._defects.append(f"a worker failed: {error!r}")

    async def ask(self, job: Message, passed: int | None = None) -> Message:
        """Have the job done between two waits, so that it may be done and nobody know of it."""
        await asyncio.sleep(random.uniform(*LATENCY))
        self._before(job)
        self._end.setblocking(True)
        try:
            frame = encode(job)
            sent = socket.send_fds(self._end, [frame], [passed]) if passed is not None else 0
            if frame[sent:]:  # an empty send would fail where the worker has answered and ended already
                self._end.sendall(frame[sent:])
            received = receive(self._end)
            if received is not None and self._dies(job):
                self.transport.killed, received = True, None  # after its deed, and its answer is lost with it
        except OSError:
            received = None
        finally:
            with contextlib.suppress(OSError):
                self._end.setblocking(False)
        await asyncio.sleep(random.uniform(*LATENCY))
        if received is None:
            raise ProviderUnavailable("the worker ended before it answered", mend="retry", reason="worker_lost")
        answer = received[0]
        if "error" in answer:
            raise from_plain(answer["error"])
        return answer

    def _dies(self, job: Message) -> bool:
        if job["do"] == "go" and self._provider.dying_readers:
            self._provider.dying_readers -= 1
            return True
        if self._provider.dying:
            self._provider.dying -= 1
            return True
        return False

    def end(self) -> None:
        """Let the worker go, and wait until it has done what it does then."""
        super().end()
        self._thread.join()


class SimulatedWorkers(Workers):
    """Makes a worker whenever one is taken."""

    def __init__(
        self,
        settings: VaultSettings,
        ready: int,
        *,
        provider: Provider,
        before: Callable[[Message], None],
        defects: list[str],
    ) -> None:
        super().__init__(settings, ready)
        self.made: list[SimulatedWorker] = []
        self._make: Callable[[], SimulatedWorker] = lambda: SimulatedWorker(settings, provider, before, defects)

    async def run(self) -> None:
        """Do nothing until cancelled."""
        await asyncio.Event().wait()

    async def take(self, deadline: float) -> Worker:
        """Return a new worker."""
        self.made = [each for each in self.made if each.alive()]
        worker = self._make()
        self.made.append(worker)
        return worker

    def crash(self, *, killed: bool) -> None:
        """Close the front's ends, as the kernel does; ``killed`` are workers that end with the front."""
        for worker in self.made:
            worker.transport.killed = killed
            worker.end()
