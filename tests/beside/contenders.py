"""prism-vault and OpenBao's own agent at one OpenBao: each gives a secret to a file and to a command that has a daemon."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from tests.support import bao_agent
from tests.support.agent import POLICY, AgentProcess
from tests.support.bao_agent import BaoAgent
from tests.support.central import CentralProcess
from tests.support.openbao import OpenBao
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

POLL, GRACE = 1.0, 3.0
# So long what a scope of the strict agent gave out may be used without the server.
STALE = 4.0
# It says what value it has, and leaves a daemon that has it too; the second ignores SIGTERM.
COMMAND = 'setsid sleep 1000 & echo "$KEY" >> {}; exec sleep 1000'
DEAF = 'trap "" TERM; echo "$KEY" >> {}; while :; do sleep 1; done'


class Place:
    """One OpenBao, one central, agents of ours between them, and a directory in memory for what is rendered.

    ``agent`` is as it is shipped, ``strict`` has the settings that leave nothing.
    """

    def __init__(self, directory: Path, openbao: OpenBao, central: CentralProcess, watch: float) -> None:
        """Make the agents; they are started by whoever uses them. ``watch`` is how many seconds OpenBao's agent has at least."""
        self.watch = watch
        self.directory, self.openbao, self.central = directory, openbao, central
        self.agent = self._make("shipped", "", "")
        self.strict = self._make("strict", 'on_failure = "clear"\n', 'on_end = "clear"\n')

    @property
    def agents(self) -> dict[str, AgentProcess]:
        """Both, by their roles."""
        return {"shipped": self.agent, "strict": self.strict}

    def role(self, name: str) -> tuple[Path, Path]:
        """Return the credentials of a role of its own."""
        self.openbao.policy("prism-vault", POLICY)
        return self.openbao.approle(name, ["prism-vault"])

    def _make(self, name: str, auth: str, agent: str) -> AgentProcess:
        (self.directory / name).mkdir()
        role_id, secret_id = self.role(name)
        return AgentProcess(
            self.directory / name, self.openbao, self.central, host=name, vault='poll = "1s"',
            agent=f'{agent}files = "{files_of(self.directory, name)}"\nfiles_risks = ["swap"]',
            auth=f'method = "approle"\nrole_id_file = "{role_id}"\nsecret_id_file = "{secret_id}"\n{auth}',
        )  # fmt: skip


def files_of(directory: Path, name: str) -> Path:
    """Return where an agent of ours renders."""
    return directory / f"{name}-files"


@contextlib.contextmanager
def place(watch: float) -> Iterator[Place]:
    """Run the servers and our agent."""
    directory = Path(tempfile.mkdtemp(prefix="pv-", dir="/dev/shm"))
    directory.chmod(0o755)
    try:
        for each in ("bao", "central"):
            (directory / each).mkdir(mode=0o700)
        hosts = {"shipped": ["*"], "strict": ["*"]}
        with OpenBao(directory / "bao") as openbao, CentralProcess(directory / "central", agents=hosts) as central:
            made = Place(directory, openbao, central, watch)
            with made.agent, made.strict:
                wait_until(lambda: all(agent.status()["signals"]["connected"] for agent in made.agents.values()))
                yield made
    finally:
        for name in ("shipped", "strict"):
            if (mounted := files_of(directory, name)).is_mount():
                subprocess.run(["umount", str(mounted)], check=True)
        shutil.rmtree(directory)


class Contender(Protocol):
    """Who gives the secret ``secret/NAME`` to a file and to a command, in a ``with``."""

    name: str
    path: str
    file: Path
    said: Path

    def __enter__(self) -> Self:
        """Begin, and return when both have the value."""
        ...

    def processes(self) -> list[int]:
        """Return the processes that have the value."""
        ...

    def __exit__(self, *_error: object) -> None:
        """End whatever is left."""
        ...


