"""The socket that systemd asks for the credentials of units (``LoadCredential=`` of systemd.exec(5)).

systemd binds an address that names the unit and the credential, connects, reads to the end, and starts the unit. An end without
data is an empty credential to it, and so is an agent that fails: only more than it takes of one, 1 MiB, keeps the unit from
starting. So that is how the agent says no.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.agent.delivery import written
from prism_vault_agent.agent.front.listener import LEFT, Listener
from prism_vault_agent.agent.front.peer import Peer, PeerGone, attest
from prism_vault_agent.agent.release import Reading, WorkerProvider
from prism_vault_agent.agent.runs.unit import UnitRun, asked, holding
from prism_vault_agent.dialects.contents import LARGEST_FILE
from prism_vault_agent.errors import Denied, PrismVaultError, Unavailable
from prism_vault_agent.model import Request
from prism_vault_agent.policy.credentials import credential_of
from prism_vault_agent.policy.decide import Denial
from prism_vault_agent.render import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prism_vault_agent.agent.runs.records import RunRecords
    from prism_vault_agent.agent.runs.runs import Runs
    from prism_vault_agent.agent.trees.unit import Holding
    from prism_vault_agent.config.settings import Settings
    from prism_vault_agent.model import Caller, Receipt, Render
    from prism_vault_agent.render import AuditLog
    from prism_vault_agent.scope import Credential, Scope
    from prism_vault_agent.worker.messages import Message

log = structlog.get_logger()

# Less than systemd gives a unit to start (90 s); who is refused by then is told so.
SECONDS: Final = 30.0
REFUSAL_SECONDS: Final = 30.0
STOPPING_SECONDS: Final = 5.0
# Others wait in the socket's queue: a machine that boots has more units than workers.
AT_ONCE: Final = 32
ACCEPT_PAUSE: Final = 0.1
LOOK_SECONDS: Final = 1.0
TOO_MUCH: Final = LARGEST_FILE + 1


class Credentials:
    """Gives systemd the credentials of units. ``settings`` returns what the configuration says now."""

    def __init__(self, settings: Callable[[], Settings], audit: AuditLog, reading: Reading, runs: Runs) -> None:
        """Render with these parts."""
        self._settings = settings
        self._audit = audit
        self._reading = reading
        self._runs = runs
        # Has systemd keep a connection for the next agent: whatever ends this one, a unit does not take its end for an answer.
        self.store: Callable[[socket.socket, str], None] = lambda _connection, _name: None

    async def serve(self, listener: Listener | None) -> None:
        """Answer every connection, and look after the units that were given something, until cancelled."""
        if listener is None:
            return
        loop = asyncio.get_running_loop()
        few = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as answers:
            answers.create_task(self._look())
            for connection in listener.left:
                answers.create_task(self._give_up(connection))
            while True:
                await few.acquire()
                try:
                    connection, _ = await loop.sock_accept(listener.socket)
                except OSError as error:
                    log.error("accept.failed", errno=error.errno)
                    few.release()
                    await asyncio.sleep(ACCEPT_PAUSE)
                    continue
                self.store(connection, LEFT)
                answers.create_task(self._answer(connection)).add_done_callback(lambda _: few.release())

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._runs.look()

    async def _answer(self, connection: socket.socket) -> None:
        """Give a credential, or keep the unit from starting; nothing that happens on a connection ends the agent."""
        with ended(connection):
            try:
                await self._give(connection)
            except PrismVaultError as error:
                log.warning("credential.refused", address=_address(connection), reason=error.reason, message=error.line())
                await refuse(connection)
            except Exception as error:  # noqa: BLE001 - one connection's defect; its type is told, its text may hold anything
                log.error("credential.failed", address=_address(connection), error=type(error).__name__)
                await refuse(connection)
            except asyncio.CancelledError:
                await refuse(connection, STOPPING_SECONDS)
                raise

    async def _give_up(self, connection: socket.socket) -> None:
        """Refuse who asked an agent that was killed: nobody knows what that one has written already."""
        with ended(connection):
            connection.setblocking(False)
            log.warning("credential.refused", address=_address(connection), reason="agent_lost", message="the agent was killed")
            await refuse(connection)

    async def _give(self, connection: socket.socket) -> None:
        since = self._runs.revocations
        peer = attest(connection)
        try:
            caller = self._caller(peer)
            scope, credential, held = self._found(connection, peer, caller)
            deadline = time.monotonic() + SECONDS
            provider = WorkerProvider(self._reading, lambda _: _job(credential), deadline)
            sink = CredentialSink(connection, peer, caller, deadline, self._runs.records, held)
            timed = self._reading.metrics.timed("credential", self._audit, provider, sink)
            try:
                async with asyncio.timeout_at(deadline):
                    done = await render(
                        {scope.name: scope}, caller, Request((scope.name,), mode="credential"),
                        audit=timed, provider=timed, sink=timed,
                    )  # fmt: skip
            except TimeoutError:
                told = f"it took longer than {SECONDS:.0f} s"
                raise Unavailable(told, mend="see prism-vault status", reason="timeout", scope=scope.name) from None
            log.info("credential.released", audit_id=done.reservation.audit_id, unit=held.unit, credential=credential.name)
            run = self._runs.begin(UnitRun(done, -1, time.time(), held), since)
            self._runs.judge(self._settings().scopes, [run])  # which may be others since this render began
        finally:
            peer.close()

    def _found(self, connection: socket.socket, peer: Peer, caller: Caller) -> tuple[Scope, Credential, Holding]:
        """Return what systemd asks for, and for which start of which unit; a denial is recorded and raised.

        Any process can bind such an address. systemd's is root's and in the unit already; who is both is entitled anyway.
        """
        try:
            unit, name = asked(connection)
            if caller.uid != 0 or caller.unit != unit:
                what = f"uid {caller.uid} in {caller.unit or 'no unit'} asks as systemd for {unit}"
                raise Denied(what, mend="use LoadCredential= in a unit", reason="not_systemd")
            held = holding(unit, peer.pid)
            found = credential_of(self._settings().scopes, unit, name)
            if isinstance(found, Denial):
                raise Denied(found.message, mend=found.mend, reason=found.rule)
        except Denied as error:
            denial = Denial(error.reason, error.message, error.mend)
            error.audit_id = self._audit.deny(caller, Request((), mode="credential"), denial)
            raise
        scope, credential = found
        return scope, credential, held

    def _caller(self, peer: Peer) -> Caller:
        """Return the attested caller; one that has ended is denied on the record."""
        try:
            return peer.caller()
        except PeerGone as error:
            denial = Denial("peer_gone", error.message, error.mend)
            error.audit_id = self._audit.deny(peer.unknown(), Request((), mode="credential"), denial)
            raise


@dataclass(slots=True)
class CredentialSink:
    """Gives the values to systemd: the worker writes them to its socket, and nothing else."""

    connection: socket.socket
    peer: Peer
    caller: Caller
    deadline: float
    records: RunRecords
    holding: Holding

    def check(self) -> None:
        """Raise ``PeerGone`` unless it is the process that policy looked at."""
        self.peer.still(self.caller)

    async def deliver(self, receipt: Receipt) -> Render:
        """Have the worker write them; it ends with that."""
        self.records.keep(receipt.resolution, (self.holding.unit, self.holding.invocation, self.holding.pid))
        return await written(receipt, self.connection, "", self.deadline)


@contextlib.contextmanager
def ended(connection: socket.socket) -> Iterator[None]:
    """Close a connection for the peer too, whoever else has it: systemd then gives up its own."""
    with connection:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


async def refuse(connection: socket.socket, seconds: float = REFUSAL_SECONDS) -> None:
    """Send systemd more than it takes, whatever it has been sent before; it stops reading, and the unit does not start."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_sendall(connection, bytes(TOO_MUCH))


def _job(credential: Credential) -> Message:
    """Return what the worker makes of the values."""
    file = dataclasses.asdict(credential.file) if credential.file else None
    return {"do": "credential", "credential": [credential.name, credential.variable, file]}


def _address(connection: socket.socket) -> str:
    """Return the peer's address as a log may show it."""
    try:
        return ascii(connection.getpeername())
    except OSError:
        return ""
