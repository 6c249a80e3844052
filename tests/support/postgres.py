"""A real PostgreSQL cluster of the test's own: on a Unix socket and a free port of loopback, durable as in production."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import psutil
import psycopg
from psycopg import sql

from tests.support.as_user import NOBODY
from tests.support.processes import free_port, stop_running
from tests.support.waiting import wait_until

SERVICE = "prism_vault_central"


def binaries() -> Path:
    """Return the directory of ``initdb`` and ``postgres``: where Debian puts them, or on the PATH."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or ([Path(on_path)] if on_path else [])
    assert found, "PostgreSQL's server is needed: apt-get install postgresql"
    return found[-1].parent


class PostgresServer:
    """Starts, stops, kills and restarts a cluster. Its administrator is ``postgres``, without a password, on loopback only.

    ``settings`` are further ones of the server's, which hold from its next start.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings: dict[str, str] = {}
        self.database = "audit"
        self._numbers = itertools.count(1)
        # A directory of its own: those of pytest are closed to other users, and the server refuses to run as root.
        self._place = Path(tempfile.mkdtemp(prefix="pv-pg-"))
        self.data = self._place / "pg"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._rights: list[str] = []
        if os.geteuid() == 0:
            self._rights = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            os.chown(self._place, NOBODY, NOBODY)
        # Tests end servers and never the machine's power: what initdb writes need not be on the disk, and it takes half the time.
        words = ("--auth=trust", "-E", "UTF8", "--locale=C", "--no-instructions", "--no-sync")
        self._run("initdb", "-D", str(self.data), "-U", "postgres", *words)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()
        shutil.rmtree(self._place)

    def url(self, role: str = SERVICE, database: str = "") -> str:
        """Return the URL of a database for a role, by default the one that this server is there for."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database or self.database}"

    @property
    def owner_url(self) -> str:
        """The URL of the administrator."""
        return self.url("postgres")

    def start(self) -> Self:
        """Start the server and return when it answers; make the database ``audit`` where there is none."""
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 100}
        settings |= self.settings
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.directory / "pg.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command("--pdeathsig=KILL", "postgres", "-D", str(self.data), *options),
                stdout=log,
                stderr=log,
                cwd="/",
            )
        wait_until(self._answers, timeout=60)
        with psycopg.connect(self.url("postgres", "postgres"), autocommit=True) as admin:
            if admin.execute("SELECT 1 FROM pg_database WHERE datname = 'audit'").fetchone() is None:
                admin.execute("CREATE DATABASE audit")
        return self

    def create(self, database: str, template: str = "template0") -> None:
        """Make another database, a copy of ``template``, to which nobody may be connected."""
        with psycopg.connect(self.url("postgres", "postgres"), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (database, template))))

    def fresh(self) -> Self:
        """Return the same running server with an empty database of its own; whoever started the server ends it."""
        other = copy.copy(self)
        other.database = f"audit{next(self._numbers)}"
        other.create(other.database)
        return other

    def stop(self) -> None:
        """End the server as a service manager does, without waiting for its clients."""
        self._end(signal.SIGINT)

    def pause(self) -> None:
        """Make the server hang: it takes connections and bytes as the kernel does for it, and answers nothing."""
        for each in self._everyone():
            stop_running(each.pid)

    def resume(self) -> None:
        """Let a paused server go on."""
        for each in self._everyone():
            each.resume()

    def kill(self) -> None:
        """End the server and all its processes at once; what is not in its files is gone."""
        everyone = self._everyone()[1:]
        self._end(signal.SIGKILL)
        for each in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(everyone, 10)

    def _everyone(self) -> list[psutil.Process]:
        """Return the server's first process, and then those that it has started."""
        assert self.process is not None
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(90)
            self.process = None

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "pg.log").read_text()
        try:
            psycopg.connect(self.url("postgres", "postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(self._command("--no-new-privs", program, *arguments), check=True, capture_output=True, cwd="/")

    def _command(self, option: str, program: str, *arguments: str) -> list[str]:
        return ["setpriv", option, *self._rights, str(binaries() / program), *arguments]
