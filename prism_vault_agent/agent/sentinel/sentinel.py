"""The agent's side of its sentinel: started before anything is given out, there as long as we are, and told of a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.agent.files.left import clear_left
from prism_vault_agent.agent.front.peer import open_again
from prism_vault_agent.agent.runs.runs import STOPPED
from prism_vault_agent.agent.sentinel import mark
from prism_vault_agent.agent.sentinel.after import Left
from prism_vault_agent.agent.sentinel.mark import Mark
from prism_vault_agent.errors import CannotCreate, Unavailable

if TYPE_CHECKING:
    from prism_vault_agent.agent.runs.run import Run
    from prism_vault_agent.agent.runs.runs import Runs
    from prism_vault_agent.config.settings import AgentSettings

log = structlog.get_logger()

# Between two starts at least: one that cannot be started, or ends at once, is not to take all of a processor.
PAUSE_SECONDS: Final = 0.5


class Sentinel:
    """What becomes of ``runs`` and files when the agent of ``settings`` ends, and of those of an agent that was killed."""

    def __init__(self, settings: AgentSettings, runs: Runs) -> None:
        """Nothing is started yet."""
        self._settings = settings
        self._runs = runs
        self._ours = mark.who(os.getpid())
        self._process: subprocess.Popen[bytes] | None = None
        self._before: int | None = None
        self._left: list[Run] = []

    @property
    def clears(self) -> bool:
        """Whether nothing of this agent is to stay."""
        return self._settings.on_end == "clear"

    @property
    def pid(self) -> int:
        """The process; 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    def take_over(self) -> str:
        """Clear the files of an agent of which nothing is to stay; return why its runs are over, empty where they are not.

        Its sentinel, if that has not begun, does nothing from now on. Raises ``Unavailable`` while that agent lives.
        """
        with mark.locked(self._settings.state):
            found = mark.read(self._settings.state)
            if found is None:
                return ""
            if (living := open_again(*found.agent)) is not None:
                os.close(living)
                told = f"another agent (pid {found.agent[0]}) keeps its state in {self._settings.state}"
                raise Unavailable(told, mend="stop it first, or set another [agent] state", reason="second_agent")
            self._before = open_again(*found.sentinel) if found.acting else None
            clear_left(self._settings.files, self._settings.helper, STOPPED)
            mark.write(self._settings.state, Mark(self._ours))
        return STOPPED

    def start(self, gone: str) -> None:
        """Have a sentinel where nothing is to stay; ``gone`` is what :meth:`take_over` said of the runs that we know now.

        Raises ``CannotCreate`` where there can be none.
        """
        self._left = list(self._runs) if gone else []
        if self.clears:
            try:
                self._start()
            except OSError as error:
                told = f"cannot start what takes back everything after us: {os.strerror(error.errno or 0)}"
                raise CannotCreate(told, mend='make room, or set [agent] on_end = "keep"') from None

    async def finish(self) -> None:
        """End what an agent before is not to leave, when its own sentinel no longer does."""
        if self._before is not None:
            await _ended(self._before)
        self._runs.end(self._left, STOPPED)
        await self._runs.settled()
        if not self.clears:  # what could not be ended was told; what we gave out may stay
            with mark.locked(self._settings.state):
                mark.drop(self._settings.state)

    async def run(self) -> None:
        """Have another one whenever it has ended."""
        while self.clears:
            if self._process is not None:
                if (pidfd := open_again(*mark.who(self._process.pid))) is not None:
                    await _ended(pidfd)
                self._leave()
                log.critical("sentinel.lost", message="what takes back everything after us has ended; another one is started")
            try:
                self._start()
            except OSError as error:
                log.critical("sentinel.not_started", errno=error.errno)
            await asyncio.sleep(PAUSE_SECONDS)

    def dismiss(self) -> None:
        """Say that nothing is left, so that it ends and has nothing to do."""
        with mark.locked(self._settings.state):
            mark.drop(self._settings.state)
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(b".")
                self._process.stdin.flush()
            self._leave()

    def _start(self) -> None:
        told = self._settings
        left = Left(told.state, told.files, told.helper, told.log_format, told.log_level)
        main = Path(__file__).with_name("__main__.py")
        # In a session of its own, so that what ends our process group does not end it too.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-E", str(main), json.dumps(dataclasses.asdict(left))],
            stdin=subprocess.PIPE, env={"PATH": os.defpath}, cwd="/", start_new_session=True,
        )  # fmt: skip
        with mark.locked(told.state):
            mark.write(told.state, Mark(self._ours, mark.who(self._process.pid)))

    def _leave(self) -> None:
        """Reap it."""
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process.wait()
            self._process = None


async def _ended(pidfd: int) -> None:
    """Wait until the process behind a descriptor has ended, and close that."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
