"""The front of the agent: accepts connections, asks who they are, routes them, and answers in one place when they fail."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.agent.delivery import Preparing, SocketSink
from prism_vault_agent.agent.front import http, json_request
from prism_vault_agent.agent.front.accept import accept
from prism_vault_agent.agent.front.exec_request import parse, release
from prism_vault_agent.agent.front.peer import Peer, PeerGone, attest
from prism_vault_agent.agent.metrics import CONTENT_TYPE
from prism_vault_agent.agent.planned import plan
from prism_vault_agent.agent.release import Reading, WorkerProvider, exec_job
from prism_vault_agent.agent.rights import rights
from prism_vault_agent.agent.trees.guards import guards_of
from prism_vault_agent.errors import Denied, PrismVaultError, Unavailable, to_plain
from prism_vault_agent.model import Caller, Request
from prism_vault_agent.policy.decide import Denial
from prism_vault_agent.render import foretell, render

if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.agent.files.requests import FileRequests
    from prism_vault_agent.agent.front.exec_request import ExecRequest
    from prism_vault_agent.agent.orders import Orders
    from prism_vault_agent.agent.runs.runs import Runs
    from prism_vault_agent.agent.runs.supervisors import Supervisors
    from prism_vault_agent.agent.stages import Timed
    from prism_vault_agent.agent.status import Status
    from prism_vault_agent.audit.central_log import CentralLog
    from prism_vault_agent.config.settings import Settings

log = structlog.get_logger()

# The provider's part of a render ends this much before the caller stops waiting: what is told then must reach it in time.
TELLING_SECONDS: Final = 0.25


class Front:
    """Serves one listening socket, as ``settings`` say at that time."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        *,
        audit: CentralLog,
        reading: Reading,
        runs: Runs,
        files: FileRequests,
        orders: Orders,
        supervisors: Supervisors,
        status: Status,
    ) -> None:
        """Serve with these parts, which live as long as the agent."""
        self._settings = settings
        self._audit = audit
        self._reading = reading
        self._runs = runs
        self._files = files
        self._orders = orders
        self._supervisors = supervisors
        self._status = status

    async def serve(self, listening: socket.socket) -> None:
        """Serve until cancelled."""
        await accept(listening, lambda: self._settings().agent.connections_per_user, self._connection)

    async def _connection(self, connection: socket.socket) -> None:
        """Serve one connection to its end; nothing that happens on it ends the agent."""
        peer: Peer | None = None
        try:
            peer = attest(connection)
            await self._serve(connection, peer)
        except PrismVaultError as error:
            await http.send(connection, http.refusal(error))
        except http.BadRequest as error:
            headers = {"Content-Type": "text/plain", "X-Prism-Vault-Exit": "76", **error.headers}
            await http.answer(connection, error.status, f"{error}\n".encode(), headers)
        except Exception as error:  # noqa: BLE001 - one connection's defect; its type is told, its text may hold anything
            log.error("connection.failed", error=type(error).__name__)
            defect = PrismVaultError("the agent has a defect; its log names it", mend="report it")
            await http.send(connection, http.refusal(defect))
        finally:
            if peer is not None:
                peer.close()

    async def _serve(self, connection: socket.socket, peer: Peer) -> None:
        request = await http.read_request(connection)
        if request is None:
            return
        if request.method == "GET" and request.path == "/v1/status":
            await http.answer_json(connection, 200, self._status.tell(self._settings(), peer.caller()))
            return
        if request.method == "GET" and request.path == "/metrics":
            await http.answer(connection, 200, self._status.metrics(self._settings()).encode(), {"Content-Type": CONTENT_TYPE})
            return
        if request.path not in (*ROUTES, *READ):
            raise http.BadRequest(404, f"there is GET {', '.join(READ)}, and POST {', '.join(ROUTES)}")
        if request.method != "POST" or request.path not in ROUTES:
            method = "POST" if request.path in ROUTES else "GET"
            raise http.BadRequest(405, f"{request.path} is asked with {method}", Allow=method)
        # A page in a browser, or a service that can be made to fetch a URL, cannot set this header.
        if request.headers.get("x-prism-vault") != "1" or "origin" in request.headers:
            raise http.BadRequest(403, "the header X-Prism-Vault: 1 is missing")
        try:
            await ROUTES[request.path](self, connection, peer, request.body)
        except PrismVaultError as error:
            if request.path == "/v1/exec":
                raise
            await http.answer_json(connection, http.status_of(error), to_plain(error))

    async def _exec(self, connection: socket.socket, peer: Peer, body: bytes) -> None:
        """Render into the caller's environment: it becomes the command, and its process is watched from then on."""
        asked, since = parse(body), self._runs.revocations
        caller = self._caller(peer, asked.request)
        self._not_taken_back(asked, caller)
        if asked.dry_run:
            lines = foretell(self._settings().scopes, caller, asked.request)
            await http.answer(connection, 200, lines.encode(), {"Content-Type": "text/plain"})
            return
        deadline = time.monotonic() + asked.seconds
        reading = deadline - min(TELLING_SECONDS, asked.seconds / 4)
        rooms = (asked.room(pristine=asked.pristine), asked.room(pristine=True))
        guards = guards_of(caller.pid) if asked.request.supervised else ()
        sink = SocketSink(
            connection, peer, caller, deadline, self._runs.records, guards, self._settings().agent.helper,
            self._supervisors.ends.of, supervised=asked.request.supervised,
        )  # fmt: skip
        provider = WorkerProvider(self._reading, exec_job(rooms), reading)
        timed = self._reading.metrics.timed("exec", Preparing(self._audit, sink), provider, sink)
        try:
            async with asyncio.timeout_at(deadline):
                rendered = await render(
                    self._settings().scopes, caller, asked.request, audit=timed, provider=timed, sink=timed
                )  # fmt: skip
        except BaseException as error:
            await sink.leave()
            if not isinstance(error, TimeoutError):
                raise
            names = ",".join(dict.fromkeys(scope for scope in asked.request.scopes if scope in self._settings().scopes))
            told = f"it took longer than {asked.seconds:.1f} s"
            raise Unavailable(told, mend="see prism-vault status", reason="timeout", scope=names) from None
        audit_id = rendered.reservation.audit_id
        log.info("render.released", audit_id=audit_id, pid=caller.pid, uid=caller.uid, names=list(rendered.names))
        self._in_place(asked, audit_id, timed)
        run = self._runs.watch(rendered, peer.pidfd, since, tree=sink.tree, guards=guards)
        peer.pidfd = -1
        self._runs.judge(self._settings().scopes, [run])  # which may be others since this render began

    def _in_place(self, asked: ExecRequest, audit_id: str, timed: Timed) -> None:
        """Record how long a rotation took, where this is a command that was started anew for one."""
        if took := self._reading.metrics.run_rotations.restarted(asked.after, audit_id, timed.at):
            self._audit.note("run_in_place", f"{audit_id}: in place of {asked.after}", took)

    def _not_taken_back(self, asked: ExecRequest, caller: Caller) -> None:
        """Deny on the record what is started anew after it was taken back."""
        try:
            self._supervisors.check(asked.after)
        except Denied as error:
            error.audit_id = self._audit.deny(caller, asked.request, Denial(error.reason, error.message, error.mend))
            raise

    async def _wait(self, connection: socket.socket, peer: Peer, body: bytes) -> None:
        """Keep the connection of a supervisor, which waits for orders about its release."""
        await self._supervisors.wait(connection, peer.uid, release(body))

    def _caller(self, peer: Peer, request: Request) -> Caller:
        """Return the attested caller; one that has ended is denied on the record."""
        try:
            return peer.caller()
        except PeerGone as error:
            error.audit_id = self._audit.deny(peer.unknown(), request, Denial("peer_gone", error.message, error.mend))
            raise

    async def _plan(self, connection: socket.socket, peer: Peer, body: bytes) -> None:
        """Say what a render would do for this caller, and why it would be denied."""
        request, caller = json_request.plan(body), peer.caller()
        files = self._files if json_request.diff(body) else None
        told = await plan(
            self._settings(), caller, request, status=self._status, leased=self._reading.mounts.leased, files=files
        )  # fmt: skip
        await http.answer_json(connection, 200, told)

    async def _render(self, connection: socket.socket, peer: Peer, body: bytes) -> None:
        """Render scopes to their files, for this caller."""
        request = json_request.plan(body)
        await http.answer_json(connection, 200, await self._files.render(self._caller(peer, request), request))

    async def _clear(self, connection: socket.socket, peer: Peer, body: bytes) -> None:
        """Take rendered files away."""
        await http.answer_json(connection, 200, self._files.clear(peer.uid, json_request.clear(body)))

    async def _rotate(self, connection: socket.socket, peer: Peer, body: bytes) -> None:
        """Look for newer versions of what the caller's user has."""
        await http.answer_json(connection, 200, self._orders.rotate(peer.uid, json_request.target(body)))

    async def _revoke(self, connection: socket.socket, peer: Peer, body: bytes) -> None:
        """Take back what the caller's user has; root and the agent's user may take back anything."""
        await http.answer_json(connection, 200, await self._orders.revoke(peer.uid, json_request.target(body)))

    async def _rights(self, connection: socket.socket, peer: Peer, _body: bytes) -> None:
        """Tell which rights the role lacks."""
        await http.answer_json(connection, 200, await rights(self._reading, self._settings(), self._status, peer.uid))


READ: Final = ("/v1/status", "/metrics")
ROUTES: Final = {
    "/v1/exec": Front._exec,  # noqa: SLF001 - the class's own table, as all below
    "/v1/orders": Front._wait,  # noqa: SLF001
    "/v1/plan": Front._plan,  # noqa: SLF001
    "/v1/render": Front._render,  # noqa: SLF001
    "/v1/clear": Front._clear,  # noqa: SLF001
    "/v1/rotate": Front._rotate,  # noqa: SLF001
    "/v1/revoke": Front._revoke,  # noqa: SLF001
    "/v1/rights": Front._rights,  # noqa: SLF001
}
