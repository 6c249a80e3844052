"""Log lines on their way out, past a reader that may be slow, stop or go: no request ever waits for it."""

from __future__ import annotations

import json
import os
import queue
import threading
from typing import Final

MOST_WAITING: Final = 10_000
AT_ONCE: Final = 256
LAST_SECONDS: Final = 2.0


class LogLines:
    """A file as structlog needs one, whose thread writes to a descriptor.

    At most ``most`` lines wait. Those beyond them and those that could not be written are counted, and the next line that can
    be written behind them tells how many there were.
    """

    def __init__(self, descriptor: int, most: int = MOST_WAITING) -> None:
        """Write to ``descriptor``, which may block."""
        self._descriptor = descriptor
        self._most = most
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lost = 0
        self._counting = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="log-lines", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Take a whole line, with its end; never block."""
        if self._waiting.qsize() >= self._most:
            self._lose(1)
        else:
            self._waiting.put(text)

    def flush(self) -> None:
        """Do nothing: a line is on its way once it is written."""

    def close(self) -> None:
        """Write what waits, and return when it is done or its reader has let two seconds pass."""
        self._waiting.put(None)
        self._thread.join(LAST_SECONDS)

    def _run(self) -> None:
        ending = False
        while not ending:
            taken = [self._waiting.get()]
            while len(taken) < AT_ONCE and not self._waiting.empty():
                taken.append(self._waiting.get())
            lines = [line for line in taken if line is not None]
            ending = len(lines) < len(taken)
            try:
                self._pass_on("".join(lines).encode())
                self._tell_lost()
            except OSError:  # the reader is gone, or the disk is full; a line that is cut in two is lost too
                self._lose(len(lines))

    def _pass_on(self, content: bytes) -> None:
        while content:
            content = content[os.write(self._descriptor, content) :]

    def _lose(self, lines: int) -> None:
        with self._counting:
            self._lost += lines

    def _tell_lost(self) -> None:
        with self._counting:
            lost, self._lost = self._lost, 0
        if not lost:
            return
        line = {"lost": lost, "event": "log_lines_lost", "level": "error"}
        try:
            self._pass_on(json.dumps(line).encode() + b"\n")
        except OSError:
            self._lose(lost)
