"""The helper's process: one connection after the other, each from the agent's own user, and an end when nobody asks."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.agent.front.peer import attest
from prism_vault_agent.config.accounts import Accounts, home_group
from prism_vault_agent.config.compiled import load_fast
from prism_vault_agent.errors import ConfigError, Denied, PrismVaultError
from prism_vault_agent.helper import acts, groups, units, wire
from prism_vault_agent.helper.bounds import Bounds
from prism_vault_agent.helper.wire import Request, Said, Verb

if TYPE_CHECKING:
    from collections.abc import Mapping

PEER_SECONDS: Final = 2.0  # for a request, and for the reading of an answer
CONNECTION_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Served:
    """Whom the helper believes: processes of ``user`` and, where it is set, of the unit ``unit`` alone."""

    user: str
    unit: str
    config: str | None
    environ: Mapping[str, str]

    def bounds(self) -> Bounds:
        """Return what the configuration allows now. Raises ``ConfigError`` where it is wrong or not root's alone."""
        uid, gid = Accounts().uid(self.user), home_group(self.user)
        if uid is None or gid is None:
            raise ConfigError(f"there is no user {self.user}", mend="create it, or name the agent's with --user")
        return Bounds.of(load_fast(self.config, self.environ, own=(uid, gid)), uid, gid)

    def believed(self, connection: socket.socket) -> tuple[Bounds, int]:
        """Return what a peer may have done, and its process. Raises ``Denied`` unless it is of the agent's user and unit."""
        peer = attest(connection)
        try:
            caller = peer.caller()
        finally:
            peer.close()
        if caller.uid != Accounts().uid(self.user):
            raise Denied(f"the helper serves user {self.user}, and not uid {caller.uid}", mend="ask as the agent")
        if self.unit and caller.unit != self.unit:
            raise Denied(f"the helper serves {self.unit}, and not {caller.unit or 'who is in no unit'}", mend="ask as the agent")
        return self.bounds(), caller.pid


def serve(listener: socket.socket, served: Served, idle: float) -> None:
    """Serve until nobody has connected for ``idle`` seconds; 0 is for ever."""
    apart = units.Apart()
    while True:
        listener.settimeout(idle or None)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if apart.busy():
                continue
            return
        # Whoever has gone, or reads no answers, gets no more of them.
        with connection, contextlib.suppress(OSError):
            _connection(connection, served, apart)


def _connection(connection: socket.socket, served: Served, apart: units.Apart) -> None:
    """Answer requests until the peer closes, says something that is no request, or has had its time.

    The first one is read before a peer is refused: who closes with something unread takes its own answer back (unix(7)).
    """
    connection.settimeout(PEER_SECONDS)
    until = time.monotonic() + CONNECTION_SECONDS
    believed: tuple[Bounds, int] | None = None
    try:
        while time.monotonic() < until:
            packet, passed = wire.receive(connection, wire.REQUEST.size)
            try:
                if not packet:
                    return
                if believed is None:
                    believed = served.believed(connection)
                request = wire.decode(packet)
                if request.verb == Verb.UNIT and not passed:
                    _tell_unit(connection, *believed, request.numbers, apart)
                    return
                _request(connection, *believed, request, passed)
            finally:
                wire.close(passed)
    except (PrismVaultError, wire.Malformed) as error:
        line = error.line() if isinstance(error, PrismVaultError) else f"that is no request: {error}"
        tell("helper.refused", why=line)
        wire.send(connection, wire.encode_answer(Said.REFUSED, line))


def _request(connection: socket.socket, bounds: Bounds, peer: int, request: Request, passed: list[int]) -> None:
    """Do one request and answer it; what is refused is told, and the next one may be better."""
    if len(passed) != (request.verb not in wire.WITHOUT_DESCRIPTOR):
        raise wire.Malformed("it came with another number of descriptors than its verb has")
    told: dict[str, Any] = {"verb": request.verb.name.lower(), "numbers": request.numbers, "peer": peer}
    opened: int | None = None
    try:
        if request.verb == Verb.OPEN:
            opened = acts.open_to_read(bounds, passed[0])
        elif request.verb in (Verb.KILL, Verb.GROUP, Verb.LEAVE):
            told |= _process(bounds, peer, request, passed[0])
        elif request.verb == Verb.CHOWN:
            acts.chown(bounds, passed[0], *request.numbers)
        else:
            acts.mount(bounds)
        answer = wire.encode_answer(Said.DONE)
        tell("helper.done", **told)
    except ProcessLookupError:
        answer = wire.encode_answer(Said.ENDED)
    except Denied as error:
        tell("helper.refused", **told, why=error.line())
        answer = wire.encode_answer(Said.REFUSED, error.line())
    except OSError as error:
        why = os.strerror(error.errno or 0)
        tell("helper.failed", **told, why=why)
        answer = wire.encode_answer(Said.REFUSED, f"{request.verb.name.lower()}: {why}")
    try:
        wire.send(connection, answer, opened)
    finally:
        wire.close([] if opened is None else [opened])


def _process(bounds: Bounds, peer: int, request: Request, passed: int) -> dict[str, int]:
    """Do something to a process, or to the control group of a run; return what is told of it."""
    if request.verb == Verb.LEAVE:
        groups.leave(passed)
    elif request.verb == Verb.GROUP:
        return {"pid": groups.make(bounds, passed, request.numbers, peer)}
    elif acts.is_directory(passed):
        groups.kill(passed, request.numbers[0])
    else:
        return {"pid": acts.kill(bounds, passed, request.numbers[0], peer)}
    return {}


def _tell_unit(connection: socket.socket, bounds: Bounds, peer: int, numbers: tuple[int, int], apart: units.Apart) -> None:
    """Have a process of its own tell a unit and answer, and be there for others meanwhile."""
    if numbers not in bounds.units:
        raise Denied("no scope names that unit with that action", mend="see the configuration that is root's")
    unit, how = bounds.units[numbers]

    def work() -> None:
        why = units.act(unit, how)
        tell("helper.failed" if why else "helper.done", verb="unit", unit=unit, how=how, peer=peer, why=why)
        with contextlib.suppress(OSError):
            wire.send(connection, wire.encode_answer(Said.REFUSED if why else Said.DONE, why))

    apart.start(work)


def tell(event: str, **told: Any) -> None:
    """Log one line of JSON, as the agent does; its library would be half of this process."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with contextlib.suppress(OSError):
        print(json.dumps({"timestamp": at, "event": event, **told}), file=sys.stderr, flush=True)
