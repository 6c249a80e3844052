"""Runs of a scope whose secret is rotated: a command that tells of each signal that it gets, and what status says of it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.files import Filed

LISTENER = """
import signal
ours = [signal.SIGHUP, signal.SIGUSR1]
signal.pthread_sigmask(signal.SIG_BLOCK, ours)
print("up", flush=True)
while True:
    print(signal.Signals(signal.sigwait(ours)).name, flush=True)
"""
SLEEPER = "print('up', flush=True); import signal; signal.signal(signal.SIGTERM, signal.SIG_DFL); signal.pause()"


class Held:
    """A process that holds the values of a scope, started by a plain exec."""

    def __init__(self, made: Filed, *scopes: str, script: str = SLEEPER, words: tuple[str, ...] = ()) -> None:
        named = [word for scope in scopes for word in ("--scope", scope)]
        self.made = made
        self.process: subprocess.Popen[str] = made.stack.agent.spawn(*named, *words, "--", sys.executable, "-Ic", script)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n", self.process.communicate()

    def hear(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().removeprefix("SIG").rstrip("\n")

    @property
    def told(self) -> dict[str, Any]:
        """What status says of it; empty where that is nothing."""
        runs = self.made.stack.agent.status()["runs"]
        return next((run for run in runs if run["pid"] == self.process.pid), {})

    def lives(self) -> bool:
        """Tell whether it runs."""
        return self.process.poll() is None

    def end(self) -> None:
        """End it, whatever it is doing."""
        self.process.kill()
        self.process.communicate()


def noted(made: Filed, reason: str, of: str) -> list[str]:
    """Return the messages of the rows of this reason that name this."""
    return [row["message"] for row in noted_rows(made, reason, of)]


def noted_rows(made: Filed, reason: str, of: str) -> list[dict[str, Any]]:
    """Return the rows of this reason whose message names this."""
    rows = [event["fields"] for event in made.stack.central.events()]
    return [row for row in rows if row.get("reason") == reason and of in row["message"]]


def put(made: Filed, name: str, number: int, path: str = "") -> None:
    """Give a scope's secret a new value."""
    made.stack.openbao.kv_put(f"secret/{path or name}", {"key": made.value(name, number)})


def stale(held: Held) -> dict[str, Any]:
    """Wait until the agent knows that a run holds what is not the newest; return what status says."""
    wait_until(lambda: held.told.get("stale"), 30)
    return held.told
