"""The process that serves central: hardened, on its own socket, with JSON logs on stderr, until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import os
import resource
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

import structlog
import uvicorn

from prism_vault_agent.central.app import build
from prism_vault_agent.central.config import CentralConfig, load
from prism_vault_agent.central.http.door import Door
from prism_vault_agent.central.http.protocol import REQUEST_SECONDS, LimitedProtocol
from prism_vault_agent.central.http.tls import ServerCertificate
from prism_vault_agent.central.log_lines import LogLines
from prism_vault_agent.central.storage.engines import prepare, reading_engine, require_current
from prism_vault_agent.central.upgrade import migrate_checked
from prism_vault_agent.errors import CannotCreate, PrismVaultError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

PR_SET_DUMPABLE: Final = 4
DRAIN_SECONDS: Final = 10  # for the requests under way
FINISH_SECONDS: Final = 8  # then for what waits for the disk, and the last checkpoint
FAREWELL_SECONDS: Final = 5  # for the other side of a connection that we close to say so too: it may be long gone
KEEP_ALIVE_SECONDS: Final = 75
UNANSWERED_MS: Final = 30_000  # what is sent waits so long for the other side's kernel to take it
MOST_CONNECTIONS: Final = 16_384  # one of each agent is its stream of signals
OTHER_DESCRIPTORS: Final = 128  # the log's, and room to say no to a connection that is one too many
# The writer's thread and the loop hand over to each other many times a millisecond; the default of 5 ms makes both wait.
SWITCH_SECONDS: Final = 0.0005


def serve(config_path: Path, *, migrate_first: bool = False) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status. Raises ``ConfigError`` or ``CannotCreate`` before it serves.

    The first line on stdout is the URL that is listened on, once requests are answered.
    """
    _harden()
    config = load(config_path)
    lines = LogLines(sys.stderr.fileno())
    _log_to(lines)
    try:
        _serve(config, config_path, lines, migrate_first=migrate_first)
    finally:
        lines.close()
    return 0


def _serve(config: CentralConfig, config_path: Path, lines: LogLines, *, migrate_first: bool) -> None:
    certificate = ServerCertificate(config) if config.tls_cert else None
    if migrate_first:
        migrate_checked(config, None, lambda line: structlog.get_logger("migration").info("migrating", step=line))
    prepare(config.database)
    engine = reading_engine(config.database)
    require_current(engine, config_path)
    engine.dispose()
    listening = _listen(config)
    server = _Server(build(config), _url(config, listening), certificate, lines)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.end)  # uvicorn takes over later, and raises the signal again when it has drained
    sys.setswitchinterval(SWITCH_SECONDS)
    server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """Says where it listens, once it does, and takes a new certificate for an old one while it serves."""

    def __init__(self, door: Door, url: str, certificate: ServerCertificate | None, lines: LogLines) -> None:
        super().__init__(_settings(door))
        self._lines = lines
        self._url = url
        self._certificate = certificate
        self._door = door
        self._most = min(MOST_CONNECTIONS, max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_DESCRIPTORS, 1))
        self._refused = door.metrics.connections_refused.inc
        door.metrics.connections.set_function(lambda: len(self.server_state.connections))
        if certificate is not None:
            door.metrics.certificate.set_function(certificate.end)
        self._watching: asyncio.Task[None] | None = None

    def end(self, _number: int, _frame: FrameType | None) -> None:
        """Ask the server to drain and end; it may not have begun."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise PrismVaultError("central's parts do not start", mend="its log says which")
        loop = asyncio.get_running_loop()
        certificate = self._certificate
        tls: dict[str, Any] = {}
        if certificate is not None:
            tls = {"ssl": certificate.context, "ssl_handshake_timeout": REQUEST_SECONDS, "ssl_shutdown_timeout": FAREWELL_SECONDS}
        self.servers = [await loop.create_server(self._protocol, sock=each, **tls) for each in sockets or ()]
        loop.add_signal_handler(signal.SIGHUP, certificate.reload if certificate else lambda: None)
        if certificate is not None:
            self._watching = asyncio.create_task(certificate.watch())
        self.started = True
        print(f"listening on {self._url}", flush=True)
        structlog.get_logger("central").info("listening", url=self._url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._door.end()
        deadline = threading.Timer(DRAIN_SECONDS + FINISH_SECONDS, self._give_up)
        deadline.daemon = True
        deadline.start()
        await super().shutdown(sockets)

    def _give_up(self) -> None:
        """End the process though a thread of it still waits for the database, and nothing else can end that.

        What was acknowledged is durable; what the database does with the rest, nobody was told.
        """
        structlog.get_logger("central").error("ended_unfinished", mend="see whether the database works")
        self._lines.close()
        os._exit(Unavailable.exit_status)

    def _protocol(self) -> LimitedProtocol:
        return LimitedProtocol(self, self._most, self._refused)


def _harden() -> None:
    """Make this process unreadable to others of its user, without cores, and its files its own."""
    os.umask(0o077)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _listen(config: CentralConfig) -> socket.socket:
    """Return a listening socket. Raises :class:`CannotCreate` where the address cannot be had."""
    host, port = config.address
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        # A host that is gone without a word takes no heartbeat of its stream: then it follows no more.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED_MS)
        listening.listen(2048)
    except OSError as error:
        raise CannotCreate(f"central cannot listen on {config.listen}: {error.strerror}") from None
    return listening


def _url(config: CentralConfig, listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if config.tls_cert else 'http'}://{shown}:{port}"


def _settings(app: Door) -> uvicorn.Config:
    """Return uvicorn's settings."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=LimitedProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def _log_to(lines: LogLines) -> None:
    """Write JSON lines to ``lines``: our events, and what the libraries warn of, as text without tracebacks."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", lines)),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Foreign()], force=True)


class _Foreign(logging.Handler):
    """Passes on the name and level of a library's record; its text and traceback may quote a request."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger("library").warning("library", source=record.name, severity=record.levelname, at=record.lineno)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve as ``python -m prism_vault_agent.central.serve --config F [--migrate]``."""
    parser = argparse.ArgumentParser(prog="prism-vault central serve")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--migrate", action="store_true")
    args = parser.parse_args(argv)
    try:
        return serve(args.config, migrate_first=args.migrate)
    except PrismVaultError as error:
        print(f"prism-vault: {error.line()}", file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
