"""Does what central tells all hosts: takes back what a revocation means, looks for newer versions at a rotation, and answers.

Ending waits for nobody: not for central, not for the provider. An answer is sent durably; the position in the stream moves on
only when central has it, so that after a restart whatever was not answered is told again.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from prism_vault_agent.agent.kept import keep
from prism_vault_agent.agent.outdated import unversioned
from prism_vault_agent.audit.answers import of_central
from prism_vault_agent.audit.event import SIGNAL_DONE, SIGNAL_RECEIVED
from prism_vault_agent.audit.stream import Ahead
from prism_vault_agent.audit.target import Target
from prism_vault_agent.errors import AuditUnavailable, PrismVaultError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from prism_vault_agent.agent.files.files import Files
    from prism_vault_agent.agent.files.rendered import Rendered
    from prism_vault_agent.agent.runs.rotation import Rotation
    from prism_vault_agent.agent.runs.run import Run
    from prism_vault_agent.agent.runs.runs import Runs
    from prism_vault_agent.audit.central_log import CentralLog
    from prism_vault_agent.audit.stream import Heard, SignalStream

log = structlog.get_logger()

PAUSE_FIRST: Final = 0.5
PAUSE_LONGEST: Final = 15.0
# A stream that ends sooner is no sign that all is well: the next attempt waits longer, and the same fault is not told again.
STEADY_SECONDS: Final = 2.0
# Within so many seconds all hosts that a rotation concerns ask the provider, each at a time of its own.
SPREAD: Final = 0.1


class Signals:
    """Follows the stream. ``connected`` and ``last`` (the newest id heard) are what ``status`` shows."""

    def __init__(
        self,
        stream: SignalStream,
        audit: CentralLog,
        runs: Runs,
        files: Files,
        look: Callable[[Iterable[Run | Rendered]], None],
        *,
        rotation: Rotation,
        host: str,
        epoch: str,
        path: str,
    ) -> None:
        """Act on ``runs`` and ``files`` of ``host``, ``look`` for newer versions of some, answer through ``audit``.

        The position is kept in ``path``.
        """
        self.connected = False
        self.last_error = ""
        self._stream = stream
        self._audit = audit
        self._runs = runs
        self._files = files
        self._look = look
        self._rotation = rotation
        self._host = host
        self._epoch = epoch
        self._path = path
        self._pause = PAUSE_FIRST
        self._told = ""
        self._since = math.inf  # when the present stream has first said something
        self._kept = self.last = _kept(path)
        self._unanswered: set[int] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Follow until cancelled; a stream that ends or fails is followed anew from where it was."""
        while True:
            self._since = math.inf
            try:
                await self._stream.follow(self.last, self._epoch, self._heard)
            except Ahead as error:
                self.last_error = "central does not know signals that it has sent before: was its log replaced by a backup?"
                log.critical("signals.ahead", ours=self.last, central=error.last, message=self.last_error)
                self.last = error.last
                self._unanswered.clear()  # those ids are other signals now
            except PrismVaultError as error:
                if self._steady or error.message != self._told:
                    log.warning("signals.away", reason=error.reason, message=error.message, **of_central(error))
                self.last_error = self._told = error.message
            except Exception as error:  # noqa: BLE001 - a defect here must end neither the agent nor the next attempt
                self.last_error = type(error).__name__
                log.error("signals.failed", error=type(error).__name__)
            self.connected = False
            if self._steady:
                self._pause = PAUSE_FIRST
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter is no secret
            self._pause = min(self._pause * 2, PAUSE_LONGEST)

    @property
    def _steady(self) -> bool:
        return time.monotonic() - self._since > STEADY_SECONDS

    def _heard(self, heard: Heard) -> None:
        """Act on what the stream says, without waiting. Raises ``AuditUnavailable`` where it says what it has said before."""
        if heard.kind == "name":
            self._audit.name.heard(str(heard.data.get("reason", "")), str(heard.data.get("message", "")))
            return
        if self.last is not None and heard.id < self.last + bool(heard.kind):
            told = f"central's stream of signals goes back, to {heard.id} after {self.last}"
            raise AuditUnavailable(told, mend="check the URL of [central]")
        self.connected, self.last_error = True, ""
        self._since = min(self._since, time.monotonic())
        self.last = heard.id
        if heard.kind in ("rotation", "revocation") and heard.id not in self._unanswered:
            self._act(heard)
        self._keep()

    def _act(self, heard: Heard) -> None:
        self._unanswered.add(heard.id)
        try:
            target = Target.parse(heard.data["target"], heard.data["projects"])
        except (ValueError, KeyError, TypeError, AttributeError):
            log.critical("signal.not_understood", signal=heard.id, kind=heard.kind, message="update this agent")
            self._answer(heard.id, failed=1, message="this agent does not understand the signal")
            return
        if heard.kind == "rotation":
            runs, files = self._runs.meant(self._host, target), self._files.meant(self._host, target)
            log.info("signal.rotation", signal=heard.id, target=target.words(), runs=len(runs), files=len(files))
            for each in files:  # where there are no versions no newer one can be found: it is read anew
                each.outdated |= unversioned(each.render, f"signal {heard.id}")
                each.retry_at = 0.0
            for run in runs:
                self._rotation.ordered(run)
            if runs or files:
                wait = random.uniform(0.0, SPREAD)  # noqa: S311 - as above
                asyncio.get_running_loop().call_later(wait, lambda: self._look([*runs, *files]))
            self._answer(heard.id, found=len(runs) + len(files))
            return
        emergency = heard.data.get("emergency") is True
        cleared, kept = self._files.revoke(self._host, target, heard.id)
        runs = self._runs.revoked(self._host, target, heard.id, now=emergency)
        told = {"runs": len(runs), "files": cleared, "emergency": emergency}
        log.warning("signal.revocation", signal=heard.id, target=target.words(), **told)
        if not runs:
            self._answer(heard.id, found=cleared, ended=cleared - kept, failed=kept)
            return
        self._audit.answer(heard.id, SIGNAL_RECEIVED, {"found": len(runs) + cleared})
        task = asyncio.create_task(self._end(heard.id, runs, cleared, kept, now=emergency, paths=target.paths))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(
        self, number: int, runs: list[Run], cleared: int, kept: int, *, now: bool, paths: Collection[str] | None
    ) -> None:
        ending = (self._runs.revoke(run, "revoked", now=now, paths=paths) for run in runs)
        ends = await asyncio.gather(*ending, return_exceptions=True)
        failed = sum(isinstance(end, BaseException) or "why" in end for end in ends)
        found, failed = len(runs) + cleared, failed + kept
        self._answer(number, found=found, ended=found - failed, failed=failed)

    def _answer(self, number: int, *, found: int = 0, ended: int = 0, failed: int = 0, message: str = "") -> None:
        counts = {"found": found, "ended": ended, "failed": failed}
        self._audit.answer(number, SIGNAL_DONE, counts, message=message, then=lambda _answer: self._answered(number))

    def _answered(self, number: int) -> None:
        """Take note that central has our answer."""
        self._unanswered.discard(number)
        self._keep()

    def _keep(self) -> None:
        """Keep how far everything is answered. Where the disk does not take it, signals are told and answered again."""
        if self.last is None:
            return
        position = min(self._unanswered, default=self.last + 1) - 1
        if position == self._kept:
            return
        try:
            keep(self._path, f"{position}\n")
            self._kept = position
        except OSError as error:
            log.error("signals.unkept", errno=error.errno, message="after a restart, signals are answered again")

    def describe(self) -> dict[str, Any]:
        """Return what ``status`` shows."""
        return {
            "connected": self.connected,
            "last": self.last,
            "unanswered": len(self._unanswered),
            "last_error": self.last_error,
        }


def _kept(path: str) -> int | None:
    try:
        with open(path) as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return None
