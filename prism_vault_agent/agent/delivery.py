"""The end of a release: a worker writes the values to whoever asked, and what became of that is known, whatever else happens."""

from __future__ import annotations

import asyncio
import contextlib
import select
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.agent.front.http import head
from prism_vault_agent.agent.front.peer import PeerGone
from prism_vault_agent.agent.release import worker_of
from prism_vault_agent.agent.runs.ending import NOT_OURS
from prism_vault_agent.agent.runs.ends import in_milliseconds
from prism_vault_agent.agent.runs.signalling import signal_all
from prism_vault_agent.agent.trees.tree import entered, kept
from prism_vault_agent.errors import CannotCreate, PrismVaultError, ProviderUnavailable, Unavailable
from prism_vault_agent.model import Receipt, Render, Reservation
from prism_vault_agent.policy.reactions import may_restart

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from prism_vault_agent.agent.front.peer import Peer
    from prism_vault_agent.agent.runs.records import RunRecords
    from prism_vault_agent.agent.trees.group import Group
    from prism_vault_agent.agent.trees.guards import Guard
    from prism_vault_agent.agent.trees.sweep import Sweep
    from prism_vault_agent.agent.trees.tree import Tree
    from prism_vault_agent.audit.central_log import CentralLog
    from prism_vault_agent.model import Caller, Grant, Request, ReservationId, Resolution
    from prism_vault_agent.policy.decide import Denial
    from prism_vault_agent.worker.messages import Message

log = structlog.get_logger()

ENVIRONMENT: Final = "application/x-prism-vault-environment"
# The reason of a worker that ended without having told what it did.
UNTOLD: Final = "worker_lost"
# A worker gives up at the deadline; so much later it has told so.
TELLING_SECONDS: Final = 0.5


@dataclass(slots=True)
class SocketSink:
    """Gives the values to whoever connected: the worker writes them, as one HTTP answer, to the caller's own socket."""

    connection: socket.socket
    peer: Peer
    caller: Caller
    deadline: float
    records: RunRecords
    guards: tuple[Guard, ...] = ()
    helper: str = ""
    ends: Callable[[Render], float | None] = lambda _: None
    supervised: bool = False
    tree: Tree | None = None
    _preparing: asyncio.Task[Group | Sweep] | None = None

    def prepare(self, reservation: ReservationId) -> asyncio.Task[Group | Sweep]:
        """Begin to make sure that all that the caller starts will be found again."""
        if self._preparing is None:
            self._preparing = asyncio.create_task(entered(self.caller, reservation, self.guards, self.peer.check, self.helper))
        return self._preparing

    async def leave(self) -> None:
        """Take that back: the caller was given nothing."""
        if self._preparing is not None:
            with contextlib.suppress(PrismVaultError):
                await asyncio.to_thread((await self._preparing).leave)

    def check(self) -> None:
        """Raise ``PeerGone`` unless the caller is the process that policy looked at, and still listens.

        Below a supervisor it is a child of ours that was told to end: an interruption (``Unavailable``), no denial.
        """
        if self.supervised:
            try:
                self.peer.check()
            except PeerGone as gone:
                told = "it was ended while its secrets were read"
                raise Unavailable(told, mend=gone.mend, reason="interrupted") from None
        self.peer.still(self.caller)
        poll = select.poll()
        poll.register(self.connection, 0)  # POLLHUP: closed altogether; who only says no more may still listen
        if poll.poll(0):
            raise PeerGone("the caller stopped waiting", mend="raise --timeout")

    async def deliver(self, receipt: Receipt) -> Render:
        """Have the worker write the block, once the caller is prepared for that; the worker ends with it.

        A caller that may have all of it, and nobody knows, is ended; not where the worker was lost before it began.
        """
        reservation = receipt.resolution.reservation
        headers = {
            "Content-Type": ENVIRONMENT,
            "X-Prism-Vault-Pristine": str(int(reservation.grant.pristine)),
            "X-Prism-Vault-Collision": collision(reservation),
            "X-Prism-Vault-Audit-Id": reservation.audit_id,
            "X-Prism-Vault-Grace-Ms": str(round(reservation.grant.grace * 1000)),
            "X-Prism-Vault-Orders": str(int(_may_restart(reservation.grant))),
        }
        resolution = receipt.resolution
        ends = self.ends(Render(reservation, resolution.names, resolution.leases)) if self.supervised else None
        if end := in_milliseconds(ends):
            headers["X-Prism-Vault-Ends-Ms"] = end
        self.tree = tree = await asyncio.shield(self.prepare(reservation.id))
        headers["X-Prism-Vault-Adopt"] = str(int(tree.is_told_by_parents and not reservation.grant.request.supervised))
        self.records.keep(resolution, tree=kept(tree), guards=self.guards)
        try:
            return await written(receipt, self.connection, head(200, headers), self.deadline)
        except BaseException as error:
            if not isinstance(error, PrismVaultError) or error.reason == UNTOLD:
                await self._end(tree, reservation.audit_id)
            raise

    async def _end(self, tree: Tree, audit_id: str) -> None:
        """End the caller: what the log says was not delivered to it must not be out there."""
        log.warning("delivery.unknown", audit_id=audit_id, pid=self.caller.pid, message="the caller is ended")
        try:
            refused = (
                None if await asyncio.to_thread(tree.kill) else await signal_all(tree.descriptors(), signal.SIGKILL, self.helper)
            )
        except ProcessLookupError:
            return
        except (PermissionError, CannotCreate) as error:
            refused = error
        if refused is not None:
            why = refused.line() if isinstance(refused, CannotCreate) else NOT_OURS
            log.critical("delivery.not_ended", audit_id=audit_id, pid=self.caller.pid, why=why)


