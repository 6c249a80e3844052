"""A Unix socket that answers ``exec`` with given bytes: for what a real agent never sends, and for looking at requests."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from prism_vault_agent.exec.wire import decode_request, encode_block

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = [sys.executable, "-ISE", str(ROOT / "launcher" / "prism-vault")]


def answer(
    released: dict[bytes, bytes] | bytes = b"", *, status: str = "200 OK", kind: str = "", more: dict[str, str] | None = None
) -> bytes:
    """Return an answer: an environment block, or with ``kind`` any text."""
    body = released if isinstance(released, bytes) else encode_block(list(released.items()))
    headers = {
        "Content-Type": kind or "application/x-prism-vault-environment",
        "Content-Length": str(len(body)),
        "X-Prism-Vault-Pristine": "0",
        "X-Prism-Vault-Collision": "error",
        "X-Prism-Vault-Audit-Id": "pva_1",
        **(more or {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def error(exit_status: int, line: str, status: str = "403 Forbidden") -> bytes:
    """Return the answer of an agent that refuses."""
    return answer(line.encode(), status=status, kind="text/plain", more={"X-Prism-Vault-Exit": str(exit_status)})


class FakeAgent:
    """Answers each connection with ``reply``: bytes, or a function that is given the connection after the request."""

    def __init__(self, directory: Path, reply: bytes | Callable[[socket.socket], None] = b"") -> None:
        self.path = str(directory / "agent.sock")
        self.reply = reply
        self.requests: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return the fields of the last request."""
        return decode_request(self.requests[-1].partition(b"\r\n\r\n")[2])

    def run(self, *words: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run ``prism-vault exec --socket ... WORDS`` in a small environment and return how it ended."""
        options.setdefault("env", {"PATH": "/usr/bin:/bin"})
        options.setdefault("capture_output", True)
        options.setdefault("timeout", 30)
        return subprocess.run([*LAUNCHER, "exec", "--socket", self.path, *words], check=False, **options)

    def python(self, code: str, *words: str, options: tuple[str, ...] = (), **more: Any) -> subprocess.CompletedProcess[bytes]:
        """Run ``code`` as the command of scope web, in an interpreter that changes nothing of what it was given."""
        return self.run("--scope", "web", *options, "--", sys.executable, "-ISE", "-c", code, *words, **more)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who asked was killed
                self.requests.append(_request(connection))
                if callable(self.reply):
                    self.reply(connection)
                else:
                    _send(connection, self.reply)


def _request(connection: socket.socket) -> bytes:
    """Return the whole request."""
    received = b""
    while True:
        head, end, body = received.partition(b"\r\n\r\n")
        length = [line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        if end and len(body) >= int(length[0]):
            return received
        part = connection.recv(65536)
        if not part:
            return received
        received += part


def _send(connection: socket.socket, reply: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(reply)
