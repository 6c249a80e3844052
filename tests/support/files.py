"""A stack whose agent renders files, and what a user does with them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.agent import LAUNCHER
from tests.support.stack import stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.stack import Stack

SYSTEMD = {"path": "web.env", "format": "systemd"}


@dataclass
class Filed:
    """A stack, and the directory in which its agent renders."""

    stack: Stack
    top: Path

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``prism-vault WORDS`` against the agent, as its user."""
        environment = self.stack.agent.environment()
        command = [*self.stack.agent.as_user, LAUNCHER, *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)

    def render(self, *words: str) -> str:
        """Render, and return what was said."""
        done = self.command("render", *words)
        assert done.returncode == 0, (done, self.stack.agent.log[-3000:])
        return done.stdout

    def refused(self, status: int, *words: str) -> str:
        """Fail unless a command ends with ``status`` and one line, without a value; return the line."""
        done = self.command(*words)
        assert (done.returncode, done.stdout) == (status, ""), (done, self.stack.agent.log[-3000:])
        assert done.stderr.count("\n") == 1 and self.stack.canary not in done.stderr
        return done.stderr

    def scope(self, name: str, **more: Any) -> str:
        """Make a scope with a secret of its own and a file, and have the agent know it; return its name."""
        return self.scopes(name, **more)[0]

    def scopes(self, *names: str, **more: Any) -> list[str]:
        """Make several such scopes, which the agent reads at once; return their names."""
        for name in names:
            self.stack.openbao.kv_put(f"secret/{name}", {"key": self.value(name, 1)})
            self.stack.agent.scope(name, {"KEY": f"vault://secret/{name}#key"}, **{"files": [SYSTEMD], **more})
        self.reload()
        wait_until(lambda: {*names} <= {scope["name"] for scope in self.stack.agent.status()["scopes"]})
        return list(names)

    def reload(self) -> None:
        """Have the agent read its configuration."""
        self.stack.agent.hang_up()

    def value(self, name: str, number: int) -> str:
        """Return a value of a scope's secret."""
        return f"{self.stack.canary}-{name}-{number}"

    def file(self, scope: str) -> str | None:
        """Return what stands in the file of a scope; None where there is none."""
        try:
            return (self.top / scope / "web.env").read_text()
        except FileNotFoundError:
            return None

    def whole(self, scope: str, number: int) -> str:
        """Return what must stand in it."""
        return f'KEY="{self.value(scope, number)}"\n'

    def told(self, scope: str) -> dict[str, Any] | None:
        """Return what status says of a scope's files."""
        return next((each for each in self.stack.agent.status()["files"] if each["scope"] == scope), None)

    def give(self, *paths: Path) -> None:
        """Make something the agent's user's."""
        for path in paths:
            os.chown(path, self.stack.agent.user, -1, follow_symlinks=False)

    def residue(self) -> list[str]:
        """Return what is staged."""
        return os.listdir(self.top / ".staged")

    def rows(self, audit_id: str) -> list[dict[str, Any]]:
        """Return the rows of one render."""
        return [event["fields"] for event in self.stack.central.events(reservation=audit_id.removeprefix("pva_"))]

    def ended(self, audit_id: str) -> str:
        """Return why a render is no longer out there, once that is on the log."""
        found = wait_until(lambda: [row for row in self.rows(audit_id) if row["kind"] == "cleared"], 30)
        assert len(found) == 1
        return str(found[0]["reason"])


@contextlib.contextmanager
def filed(*, poll: str = "1s", user: int | None = None, agent: str = "", vault: str = "", **options: Any) -> Iterator[Filed]:
    """Run a stack whose agent renders below a directory on a tmpfs and looks for changes every ``poll``.

    ``user`` is the agent's, where it is not ours; ``agent`` and ``vault`` are lines of these sections; the other options are
    those of ``stack``.
    """
    directory = Path(tempfile.mkdtemp(prefix="pv-", dir="/dev/shm"))
    directory.chmod(0o755)
    os.chown(directory, -1 if user is None else user, -1)
    top = directory / "files"
    try:
        with stack(
            vault=f'poll = "{poll}"\n{vault}',
            agent=f'files = "{top}"\nfiles_risks = ["swap"]\n{agent}',
            reservation_ttl="10s",
            central_lines='timeout = "3s"',
            user=user,
            **options,
        ) as made:
            yield Filed(made, top)
    finally:
        if top.is_mount():
            subprocess.run(["umount", str(top)], check=True)
        shutil.rmtree(directory)
