"""Ending a run: SIGTERM to all of its tree, a grace, SIGKILL, and what is told where something of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any, Final

import structlog

from prism_vault_agent.agent.runs.signalling import signal_all
from prism_vault_agent.errors import CannotCreate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prism_vault_agent.agent.runs.run import Run
    from prism_vault_agent.agent.runs.signalling import Refused
    from prism_vault_agent.agent.trees.tree import Tree

log = structlog.get_logger()

NOT_OURS: Final = "the agent may not signal another user's process"
# Between two looks at a tree that is being ended, and how long what may not be signalled is waited for.
LOOK_SECONDS: Final = 0.02
LONGEST_LOOK: Final = 0.5
REFUSED_SECONDS: Final = 1.0


async def end(
    run: Run, why: str, *, now: bool, helper: str, look: Callable[[Run], None], first: signal.Signals = signal.SIGTERM
) -> dict[str, Any]:
    """End a run: ``first``, then SIGKILL after its scopes' shortest grace, or ``now``; ``look`` finds out whether it is over.

    Return how it ended, or why it could not be.
    """
    grant = run.render.reservation.grant
    grace = 0.0 if now else min(scope.grace for scope in grant.scopes)
    if run.ended.is_set():
        return {"pid": run.pid, "how": run.how}
    run.why = why
    refused: Refused | None = None
    stays = ""
    try:
        if not now:
            with contextlib.suppress(ProcessLookupError):
                await signal_all(run.tree.descriptors(), first, helper)
            run.how = first.name
            await _over(run, grace, look)
        if not run.ended.is_set():
            refused = await kill(run.tree, helper)
            run.how = "SIGKILL"
        patience = REFUSED_SECONDS if refused else run.patience
        if not await _over(run, patience, look, helper) and (stays := await _kept(run, look, helper)):
            raise TimeoutError
    except (PermissionError, CannotCreate, TimeoutError) as error:
        run.why, run.signal = "exited", None
        error = refused if refused is not None and isinstance(error, TimeoutError) else error
        why = stays if isinstance(error, TimeoutError) else NOT_OURS
        why += f": {error.line()}" if isinstance(error, CannotCreate) else ""
        log.error("revoke.not_permitted", pid=run.pid, uid=grant.caller.uid, why=why)
        return {"pid": run.pid, "why": why}
    return {"pid": run.pid, "how": run.how}


async def kill(tree: Tree, helper: str) -> Refused | None:
    """Kill all of a tree; return why a process of it was not, where others were. Raises ``PermissionError``, ``CannotCreate``.

    Where the kernel does not do it they are stopped first, until there are no more of them: who is stopped forks no more.
    """
    if await asyncio.to_thread(tree.kill):
        return None
    counted = _Counted(tree)
    with contextlib.suppress(ProcessLookupError):
        while counted.grew():
            with contextlib.suppress(PermissionError, CannotCreate):
                await signal_all(counted.descriptors(), signal.SIGSTOP, helper)
        return await signal_all(tree.descriptors(), signal.SIGKILL, helper)
    return None


async def _kept(run: Run, look: Callable[[Run], None], helper: str) -> str:
    """Have who keeps a run without a process of it let it go; return why it is not over then."""
    if why := await run.stop(helper):
        return why
    run.how = "stopped"
    return "" if await _over(run, REFUSED_SECONDS, look) else run.stays


class _Counted:
    """Counts the processes of a tree at each look."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._before, self._count = -2, -1

    def grew(self) -> bool:
        return self._count != self._before

    def descriptors(self) -> Iterator[int]:
        self._before, self._count = self._count, 0
        for descriptor in self._tree.descriptors():
            self._count += 1
            yield descriptor


async def _over(run: Run, seconds: float | None, look: Callable[[Run], None], killing: str | None = None) -> bool:
    """Wait ``seconds`` at most until a run is over, and tell whether it is; ``killing`` again what was forked meanwhile."""
    pause = LOOK_SECONDS
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                look(run)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await run.ended.wait()
                if run.ended.is_set():
                    return True
                if killing is not None:
                    await kill(run.tree, killing)
                pause = min(2 * pause, LONGEST_LOOK)
    return run.ended.is_set()
