"""One kept-alive HTTP/1.1 connection on which nothing, in any number of small pieces, outlasts its deadline.

Every ``recv`` gets what is left of the whole, because a socket's own timeout starts anew with each byte that drips in.
"""

from __future__ import annotations

import os
import socket
import ssl
import time

from prism_vault_agent.errors import ConfigError, PrismVaultError, ProviderUnavailable
from prism_vault_agent.relay import missing, socket_of
from prism_vault_agent.vault import http1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from prism_vault_agent.vault.http1 import Reply

PIECE = 65_536


class Broken(Exception):
    """The exchange did not come to an end.

    ``again`` tells that another attempt may end better; ``sent`` that the server may have acted on this one; ``stale`` that
    a kept-alive connection turned out to be closed, which says nothing about the server.
    """

    def __init__(self, error: PrismVaultError, *, again: bool, sent: bool, stale: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.again = again
        self.sent = sent
        self.stale = stale


class Connection:
    """A connection to ``host``, over TLS where there is a ``context``, else to the loopback interface only."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, *, told: str, relay: str = "") -> None:
        """``told`` is how messages call the server; ``relay`` is the directory of the socket that leads to it, if one does."""
        self._host = host
        self._port = port
        self._context = context
        self._told = told
        self._relay = socket_of(relay, host, port) if relay else ""
        self._wire: _Wire | None = None

    def open(self, deadline: float) -> None:
        """Be connected, the TLS handshake done. Raises :class:`Broken`, or :class:`ConfigError` (plain http off loopback)."""
        if self._wire is None:
            try:
                self._wire = _Wire(self._connected(deadline))
            except OSError as error:
                raise self._broken(error, sent=False) from None

    def close(self) -> None:
        """Be closed."""
        if self._wire is not None:
            self._wire.socket.close()
            self._wire = None

    def exchange(self, message: bytes, method: str, deadline: float) -> Reply:
        """Send the request in ``message``, of this ``method``, and return its reply.

        Raises :class:`Broken` where there is none, :class:`ProtocolError` where it is not one, and :class:`ConfigError` as
        :meth:`open` does.
        """
        kept = self._wire is not None
        if self._wire is not None and not self._wire.quiet():
            self.close()
            kept = False
        self.open(deadline)
        wire = self._wire
        assert wire is not None
        wire.begin(deadline)
        try:
            wire.send(message)
            reply = http1.read(wire.receive, bodiless=method == "HEAD")
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise self._broken(error, sent=True, stale=kept and not wire.answered) from None
            raise
        if reply.last:
            self.close()
        return reply

    def _connected(self, deadline: float) -> socket.socket:
        if self._host != "localhost":
            self._check(self._host)
        if self._relay:
            return self._relayed(deadline)
        addresses = _addresses(self._host, self._port, deadline)
        failure: OSError = OSError("no address")
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            self._check(str(address[0]))
            raw = socket.socket(family, kind, protocol)
            try:
                raw.settimeout(_left(deadline) / (len(addresses) - position))
                raw.connect(address)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._context is None:
                    return raw
                raw.settimeout(_left(deadline))
                return self._context.wrap_socket(raw, server_hostname=self._host)
            except OSError as error:
                raw.close()
                failure = error
        raise failure

    def _relayed(self, deadline: float) -> socket.socket:
        raw = socket.socket(socket.AF_UNIX)
        try:
            raw.settimeout(_left(deadline))
            raw.connect(self._relay)
            return self._context.wrap_socket(raw, server_hostname=self._host) if self._context else raw
        except FileNotFoundError:
            raw.close()
            error = ProviderUnavailable(f"cannot reach {self._told}: {missing(self._relay)}", mend="retry then")
            raise Broken(error, again=False, sent=False) from None
        except BaseException:
            raw.close()
            raise

    def _check(self, host: str) -> None:
        """Raise :class:`ConfigError` where plain http would leave this host; a name may resolve to anything, so ask twice."""
        if self._context is None and host != "::1" and not host.startswith("127."):
            raise ConfigError(f"{self._told} is plain http to another host", mend="use https; plain http is for loopback only")

    def _broken(self, error: OSError, *, sent: bool, stale: bool = False) -> Broken:
        told = self._told
        if isinstance(error, TimeoutError):
            again, failure = False, ProviderUnavailable(f"{told} did not answer in time", mend="retry later")
        elif isinstance(error, ssl.SSLCertVerificationError):
            why = error.verify_message.rstrip(".")
            mend = "check vault.address, vault.tls.ca_file and the server's certificate"
            again, failure = False, ProviderUnavailable(f"{told} is not trusted: {why}", mend=mend, reason="tls")
        elif isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            why = (error.reason or "handshake failed").lower().replace("_", " ")
            again, failure = False, ProviderUnavailable(f"no TLS with {told}: {why}", mend="check its TLS", reason="tls")
        else:
            why = "no address" if isinstance(error, socket.gaierror) else "connection lost"
            if error.errno and not isinstance(error, (socket.gaierror, ssl.SSLError)):
                why = os.strerror(error.errno)
            again = True
            failure = ProviderUnavailable(f"cannot reach {told}: {why}", mend="check that it runs, and vault.address")
        return Broken(failure, again=again, sent=sent, stale=stale)


class _Wire:
    """A connected socket, bounded in time and in bytes."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.deadline = 0.0
        self.answered = False

    def begin(self, deadline: float) -> None:
        """Bound the next exchange."""
        self.deadline = deadline
        self.answered = False

    def quiet(self) -> bool:
        """Tell whether the connection is open and the server has said nothing unasked."""
        self.socket.settimeout(0)
        try:
            self.socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def send(self, message: bytes) -> None:
        """Send all of ``message``."""
        rest = memoryview(message)
        while rest:
            self.socket.settimeout(_left(self.deadline))
            rest = rest[self.socket.send(rest) :]

    def receive(self) -> bytes:
        """Return the bytes that come next; none at the end."""
        self.socket.settimeout(_left(self.deadline))
        piece = self.socket.recv(PIECE)
        self.answered = self.answered or bool(piece)
        return piece


def _addresses(host: str, port: int, deadline: float) -> list[Any]:
    """Return the addresses of ``host``; a name is looked up in a thread, because a look-up knows no timeout."""
    # As bytes it is taken as it is; as text the interpreter would first import its tables of international names, for 4 ms.
    name = host.encode("ascii") if host.isascii() and host.isprintable() else host
    try:
        return socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    import threading  # noqa: PLC0415 - only names need it

    found: list[Any] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error if isinstance(error, OSError) else socket.gaierror(0, "not a host name"))

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(_left(deadline))
    if not found:
        raise TimeoutError
    if isinstance(found[0], OSError):
        raise found[0]
    return list(found[0])


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