@dataclass(frozen=True, slots=True)
class Preparing:
    """The log of a render whose caller is prepared while the log is asked: the kernel takes as long for that as all else.

    A caller that the log then denies is put back to where it was.
    """

    audit: CentralLog
    sink: SocketSink

    async def reserve(self, grant: Grant) -> Reservation:
        """Record the intent durably, and begin to prepare the caller meanwhile: it is given nothing by that."""
        return await self.audit.reserve(grant, self.sink.prepare)

    async def succeed(self, resolution: Resolution) -> Receipt:
        """Record the success."""
        return await self.audit.succeed(resolution)

    def fail(self, reservation: Reservation, error: BaseException) -> None:
        """Record the failure."""
        self.audit.fail(reservation, error)

    def deny(self, caller: Caller, request: Request, denial: Denial) -> str:
        """Record the denial."""
        return self.audit.deny(caller, request, denial)

    def clear(self, reservation: Reservation, reason: str) -> None:
        """Record that it was not delivered."""
        self.audit.clear(reservation, reason)


async def written(receipt: Receipt, connection: socket.socket, head: str, deadline: float) -> Render:
    """Have the worker write ``head`` and the values to the connection; it ends with that.

    Raises what kept it from that; with the reason ``worker_lost`` where all of it may have been written.
    """
    resolution = receipt.resolution
    worker = worker_of(resolution)
    job = {"do": "deliver", "head": head, "deadline": deadline}
    await _told(asyncio.ensure_future(worker.ask(job, connection.fileno())), deadline + TELLING_SECONDS)
    worker.end()
    return Render(resolution.reservation, resolution.names, resolution.leases)


async def _told(delivery: asyncio.Future[Message], limit: float) -> None:
    """Wait until a worker tells that it has delivered, also where who asked is cancelled meanwhile: what is out must be known.

    Raises what it tells instead; ``ProviderUnavailable`` for one that has told nothing at ``limit`` (loop time).
    """
    loop = asyncio.get_running_loop()
    while not delivery.done() and (left := limit - loop.time()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([delivery], timeout=left)
    if not delivery.done():
        delivery.cancel()
        raise ProviderUnavailable("the worker does not tell what it has delivered", mend="retry", reason=UNTOLD)
    delivery.result()


def _may_restart(grant: Grant) -> bool:
    """Tell whether who supervises a command is to wait for the order to start it anew."""
    return grant.request.supervised and may_restart(grant.scopes, grant.request.on_rotate)


def collision(reservation: Reservation) -> str:
    """Return what the scopes say of a name that the caller has already: the strictest of their answers."""
    wishes = {scope.collision for scope in reservation.grant.scopes}
    return "error" if len(wishes) > 1 else wishes.pop()