class _Given:
    """What a contender gives out, and what is left of it."""

    def __init__(self, at: Place, kind: str, *, deaf: bool = False) -> None:
        """Store a first value; ``deaf`` is for a command that ignores SIGTERM."""
        self.at = at
        self.path = f"{kind}-{secrets.token_hex(4)}"  # in every value: what another run of the tests has is not ours to end
        self.said = at.directory / f"{self.path}.said"
        self.script = (DEAF if deaf else COMMAND).format(self.said)
        self.values: list[str] = []
        self.write()

    def write(self) -> str:
        """Store another value, and return it."""
        self.values.append(f"{self.path}-{len(self.values)}")
        self.at.openbao.kv_put(f"secret/{self.path}", {"key": self.values[-1]})
        return self.values[-1]

    def rendered(self, file: Path) -> bool:
        """Tell whether a file has the newest value."""
        with contextlib.suppress(OSError):
            return self.values[-1] in file.read_text()
        return False

    def told(self) -> bool:
        """Tell whether a command has said that it has the newest value."""
        return self.rendered(self.said)

    def processes(self) -> list[int]:
        """Return the processes that have one of the values in their environment."""
        found = []
        marks = [f"KEY={value}".encode() for value in self.values]
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                block = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
                if any(mark in block for mark in marks):
                    found.append(int(name))
        return found

    def end_processes(self) -> None:
        """Kill what is left."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Ours(_Given):
    """prism-vault: one agent, and ``exec --supervise``, whose command is started anew at a rotation."""

    name = "prism-vault"

    def __init__(self, at: Place, *, strict: bool = False, deaf: bool = False, supervised: bool = True, poll: str = "1s") -> None:
        """Make the scope, which is looked after every ``poll``, of the agent as shipped or of the ``strict`` one.

        ``supervised``: else there is nothing of ours above the command, which becomes that itself.
        """
        super().__init__(at, "ours", deaf=deaf)
        self.agent = at.strict if strict else at.agent
        self.supervised = supervised
        self.file = files_of(at.directory, "strict" if strict else "shipped") / self.path / "web.env"
        self.agent.scope(
            self.path, {"KEY": f"vault://secret/{self.path}#key"}, grace=f"{GRACE:.0f}s", poll=poll,
            files=[{"path": "web.env", "format": "systemd"}],
            on_rotate="restart", rotate_limits={"min_interval": "0s", "max_per_hour": 3600},
            **({"stale_ok": f"{STALE:.0f}s"} if strict else {}),
        )  # fmt: skip
        self.supervisor: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        agent = self.agent
        agent.hang_up()
        wait_until(lambda: self.path in [scope["name"] for scope in agent.status()["scopes"]])
        assert agent.http("POST", "/v1/render", f'{{"scopes": ["{self.path}"]}}'.encode())[0] == 200
        self.supervisor = agent.spawn(
            "--scope", self.path, *(["--supervise"] if self.supervised else []), "--", "/bin/sh", "-c", self.script
        )
        wait_until(lambda: self.rendered(self.file) and self.told())
        wait_until(lambda: any(self.path in run["scopes"] for run in agent.status()["runs"]))
        return self

    def __exit__(self, *_error: object) -> None:
        assert self.supervisor is not None
        self.supervisor.kill()
        self.end_processes()  # a daemon has our end of the pipes, too
        self.supervisor.communicate()


class Theirs(_Given):
    """OpenBao's agent, twice, since one does not do both: one for the file, one for the command."""

    name = "bao agent"

    def __init__(self, at: Place, *, deaf: bool = False, settings: str = bao_agent.FASTEST) -> None:
        """Make both, with these lines of ``settings`` beside the login and what they give out."""
        super().__init__(at, "theirs", deaf=deaf)
        self.file = at.directory / f"{self.path}.env"
        self.role = self.path
        head = settings + bao_agent.login(at.openbao.address, at.role(self.role))
        value = bao_agent.value(self.path, "key")
        command = bao_agent.in_environment({"KEY": value}, ["/bin/sh", "-c", self.script])
        self.filer = BaoAgent(at.directory / f"{self.path}-file", head + bao_agent.in_file(self.file, f"KEY={value}\n"))
        self.parent = BaoAgent(at.directory / f"{self.path}-exec", head + command)

    def __enter__(self) -> Self:
        self.filer.__enter__()
        self.parent.__enter__()
        wait_until(lambda: self.rendered(self.file) and self.told())
        return self

    def __exit__(self, *_error: object) -> None:
        self.filer.__exit__()
        self.parent.__exit__()
        self.end_processes()
