"""The helper's process: one connection after the other, each from the agent's own user, and an end when nobody asks."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.agent.peer import attest
from prism_vault_agent.config.accounts import Accounts, home_group
from prism_vault_agent.config.compiled import load_fast
from prism_vault_agent.errors import CannotCreate, ConfigError, Denied, PrismVaultError
from prism_vault_agent.helper import acts, wire
from prism_vault_agent.helper.bounds import Bounds
from prism_vault_agent.helper.wire import Said, Verb

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

PEER_SECONDS: Final = 2.0  # for a request, and for the reading of an answer
CONNECTION_SECONDS: Final = 30.0
BACKLOG: Final = 64
FIRST_PASSED: Final = 3


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


def listening(path: str | None, environ: MutableMapping[str, str], user: str) -> socket.socket:
    """Return systemd's socket (sd_listen_fds(3)), or one of our own at ``path`` that only ``user`` can connect to."""
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid == str(os.getpid()) and count == "1":
        passed = socket.socket(fileno=FIRST_PASSED)
        os.set_inheritable(FIRST_PASSED, False)
        if (passed.family, passed.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
            raise ConfigError("what systemd passed is no Unix socket of packets", mend="set ListenSequentialPacket=")
        return passed
    if path is None:
        raise ConfigError("systemd passed no socket", mend="start prism-vault-helper.socket, or name one with --socket")
    own = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
        earlier = os.umask(0o177)
        try:
            own.bind(path)
        finally:
            os.umask(earlier)
        uid = Accounts().uid(user)
        os.chown(path, -1 if uid is None else uid, -1, follow_symlinks=False)
        own.listen(BACKLOG)
    except OSError as error:
        raise CannotCreate(f"cannot make the socket {path}: {error.strerror}", mend="check its directory") from None
    return own


def serve(listener: socket.socket, served: Served, idle: float) -> None:
    """Serve until nobody has connected for ``idle`` seconds; 0 is for ever."""
    while True:
        listener.settimeout(idle or None)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            return
        # Whoever has gone, or reads no answers, gets no more of them.
        with connection, contextlib.suppress(OSError):
            _connection(connection, served)


def _connection(connection: socket.socket, served: Served) -> None:
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
                _request(connection, *believed, packet, passed)
            finally:
                wire.close(passed)
    except (PrismVaultError, wire.Malformed) as error:
        line = error.line() if isinstance(error, PrismVaultError) else f"that is no request: {error}"
        tell("helper.refused_peer", why=line)
        wire.send(connection, wire.encode_answer(Said.REFUSED, line))


def _request(connection: socket.socket, bounds: Bounds, peer: int, packet: bytes, passed: list[int]) -> None:
    """Do one request and answer it; what is refused is told, and the next one may be better."""
    request = wire.decode(packet)
    if len(passed) != (request.verb not in wire.WITHOUT_DESCRIPTOR):
        raise wire.Malformed("it came with another number of descriptors than its verb has")
    told: dict[str, Any] = {"verb": request.verb.name.lower(), "numbers": request.numbers, "peer": peer}
    opened: int | None = None
    try:
        if request.verb == Verb.CHOWN:
            acts.chown(bounds, passed[0], *request.numbers)
        elif request.verb == Verb.OPEN:
            opened = acts.open_to_read(bounds, passed[0])
        elif request.verb == Verb.KILL:
            told["pid"] = acts.kill(bounds, passed[0], request.numbers[0], peer)
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


def tell(event: str, **told: Any) -> None:
    """Log one line of JSON, as the agent does; its library would be half of this process."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with contextlib.suppress(OSError):
        print(json.dumps({"timestamp": at, "event": event, **told}), file=sys.stderr, flush=True)
