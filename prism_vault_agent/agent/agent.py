"""The agent as a process: how it starts, which loops run, and how it stops. What it is made of is in ``parts.py``."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent import log as logs
from prism_vault_agent.agent.front.listener import listen
from prism_vault_agent.agent.notify import Notifier
from prism_vault_agent.agent.parts import Parts
from prism_vault_agent.agent.reload import tell_relays
from prism_vault_agent.agent.sentinel.after import longest
from prism_vault_agent.agent.status import Status
from prism_vault_agent.capabilities import OF_AGENT, keep
from prism_vault_agent.config.apart import Configuration
from prism_vault_agent.errors import CannotCreate, PrismVaultError
from prism_vault_agent.process import harden, require_proc

if TYPE_CHECKING:
    from prism_vault_agent.agent.files.sidecar import Sidecar

log = structlog.get_logger()

HEARTBEAT_SECONDS: Final = 30.0
# So many more objects that could be in a cycle than there were at the last look for garbage are the next one.
GARBAGE: Final = 10_000


def run(config: str | None, sidecar: Sidecar | None = None) -> int:
    """Be the agent until SIGTERM or SIGINT, for ``sidecar`` too; return the exit status. Raises what keeps it from serving."""
    configuration = Configuration(config, os.environ)
    settings = configuration.load()
    notifier = Notifier(os.environ)
    logs.configure(settings.agent.log_format, settings.agent.log_level)
    require_proc()
    hardening = harden("prism-vault agent" + (f" --config {config}" if config else ""))
    if os.geteuid() == 0:
        keep(OF_AGENT)
    # A connection takes two descriptors and a run one; the usual soft limit of 1024 is there for users of select(2).
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    _make_state(settings.agent.state)
    tell_relays(settings)
    listeners = listen(settings.agent, os.environ)
    try:
        asyncio.run(serve(Parts.make(settings, listeners, hardening, configuration, sidecar), notifier))
    except BaseExceptionGroup as group:
        ours = group.subgroup(PrismVaultError)
        if ours is None:
            raise
        raise _first(ours) from None
    finally:
        for each in listeners:
            if each is not None:
                each.close()
    return 0


async def serve(parts: Parts, notifier: Notifier) -> None:
    """Run the agent's loops until a signal, then stop in order: no new request, the log flushed, the token revoked."""
    parts.credentials.store = notifier.store
    await parts.take_over()
    _settle()
    stop, hang_up = _signals()
    async with asyncio.TaskGroup() as background:
        lasting = [background.create_task(each) for each in parts.lasting()]
        try:
            async with asyncio.TaskGroup() as group:
                ours = _hang_ups(hang_up, parts), _heartbeat(notifier, parts.status)
                loops = [group.create_task(each) for each in (*parts.serving(), *ours)]
                notifier.tell(READY="1", STATUS=parts.status.line())
                settings = parts.settings
                log.info(
                    "agent.serving", socket=parts.listeners[0].path, scopes=sorted(settings.scopes), host=settings.agent.host
                )
                await stop.wait()
                notifier.tell(STOPPING="1", **({"EXTEND_TIMEOUT_USEC": longest(parts.runs)} if parts.sentinel.clears else {}))
                log.info("agent.stopping")
                for task in loops:
                    task.cancel()
        finally:
            await parts.stop()
            for task in lasting:
                task.cancel()


def _settle() -> None:
    """Have what is there by now, and stays, looked at by no collection of garbage again, and the others be rarer.

    Hardly anything here is in a cycle, and with many scopes each full collection looks at all of them for nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Return what SIGTERM and SIGINT set, and what SIGHUP sets."""
    loop = asyncio.get_running_loop()
    stop, hang_up = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up.set)
    return stop, hang_up


async def _hang_ups(hang_up: asyncio.Event, parts: Parts) -> None:
    """Reload at each SIGHUP, and look for newer versions of all that is out there."""
    while True:
        await hang_up.wait()
        hang_up.clear()
        await parts.reload.now()
        parts.watch.now()


async def _heartbeat(notifier: Notifier, status: Status) -> None:
    """Look after the socket, and tell systemd that the loop turns: twice in each watchdog period."""
    ours = True
    while True:
        await asyncio.sleep(min(HEARTBEAT_SECONDS, (notifier.watchdog_seconds or HEARTBEAT_SECONDS * 2) / 2))
        if ours and not (ours := status.listener.ours()):
            log.critical(
                "socket.lost",
                path=status.listener.path,
                message="its path leads to another socket or to none; restart the agent",
            )
        notifier.tell(WATCHDOG="1", STATUS=status.line())


def _make_state(directory: str) -> None:
    """Make the directory of the journal, ours alone."""
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        os.chmod(directory, 0o700)
    except OSError as error:
        raise CannotCreate(
            f"cannot make {directory}: {error.strerror}", mend="set [agent] state to a directory of yours"
        ) from None


def _first(group: BaseExceptionGroup[PrismVaultError]) -> PrismVaultError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, PrismVaultError)
    return error
