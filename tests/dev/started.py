"""A real ``prism-vault dev`` for tests, and what is left of it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = str(Path(sys.executable).with_name("prism-vault"))
ENDED_WITHIN = 60.0
MOMENTS = ("starting OpenBao", "OpenBao answers", "central answers", "the agent answers")

_EXPORT = re.compile(r"export ([A-Z_]+)=(.*)")


class Dev:
    """One dev process, with its stderr read as it comes. It never outlives the test."""

    def __init__(self, *words: str, environ: Mapping[str, str] | None = None) -> None:
        """Start ``prism-vault dev`` with these words."""
        self.process = subprocess.Popen(
            [PROGRAM, "dev", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )
        self.errors: list[str] = []
        self._out = ""
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line.rstrip("\n"))
        self.process.stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.finish()

    def said(self, text: str) -> bool:
        """Tell whether a line on stderr holds ``text``."""
        return any(text in line for line in self.errors)

    def wait_for(self, text: str) -> None:
        """Wait until a line on stderr holds ``text``."""
        wait_until(lambda: self.said(text) or self.process.poll() is not None, ENDED_WITHIN)
        assert self.said(text), self.errors

    def finish(self) -> tuple[int, str]:
        """Return the exit status and what was printed on stdout."""
        assert self.process.stdout is not None
        if not self.process.stdout.closed:
            self._out = self.process.stdout.read()
            self.process.wait(ENDED_WITHIN)
            self._reading.join(10)
            self.process.stdout.close()
        return self.process.returncode, self._out

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal to dev alone and return its exit status."""
        self.process.send_signal(number)
        return self.finish()[0]


def dev(*words: str, environ: Mapping[str, str] | None = None) -> tuple[int, str, list[str]]:
    """Run ``prism-vault dev`` to its end; return its status, stdout and the lines of stderr."""
    with Dev(*words, environ=environ) as started:
        status, out = started.finish()
        return status, out, started.errors


def exported(env: Path) -> dict[str, str]:
    """Return the variables of an ``env`` file."""
    found = (_EXPORT.fullmatch(line) for line in env.read_text().splitlines())
    return {match[1]: shlex.split(match[2])[0] for match in found if match}


def processes_in(directory: Path) -> list[str]:
    """Return the command lines of all processes that work below ``directory`` or name it, but for ours."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = os.readlink(entry / "cwd")
        except OSError:
            continue
        if where.startswith(f"{directory}/") or (str(directory) in line and "pytest" not in line):
            found.append(f"{entry.name} {line}")
    return found
