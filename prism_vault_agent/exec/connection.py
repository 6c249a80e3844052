"""One request on the socket of this host's agent, and its answer, before a deadline."""

import _socket
import sys
import time

from prism_vault_agent.exec import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SYSTEM_SOCKET = "/run/prism-vault/agent.sock"
_PIECE = 65_536
_WORD = 8 if sys.maxsize > 2**32 else 4


class NotConnected(Exception):
    """None of ``paths`` could be connected to; ``error`` is what the kernel said of the last one."""

    def __init__(self, paths: list[str], error: OSError) -> None:
        """Keep both."""
        super().__init__()
        self.paths = paths
        self.error = error


def sockets(named: str, own: "Mapping[bytes, bytes]", uid: int) -> list[str]:
    """Return where to look for the agent of the user ``uid``: the one socket that is ``named``, else the usual places.

    Root has the system's agent only. Other users may have one of their own, which goes before the system's.
    """
    if named:
        return [named]
    runtime = own.get(b"XDG_RUNTIME_DIR", b"").decode("utf-8", "surrogateescape")
    if uid == 0 or not runtime.startswith("/"):
        return [SYSTEM_SOCKET]
    return [f"{runtime}/prism-vault/agent.sock", SYSTEM_SOCKET]


def exchange(paths: list[str], request: "Callable[[], bytes]", deadline: float) -> tuple[int, dict[bytes, bytes], bytes]:
    """Return status, headers and body of the answer to an HTTP request, from the first of ``paths`` that exists.

    ``request`` is called once connected, since it may say what time is left until ``deadline`` (``time.monotonic``).
    Raises :class:`NotConnected`, ``BlockingIOError`` when the time is over, ``Malformed`` for an answer that is none.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        _connect(connection, paths, deadline)
        _send(connection, request(), deadline)
        return _receive(connection, deadline)
    finally:
        connection.close()


def _limit(connection: _socket.socket, option: int, deadline: float) -> None:
    """Let the next step on ``connection`` take no longer than is left. Raises ``BlockingIOError`` where nothing is.

    A socket's own limit and not poll(2): while the agent's queue is full connect(2) waits with the one, fails with the other.
    """
    left = int((deadline - time.monotonic()) * 1_000_000)
    if left <= 0:
        raise BlockingIOError
    timeval = [part.to_bytes(_WORD, sys.byteorder) for part in divmod(left, 1_000_000)]
    connection.setsockopt(_socket.SOL_SOCKET, option, b"".join(timeval))


def _connect(connection: _socket.socket, paths: list[str], deadline: float) -> None:
    """Connect to the first of ``paths`` that exists."""
    _limit(connection, _socket.SO_SNDTIMEO, deadline)
    error: OSError = FileNotFoundError()
    for path in paths:
        try:
            return connection.connect(path)
        except BlockingIOError:
            raise
        except OSError as refused:
            error = refused
            if not isinstance(error, FileNotFoundError):
                raise NotConnected([path], error) from None
    raise NotConnected(paths, error)


def _send(connection: _socket.socket, request: bytes, deadline: float) -> None:
    """Send the whole request, or as much as the agent wants: it may answer before it has read all."""
    view = memoryview(request)
    try:
        while view:
            _limit(connection, _socket.SO_SNDTIMEO, deadline)
            view = view[connection.send(view) :]
    except (BrokenPipeError, ConnectionResetError):
        return


def _receive(connection: _socket.socket, deadline: float) -> tuple[int, dict[bytes, bytes], bytes]:
    """Return the parsed answer as soon as it is complete."""
    received = bytearray()
    end = 0
    while not end or len(received) < end:
        _limit(connection, _socket.SO_RCVTIMEO, deadline)
        try:
            part = connection.recv(_PIECE)
        except ConnectionResetError:
            part = b""
        if not part:
            break
        received += part
        if not end and (head := wire.parse_head(received)):
            end = head[3]
    return wire.parse_answer(bytes(received))
