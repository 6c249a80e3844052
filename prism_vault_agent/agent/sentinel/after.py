"""What is done after an agent has ended of which nothing is to stay, by its sentinel or by ``agent --clear``.

Files at once, processes within their grace. The journals stay as they are: the next agent tells central, and gives leases back.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import select
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent import log as logs
from prism_vault_agent.agent.files.left import clear_left
from prism_vault_agent.agent.front.peer import open_again
from prism_vault_agent.agent.notify import Notifier
from prism_vault_agent.agent.runs.adoption import adopt
from prism_vault_agent.agent.runs.records import RunRecords
from prism_vault_agent.agent.runs.runs import STOPPED, Runs
from prism_vault_agent.agent.sentinel import mark
from prism_vault_agent.capabilities import OF_AGENT, keep
from prism_vault_agent.config.apart import Configuration
from prism_vault_agent.errors import CannotCreate, Unavailable
from prism_vault_agent.process import require_proc

if TYPE_CHECKING:
    from prism_vault_agent.agent.sentinel.mark import Who
    from prism_vault_agent.config.settings import AgentSettings

log = structlog.get_logger()

# What clearing may take beyond the longest grace: killing, and a machine under load.
MARGIN_SECONDS: Final = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Left:
    """Where an agent kept what it gave out, and how it logged."""

    state: str
    files: str
    helper: str
    log_format: str
    log_level: str


def sentinel(told: str) -> int:
    """Be the sentinel of an agent that has ended, by this JSON of a :class:`Left`; return the exit status."""
    left = Left(**json.loads(told))
    logs.configure(left.log_format, left.log_level)
    ours, found = mark.who(os.getpid()), mark.read(left.state)
    if found is not None and found.sentinel == ours and (agent := open_again(*found.agent)) is not None:
        _wait(agent)  # its descriptors are closed one by one: the lock on its files may come after what we have read
    asyncio.run(take_back(left, ours, Notifier({})))
    return 0


def clear(config: str | None) -> int:
    """Take back what the agent of this configuration left, if nothing is to stay; return when that is done.

    Where its sentinel does it that is waited for. Raises ``Unavailable`` while the agent lives, ``CannotCreate`` for a state
    directory that is not ours.
    """
    notifier = Notifier(os.environ)
    settings = Configuration(config, os.environ).load().agent
    logs.configure(settings.log_format, settings.log_level)
    require_proc()
    if os.geteuid() == 0:
        keep(OF_AGENT)
    try:
        return _clear(settings, notifier)
    except OSError as error:
        told = f"cannot see to {settings.state}: {os.strerror(error.errno or 0)}"
        raise CannotCreate(told, mend="run it as the agent's user") from None


def _clear(settings: AgentSettings, notifier: Notifier) -> int:
    ours = mark.who(os.getpid())
    while os.path.isdir(settings.state):
        with mark.locked(settings.state):
            found = mark.read(settings.state)
            if found is None:
                return 0
            if (living := open_again(*found.agent)) is not None:
                os.close(living)
                raise Unavailable(f"the agent lives (pid {found.agent[0]})", mend="stop it first", reason="second_agent")
            other = open_again(*found.sentinel)
            if other is None:
                mark.write(settings.state, dataclasses.replace(found, sentinel=ours))
                break
        _wait(other)
    left = Left(settings.state, settings.files, settings.helper, settings.log_format, settings.log_level)
    asyncio.run(take_back(left, ours, notifier))
    return 0


async def take_back(left: Left, ours: Who, notifier: Notifier) -> None:
    """Clear the files and end the runs that are left, unless an agent has come meanwhile, which does that itself."""
    runs = Runs(lambda *_: None, RunRecords(os.path.join(left.state, "runs"), {}), left.helper)
    with mark.locked(left.state):
        found = mark.read(left.state)
        if found is None or found.sentinel != ours:
            return
        log.warning("agent.gone", pid=found.agent[0], message="nothing of it stays: on_end is clear")
        mark.write(left.state, dataclasses.replace(found, acting=True))
        clear_left(left.files, left.helper, STOPPED)
        adopt(runs, {}, lambda *_: None, gone=STOPPED)
    notifier.tell(EXTEND_TIMEOUT_USEC=longest(runs))
    runs.end(runs, STOPPED)
    await runs.settled()
    log.info("agent.cleared", runs_left=len(list(runs)))


def longest(runs: Runs) -> str:
    """Return how many microseconds it takes at most to end these runs (EXTEND_TIMEOUT_USEC= of sd_notify(3))."""
    graces = [min(scope.grace for scope in run.render.reservation.grant.scopes) for run in runs]
    return str(int((max(graces, default=0.0) + MARGIN_SECONDS) * 1_000_000))


def _wait(pidfd: int) -> None:
    """Wait until a process has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll()
    os.close(pidfd)
