"""How far the helper goes: what root's configuration names, and nothing else. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prism_vault_agent.helper.wire import unit_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prism_vault_agent.config.settings import Settings
    from prism_vault_agent.scope import CallerRule

SIGNALS: Final = frozenset(
    (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2),
)
FIRST_PROCESS: Final = 1
# What systemctl(1) calls it; try-: what does not run is left alone.
VERBS: Final = {"reload": "reload", "restart": "try-restart", "reload-or-restart": "try-reload-or-restart", "stop": "stop"}


@dataclass(frozen=True, slots=True)
class Process:
    """A process as the kernel tells it: all of its user numbers (real, effective, saved, file system), and its groups."""

    pid: int
    uids: frozenset[int]
    groups: frozenset[int]
    unit: str | None = None
    container: str | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the helper may do for the agent of ``uid`` and ``gid``, whose files are in ``directory``.

    ``owners`` are (user, group, mode) of every file that a scope has; ``callers`` the rules of every scope;
    ``units`` each unit that a ``notify`` names, each caller's that a rotation may restart, and each that is stopped when its
    credentials are taken back, with what is done to it, by what stands for both (see ``wire.unit_of``).
    """

    uid: int
    gid: int
    directory: str
    owners: frozenset[tuple[int, int, int]]
    callers: tuple[CallerRule, ...]
    units: Mapping[tuple[int, int], tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings, uid: int, gid: int) -> Bounds:
        """Return the bounds that a configuration sets for the agent of this user."""
        notifies = [notify for scope in settings.scopes.values() for notify in scope.notify]
        told = [(notify.target[0], notify.how) for notify in notifies if notify.kind == "unit"]
        told += [(unit, "restart") for scope in settings.scopes.values() for unit in scope.restarts]
        told += [(unit, "stop") for scope in settings.scopes.values() if scope.credentials for unit in scope.restartable]
        files = [file for scope in settings.scopes.values() for file in scope.files]
        return cls(
            uid=uid,
            gid=gid,
            directory=settings.agent.files,
            owners=frozenset((file.uid, file.gid, file.mode) for file in files),
            callers=tuple(rule for scope in settings.scopes.values() for rule in scope.callers),
            units={unit_of(unit, how): (unit, how) for unit, how in told},
        )

    def why_not_given(self, uid: int, gid: int, mode: int) -> str:
        """Return why a file of the agent's may not be given to these with this mode; empty where a scope's file names all."""
        if (uid, gid, mode) in self.owners:
            return ""
        return f"no scope has a file of user {uid} and group {gid} with mode {mode:04o}"

    def why_not_ended(self, process: Process, number: int, *, never: frozenset[int]) -> str:
        """Return why a process may not get a signal; empty where it may. ``never`` are processes that may not in any case.

        A rule's program is not looked at, which an agent that is not root does not see either; a rule of it alone covers nobody.
        """
        if number not in SIGNALS:
            return f"signal {number} is none that the helper sends"
        if process.pid in never | {FIRST_PROCESS} or process.uids == {self.uid}:
            return f"process {process.pid} is none that the helper signals"
        covering = [rule for rule in self.callers if _covers(rule, process)]
        if 0 in process.uids and not any(rule.uid == 0 for rule in covering):
            return f"process {process.pid} is root's, and no scope's caller that covers it names root"
        if not covering:
            return f"process {process.pid} is covered by no user, group, unit or container that a scope's caller names"
        return ""


def _covers(rule: CallerRule, process: Process) -> bool:
    """Tell whether all that a rule names, beside a program, is the process's, and that is something."""
    named = (rule.uid, rule.gid, rule.unit, rule.container)
    return (
        any(each is not None for each in named)
        and (rule.uid is None or process.uids <= {rule.uid})
        and (rule.gid is None or rule.gid in process.groups)
        and (rule.unit is None or rule.unit == process.unit)
        and (rule.container is None or (process.container or "").startswith(rule.container))
    )
