"""The agent as a whole: what it is made of, what runs, and how it stops."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent import log as logs
from prism_vault_agent.agent.consumers import Consumers
from prism_vault_agent.agent.credential import credential_of
from prism_vault_agent.agent.file_requests import FileRequests
from prism_vault_agent.agent.files import Files
from prism_vault_agent.agent.front import Front
from prism_vault_agent.agent.listener import Listener, listen
from prism_vault_agent.agent.notify import Notifier
from prism_vault_agent.agent.release import Mounts, Reading
from prism_vault_agent.agent.reload import Reload
from prism_vault_agent.agent.renders import FileRenders
from prism_vault_agent.agent.runs import Runs
from prism_vault_agent.agent.session import Session
from prism_vault_agent.agent.signals import Signals
from prism_vault_agent.agent.standings import Standings
from prism_vault_agent.agent.status import Status
from prism_vault_agent.agent.watch import Watch
from prism_vault_agent.agent.workers import Workers
from prism_vault_agent.audit.central_log import CentralLog
from prism_vault_agent.audit.event import Chain, new_id
from prism_vault_agent.audit.held import WitnessFiles
from prism_vault_agent.audit.http import CentralHttp
from prism_vault_agent.audit.journal import Journal
from prism_vault_agent.audit.outbox import Outbox
from prism_vault_agent.audit.replicas import Replicas
from prism_vault_agent.audit.stream import SignalStream
from prism_vault_agent.audit.witness import Unwitnessed, Witness
from prism_vault_agent.config.load import load
from prism_vault_agent.errors import CannotCreate, PrismVaultError
from prism_vault_agent.process import Hardening, harden, require_proc
from prism_vault_agent.proof.keys import VerifyingKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from prism_vault_agent.agent.sidecar import Sidecar
    from prism_vault_agent.config.settings import Settings

log = structlog.get_logger()

FLUSH_SECONDS: Final = 2.0
HEARTBEAT_SECONDS: Final = 30.0


def run(config: str | None, sidecar: Sidecar | None = None) -> int:
    """Be the agent until SIGTERM or SIGINT, for ``sidecar`` too; return the exit status. Raises what keeps it from serving."""
    settings = load(config, os.environ)
    notifier = Notifier(os.environ)
    logs.configure(settings.agent.log_format, settings.agent.log_level)
    require_proc()
    hardening = harden("prism-vault agent" + (f" --config {config}" if config else ""))
    # A connection takes two descriptors and a run one; the usual soft limit of 1024 is there for users of select(2).
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    _make_state(settings.agent.state)
    listener = listen(settings.agent, os.environ)
    try:
        asyncio.run(serve(settings, listener, notifier, hardening, config, sidecar=sidecar))
    except BaseExceptionGroup as group:
        ours = group.subgroup(PrismVaultError)
        if ours is None:
            raise
        raise _first(ours) from None
    finally:
        listener.close()
    return 0


async def serve(
    settings: Settings, listener: Listener, notifier: Notifier, hardening: Hardening, config: str | None,
    *, sidecar: Sidecar | None,
) -> None:  # fmt: skip
    """Run the agent's loops until a signal, then stop in order: no new request, the log flushed, the token revoked."""
    # The parts.
    workers = Workers(settings.vault, settings.agent.workers)
    session = Session(workers, settings.vault.auth)
    replicas, credential = Replicas(settings.central), credential_of(settings.central, session)
    proving = CentralHttp(replicas, credential, settings.central.timeout)
    witness = _witness(settings, proving)
    central = CentralHttp(replicas, credential, settings.central.timeout, witness.heard)
    journal = Journal(str(Path(settings.agent.state) / "journal"))
    chain = Chain(settings.agent.host, new_id())
    outbox = Outbox(chain, central.post, journal)
    audit = CentralLog(outbox, settings.central.timeout, witness)
    witness.note = audit.note
    runs = Runs(audit.clear, settings.agent.helper)
    status = Status(session, outbox, witness, workers, runs, listener, hardening)
    consumers = Consumers(lambda: front.settings, audit.note, Standings(str(Path(settings.agent.state) / "notify")))
    files = status.files = Files(settings.agent, audit.clear, audit.note, consumers)
    reading = Reading(workers, session, Mounts())
    renders = FileRenders(lambda: front.settings, audit, reading, files)
    requests = FileRequests(files, renders, status)
    front = Front(settings, audit=audit, reading=reading, runs=runs, files=requests, status=status)
    watch = Watch(reading, runs, files, renders, settings.vault.poll)
    signals = Signals(
        SignalStream(Replicas(settings.central), credential, settings.central.timeout), audit, runs, files, watch.now,
        host=chain.host, epoch=chain.epoch, path=str(Path(settings.agent.state) / "signals"),
    )  # fmt: skip
    status.signals, status.sidecar = signals, sidecar
    reload = Reload(
        lambda: load(config, os.environ), front=front, runs=runs, files=files, renders=renders, status=status, note=audit.note
    )  # fmt: skip
    # What an earlier agent could not tell central.
    audit.resume(await journal.load())
    reading.mounts.known.update(files.start(settings.scopes))
    stop, hang_up = _signals()
    # The loops. Those of `background` outlive the others, because stopping needs them.
    async with asyncio.TaskGroup() as background:
        lasting = [background.create_task(workers.run()), background.create_task(outbox.run())]
        try:
            async with asyncio.TaskGroup() as group:
                lasting_until_stop = (
                    session.run(), session.probe(), front.serve(listener.socket), watch.run(), renders.run(), signals.run(),
                    reload.watch({os.path.dirname(file) for file in settings.files}), witness.run(), consumers.run(),
                    _hang_ups(hang_up, reload), _heartbeat(notifier, status), *([sidecar.run(requests)] if sidecar else []),
                )  # fmt: skip
                loops = [group.create_task(each) for each in lasting_until_stop]
                notifier.tell(READY="1", STATUS=status.line())
                log.info("agent.serving", socket=listener.path, scopes=sorted(settings.scopes), host=settings.agent.host)
                await stop.wait()
                notifier.tell(STOPPING="1")
                log.info("agent.stopping")
                for task in loops:
                    task.cancel()
        finally:
            await _last(sidecar, files, outbox, (witness.close, session.revoke, central.close, proving.close))
            for task in lasting:
                task.cancel()


async def _last(sidecar: Sidecar | None, files: Files, outbox: Outbox, closings: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Take the files of a sidecar away, tell central what is left to tell, and close what is open."""
    if sidecar is not None:
        sidecar.left = files.end("stopped")
    await outbox.flush(FLUSH_SECONDS)
    for closing in closings:
        await closing()


def _witness(settings: Settings, proving: CentralHttp) -> Witness | Unwitnessed:
    """Return the witness that the configuration asks for."""
    if not settings.central.log_keys:
        return Unwitnessed()
    keys = [VerifyingKey.parse(text) for text in settings.central.log_keys]
    return Witness(keys, proving.get, WitnessFiles(settings.agent.state, keys[0].name))


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Return what SIGTERM and SIGINT set, and what SIGHUP sets."""
    loop = asyncio.get_running_loop()
    stop, hang_up = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up.set)
    return stop, hang_up


async def _hang_ups(hang_up: asyncio.Event, reload: Reload) -> None:
    """Reload at each SIGHUP."""
    while True:
        await hang_up.wait()
        hang_up.clear()
        await reload.now()


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
