"""The front's side of the workers: a few are always ready; one is taken for each job and never used again."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

import prism_vault_agent.worker
from prism_vault_agent.errors import ProviderUnavailable, from_plain
from prism_vault_agent.worker.messages import BEGUN, LENGTH, Message, encode, send

if TYPE_CHECKING:
    from prism_vault_agent.config.settings import VaultSettings

log = structlog.get_logger()

RESTART_PAUSE: Final = 0.5


class Worker:
    """One single-use worker, as the front sees it: a socket."""

    def __init__(self, end: socket.socket) -> None:
        """Speak to the worker on ``end``."""
        end.setblocking(False)
        self._end = end

    async def ask(self, job: Message, passed: int | None = None) -> Message:
        """Return the answer to one job, or raise the error that the worker answered. The descriptor ``passed`` goes along.

        Of a worker that is lost the reason is ``not_begun`` where it was to deliver and has not begun to, else ``worker_lost``.
        """
        loop = asyncio.get_running_loop()
        frame, reason = encode(job), "worker_lost" if job["do"] != "deliver" else "not_begun"
        try:
            if passed is not None:
                sent = socket.send_fds(self._end, [frame], [passed])
                frame = frame[sent:]
            if frame:  # an empty send would fail where the worker has answered and ended already
                await loop.sock_sendall(self._end, frame)
            answer = await self._answer()
            if answer == BEGUN:
                reason = "worker_lost"
                answer = await self._answer()
        except OSError as error:
            log.warning("worker.lost", job=job["do"], errno=error.errno, error=type(error).__name__)
            raise ProviderUnavailable("the worker ended before it answered", mend="retry", reason=reason) from None
        if "error" in answer:
            raise from_plain(answer["error"])
        return answer

    def alive(self) -> bool:
        """Tell whether an idle worker still waits for its job: one that has ended has closed its end."""
        try:
            return bool(self._end.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def end(self) -> None:
        """Let the worker go: it ends, and with it what it holds. Harmless when it has ended already."""
        self._end.close()

    async def _answer(self) -> Message:
        length = LENGTH.unpack(await self._exactly(LENGTH.size))[0]
        answer: Message = json.loads(await self._exactly(length))
        return answer

    async def _exactly(self, count: int) -> bytes:
        loop = asyncio.get_running_loop()
        parts = bytearray()
        while len(parts) < count:
            part = await loop.sock_recv(self._end, count - len(parts))
            if not part:
                raise ConnectionResetError
            parts += part
        return bytes(parts)


class Workers:
    """The ready workers and the warm parent that forks them."""

    def __init__(self, settings: VaultSettings, ready: int) -> None:
        """Keep ``ready`` idle workers, connected to the provider of ``settings``."""
        self._settings = settings
        self._ready = ready
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._asked = 0
        self._waiting = 0
        self._control: socket.socket | None = None
        self._parent: asyncio.subprocess.Process | None = None

    @property
    def idle(self) -> int:
        """How many workers are ready now."""
        return self._idle.qsize()

    async def run(self) -> None:
        """Keep a warm parent alive and workers ready, until cancelled."""
        try:
            while True:
                try:
                    await self._start()
                    await self._receive_workers()
                except OSError as error:
                    log.error("workers.parent_failed", errno=error.errno)
                finally:
                    await self._stop()
                log.error("workers.parent_lost", message="the warm parent ended; another one is started")
                await asyncio.sleep(RESTART_PAUSE)
        finally:
            while not self._idle.empty():
                self._idle.get_nowait().end()

    async def take(self, deadline: float) -> Worker:
        """Return a worker for one job. Raises ``ProviderUnavailable`` when none comes before ``deadline`` (loop time)."""
        self._waiting += 1
        self._order()
        try:
            async with asyncio.timeout_at(deadline):
                while not (worker := await self._idle.get()).alive():
                    worker.end()
                    log.warning("worker.lost", job="none")
                    self._order()
                return worker
        except TimeoutError:
            raise ProviderUnavailable("no worker became free in time", mend="retry", reason="worker_lost") from None
        finally:
            self._waiting -= 1

    async def job(self, message: Message, deadline: float) -> Message:
        """Have one job done by a worker of its own and return the answer. ``deadline`` is CLOCK_MONOTONIC seconds."""
        worker = await self.take(deadline)
        try:
            async with asyncio.timeout_at(deadline + 0.5):
                return await worker.ask({**message, "deadline": deadline})
        except TimeoutError:
            raise ProviderUnavailable("the provider did not answer in time", mend="retry") from None
        finally:
            worker.end()

    def _order(self) -> None:
        """Ask the parent for as many workers as are missing."""
        missing = self._ready + self._waiting - self._idle.qsize() - self._asked
        if missing > 0 and self._control is not None:
            with contextlib.suppress(OSError):  # a parent that has gone is noticed, and replaced, by run()
                self._control.send(encode({"fork": missing}))
                self._asked += missing

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        main = Path(prism_vault_agent.worker.__file__).with_name("__main__.py")
        with theirs:
            self._parent = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-E", main, str(theirs.fileno()),
                pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL, env={"PATH": os.defpath},
            )  # fmt: skip
        send(ours, dataclasses.asdict(self._settings))
        ours.setblocking(False)
        self._control, self._asked = ours, 0
        self._order()

    async def _receive_workers(self) -> None:
        """Take the workers that the parent sends, until it ends."""
        loop = asyncio.get_running_loop()
        assert self._control is not None
        arrived = asyncio.Event()
        loop.add_reader(self._control, arrived.set)
        try:
            while True:
                await arrived.wait()
                arrived.clear()
                if not self._take_over():
                    return
        finally:
            loop.remove_reader(self._control)

    def _take_over(self) -> bool:
        """Take every worker that has arrived; return False when the parent has ended."""
        assert self._control is not None
        while True:
            try:
                marks, descriptors, _, _ = socket.recv_fds(self._control, 64, 64)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not marks:
                return False
            # Each worker comes with one mark; out of descriptors we get the mark alone, and that worker ends by itself.
            self._asked -= len(marks)
            for descriptor in descriptors:
                self._idle.put_nowait(Worker(socket.socket(fileno=descriptor)))
            if len(descriptors) < len(marks):
                asyncio.get_running_loop().call_later(RESTART_PAUSE, self._order)

    async def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._parent is not None and self._parent.returncode is None:
            await self._parent.wait()
