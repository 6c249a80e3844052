"""One agent after the other on a simulated host: how each is started, stopped and dropped, and how time passes for it.

The agent's parts are the real ones, made and run as ``agent/agent.py`` does. Replaced are its edges: the provider behind the
workers, the way to central, the signals that a process gets, who is told of files, and what tells that the configuration changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from prism_vault_agent import log as logs
from prism_vault_agent.agent import agent, parts, reload
from prism_vault_agent.agent.files import consumers
from prism_vault_agent.agent.front import front
from prism_vault_agent.agent.front.listener import Listener
from prism_vault_agent.agent.notify import Notifier
from prism_vault_agent.agent.trees import hierarchy
from prism_vault_agent.config.load import load
from prism_vault_agent.errors import PrismVaultError
from prism_vault_agent.notify import command
from prism_vault_agent.process import Hardening
from tests.model.central import Central, CentralHttp, SignalStream
from tests.model.clock import Clock, Crash, Loop
from tests.model.configuration import KEY, PATHS, ConfigurationFiles, Here
from tests.model.host import Processes, signalling
from tests.model.provider import Provider
from tests.model.workers import SimulatedWorkers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from prism_vault_agent.notify.occasion import Occasion
    from prism_vault_agent.scope import Notify
    from prism_vault_agent.worker.messages import Message

# What a crash leaves is kept for ever: what Python does at the end of a coroutine, a killed process does not do.
_LEFT: Final[list[object]] = []
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_LEFT))


class Life:
    """The host, its services and its agent, if one runs. ``defects`` are what was found wrong while it ran.

    The hooks look on: at every turn of the loop, at every job before a worker begins it, at every value that is read, at every
    token that the agent has revoked. ``_tell`` is who is told of files, and who judges them.
    """

    def __init__(self, template: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pv-model-", dir="/dev/shm"))
        self.clock = Clock()
        self.defects: list[str] = []
        self.counts = {"crashes": 0, "starts": 0}
        self.state, self.files = self.directory / "state", self.directory / "files"
        self.socket, self.log = self.directory / "agent.sock", self.directory / "agent.log"
        for made in (self.state, self.files):
            made.mkdir(mode=0o700)
        (self.files / ".staged").mkdir(mode=0o700)  # a place that is not empty is not mounted over
        self._patches = contextlib.ExitStack()
        self._patches.enter_context(self.clock.told())
        self.central = Central(self.directory, template, self.clock)
        self.provider = Provider(self.clock, self._on_read, self._on_revoke)
        self.processes = Processes()
        self.log_file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.configuration = ConfigurationFiles(self.directory)
        for path in (*PATHS, KEY):
            self.provider.write(path)
        self.loop: Loop | None = None
        self.parts: parts.Parts | None = None
        self.crash_kills_workers = False
        self._workers: SimulatedWorkers | None = None
        self._asked: list[asyncio.Task[Any]] = []
        self._connections: list[socket.socket] = []
        self._patch()

    def _patch(self) -> None:
        made = self._patches.enter_context
        made(patch.object(parts, "Workers", self._make_workers))
        made(patch.object(parts, "CentralHttp", lambda *_: CentralHttp(self.central)))
        made(patch.object(parts, "SignalStream", lambda *_: SignalStream(self.central)))
        made(patch.object(agent, "_signals", lambda: (self._stop, self._hang_up)))
        made(patch.object(reload, "changes", self._changes))
        made(patch.object(front, "attest", self._attest))
        made(patch.object(hierarchy, "where", lambda _pid: None))  # to move a process the kernel waits for all processors
        made(patch.object(signal, "pidfd_send_signal", signalling(signal.pidfd_send_signal, self._on_signal)))
        made(patch.dict(consumers.TELL, command=self._tell))
        made(patch.object(command, "tell", self._tell))

    def _make_workers(self, settings: Any, ready: int) -> SimulatedWorkers:
        self._workers = SimulatedWorkers(settings, ready, provider=self.provider, before=self._on_job, defects=self.defects)
        return self._workers

    async def _changes(self, *_: object) -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()

    def _attest(self, connection: socket.socket) -> Any:
        self._connections.append(connection)
        return self.processes.attest(connection)

    def _on_signal(self, pid: int, number: int) -> bool:
        (meant,) = [each for each in self.processes.all if each.pid == pid and each.pidfd >= 0]
        meant.signals.append((number, self.clock.wall))
        return meant.stubborn

    async def _tell(self, notify: Notify, occasion: Occasion) -> str:
        raise NotImplementedError

    def _on_turn(self) -> None:
        raise NotImplementedError

    def _on_job(self, job: Message) -> None:
        raise NotImplementedError

    def _on_read(self, path: str, version: int | None, accessor: str) -> None:
        raise NotImplementedError

    def _on_revoke(self, accessor: str) -> None:
        raise NotImplementedError

    def start(self, fuse: int | None = None) -> None:
        """Start an agent, as ``agent/agent.py`` does; it crashes after so many turns of its loop, where that is said."""
        assert self.loop is None
        self.counts["starts"] += 1
        if self.configuration.name == "broken":
            self.configuration.change("all")
        logs.configure("json", "debug", self.log_file)
        self._stop, self._hang_up = asyncio.Event(), asyncio.Event()
        self.socket.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self.socket))
        listening.listen(128)
        listening.setblocking(False)
        found = os.lstat(self.socket)
        self._listening = Listener(listening, str(self.socket), (found.st_dev, found.st_ino), -1, ours_to_unlink=False)
        self.loop = Loop(self.clock, self._on_turn)
        self.loop.turns.fuse = fuse
        main = str(self.configuration.main)
        self.parts = parts.Parts.make(load(main, {}), (self._listening, None), Hardening(True, True), Here(main, {}), None)
        self._main = self.loop.create_task(agent.serve(self.parts, Notifier({})))
        self.run(0.2)

    def stop(self) -> None:
        """Stop the agent with SIGTERM."""
        assert self.loop is not None
        self._stop.set()
        for task in self._asked:  # whoever asked is cut off, as the front does
            task.cancel()
        for _ in range(200):
            if self._main.done() or self.parts is None:
                break
            self.run(0.1)
        if self.loop is not None:
            assert self._main.done(), "the agent does not stop"
            self._forget(killed=False)

    def crash(self) -> None:
        """Drop the agent where it is: nothing of it runs any more, and the kernel closes what it had open."""
        self.counts["crashes"] += 1
        self._forget(killed=self.crash_kills_workers)

    def _forget(self, *, killed: bool) -> None:
        assert self.loop is not None
        assert self.parts is not None
        assert self._workers is not None
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it will be pending for ever
        _LEFT.append((tasks, self._main, self.parts, self._listening, list(self.loop._ready)))  # type: ignore[attr-defined]
        self._workers.crash(killed=killed)
        for connection in self._connections:
            connection.close()
        for run in self.parts.runs:
            if run.pidfd >= 0:
                os.close(run.pidfd)
        if self.parts.files._place is not None:
            self.parts.files._place.close()
        self._listening.socket.close()
        self._connections, self._asked = [], []
        self.loop.close()
        self.central.forget()
        self.loop = self.parts = self._workers = None
        for client in self.processes.all:
            client.collect(self.clock.monotonic)
            client.hang_up()

    def run(self, seconds: float) -> None:
        """Let time pass, for the agent if there is one; it may crash meanwhile."""
        end = self.clock.monotonic + seconds
        if self.loop is not None:
            try:
                self.loop.run_for(seconds)
            except Crash:
                self.crash()
            else:
                if self._main.done() and not self._stop.is_set():
                    self._main.result()
                    self.defects.append("the agent ended by itself")
        self.clock.pass_(max(0.0, end - self.clock.monotonic))
        self.provider.passed()
        if not self.central.away:
            self.central.sweep()
        self.processes.collect(self.clock.monotonic)

    def do(self, act: Coroutine[Any, Any, Any]) -> asyncio.Task[Any] | None:
        """Have the agent begin something; its refusal is as good as its success."""
        if self.loop is None:
            act.close()
            return None
        task = self.loop.create_task(self._refusable(act))
        self._asked.append(task)
        return task

    async def _refusable(self, act: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await act
        except PrismVaultError as error:
            return error

    def burn(self, turns: int) -> None:
        """Have the agent crash after so many turns of its loop."""
        if self.loop is not None:
            self.loop.turns.fuse = turns

    def close(self) -> None:
        """End everything."""
        if self.loop is not None:
            self.crash_kills_workers = True
            self._forget(killed=True)
        self.processes.end()
        self.central.close()
        self._patches.close()
        for line in logs._open:
            line.close()
        os.close(self.log_file)
        shutil.rmtree(self.directory)
