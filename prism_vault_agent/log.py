"""What the daemons say while they work: one line per event on standard error, as JSON or for a person.

Three promises. No value: an exception is told by its type and its place, never by its text (unless it is ours) and never by
local variables. No forging: control characters are escaped. No waiting: when the reader of standard error is slow, lines are
dropped and counted, and the next line that gets through says how many.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import stat
import sys
from typing import TYPE_CHECKING, Any, Final

import structlog

from prism_vault_agent.errors import PrismVaultError

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from types import TracebackType

    Event = MutableMapping[str, Any]

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# pipe(7): a write of up to PIPE_BUF bytes goes through whole or not at all.
LONGEST_LINE: Final = select.PIPE_BUF
_FIRST: Final = ("timestamp", "level", "event")
_open: Final[list[Line]] = []


def configure(log_format: str = "json", log_level: str = "info", descriptor: int = 2) -> None:
    """Send all logging of this process, also that of libraries, to ``descriptor``. May be called again.

    ``log_format`` is ``json`` or ``console``; ``log_level`` one of ``debug``, ``info``, ``warning``, ``error``.
    """
    out = Line(descriptor)
    for line in _open:
        line.close()
    _open[:] = [out]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _exception,
            _as_json if log_format == "json" else _as_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[log_level]),
        logger_factory=lambda *_: _Logger(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Libraries()]
    # What libraries say below this may hold addresses with queries, or headers.
    root.setLevel(logging.WARNING)


class Line:
    """Writes whole lines to a descriptor and never waits for its reader."""

    def __init__(self, descriptor: int) -> None:
        """Write to ``descriptor`` in the way that its kind of file needs to not wait."""
        self.dropped = 0
        self._write, self.close = _writer(descriptor)

    def write(self, line: str) -> None:
        """Write ``line``, or drop and count it."""
        if self.dropped and self._send(f'{{"event": "log.dropped", "level": "warning", "lines": {self.dropped}}}\n'.encode()):
            self.dropped = 0
        if not self._send(line.encode("ascii", "backslashreplace") + b"\n"):
            self.dropped += 1

    def _send(self, line: bytes) -> bool:
        try:
            self._write(line)
        except OSError:
            return False
        return True


class _Logger:
    """What structlog hands finished lines to: one method for each level."""

    def __init__(self, out: Line) -> None:
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = self.exception = out.write
        self.fatal = self.warn = self.failure = self.err = self.log = out.write


class _Libraries(logging.Handler):
    """Tells that a library logged something, where and how bad; not what, since that is not ours to vouch for."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, "library.message", logger=record.name, where=f"{record.module}:{record.lineno}"
        )


def _writer(descriptor: int) -> tuple[Callable[[bytes], object], Callable[[], None]]:
    """Return what writes bytes to ``descriptor`` at once or raises ``OSError``, and what gives back what that holds."""
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(kind):
        peer = socket.socket(fileno=os.dup(descriptor))
        return lambda line: peer.send(line, socket.MSG_DONTWAIT), peer.close
    if stat.S_ISFIFO(kind):
        # An open file description of our own: O_NONBLOCK on the inherited one would hit everybody who shares it.
        try:
            own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return lambda line: _write_if_ready(descriptor, line), lambda: None
        return lambda line: os.write(own, line), lambda: os.close(own)
    return lambda line: os.write(descriptor, line), lambda: None


def _write_if_ready(descriptor: int, line: bytes) -> None:
    """Write where poll(2) says that a whole line has room."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    os.write(descriptor, line)


def _exception(_logger: object, _method: str, event: Event) -> Event:
    """Replace an exception by its type, the places it came through, and its text only where it is an error of ours."""
    told = event.pop("exc_info", None)
    error = told if isinstance(told, BaseException) else sys.exc_info()[1] if told else None
    if error is not None:
        event["error"] = type(error).__name__
        event["where"] = _places(error.__traceback__)
        if isinstance(error, PrismVaultError):
            event["message"] = error.line()
    return event


def _places(trace: TracebackType | None) -> list[str]:
    places = []
    while trace is not None:
        places.append(f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}")
        trace = trace.tb_next
    return places


def _as_json(_logger: object, _method: str, event: Event) -> str:
    """Return one JSON object, time and level first; one that is too long keeps these and says how long it was."""
    ordered = {key: event[key] for key in _FIRST if key in event} | dict(event)
    line = _ENCODER.encode(ordered)
    if len(line) >= LONGEST_LINE:
        kept = {key: str(ordered[key])[:200] for key in _FIRST if key in ordered}
        line = json.dumps({**kept, "cut": len(line)})
    return line


def _as_text(_logger: object, _method: str, event: Event) -> str:
    """Return one line for a person: time, level, event, then the rest as ``key=value`` with values as in JSON."""
    head = [str(event.pop(key, "")) for key in _FIRST]
    rest = (f"{json.dumps(key)[1:-1]}={json.dumps(value, default=_foreign)}" for key, value in event.items())
    line = " ".join([f"{head[0]} {head[1]:8} {json.dumps(head[2])[1:-1]}", *rest])
    return line if len(line) < LONGEST_LINE else line[: LONGEST_LINE - 4] + "..."


def _foreign(value: object) -> str:
    """Return what is told of a value that JSON has no word for: paths by themselves, else only its type."""
    return str(value) if isinstance(value, os.PathLike) else f"<{type(value).__name__}>"


_ENCODER: Final = json.JSONEncoder(default=_foreign)
