"""One host with its agent, between a provider and a central, in simulated time: what may happen to them, and what is out there.

The agent's parts are the real ones, made and run as ``agent/agent.py`` does. Replaced are its edges: the provider behind the
workers, the way to central, the signals that a process gets, and what tells that a file of the configuration changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from prism_vault_agent import log as logs
from prism_vault_agent.agent import agent, parts, reload
from prism_vault_agent.agent.front import front
from prism_vault_agent.agent.front.listener import Listener
from prism_vault_agent.agent.front.peer import Peer
from prism_vault_agent.agent.notify import Notifier
from prism_vault_agent.agent.trees import hierarchy
from prism_vault_agent.audit import journal
from prism_vault_agent.audit.target import ANY, Target
from prism_vault_agent.config.apart import Configuration
from prism_vault_agent.config.load import load
from prism_vault_agent.errors import PrismVaultError
from prism_vault_agent.model import Request
from prism_vault_agent.process import Hardening
from prism_vault_agent.scope import ScopeName
from prism_vault_agent.sink import record
from tests.model.central import Central, CentralHttp, SignalStream
from tests.model.clock import Clock, Crash, Loop
from tests.model.host import Processes, signalling
from tests.model.provider import Provider
from tests.model.workers import SimulatedWorkers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from prism_vault_agent.config.settings import Settings
    from prism_vault_agent.worker.messages import Message

GRACE: Final = 5
FILES: Final = ("web", "db")
PATHS: Final = ("secret/web", "secret/other")
# What a crash leaves is kept for ever: what Python does at the end of a coroutine, a killed process does not do.
_LEFT: Final[list[object]] = []
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_LEFT))

_WEB: Final = {
    "env": {"WEB_KEY": "vault://secret/web#key", "WEB_OTHER": "vault://secret/other#key"},
    "files": [{"path": "web.env", "format": "systemd", "mode": "0440"}, {"path": "web.json", "format": "json"}],
}
_DB: Final = {
    "env": {
        "DB_USER": "vault://database/creds/db#username",
        "DB_PASSWORD": "vault://database/creds/db#password",
        "DB_KEY": "vault://secret/web#key",
    },
    "files": [{"path": "db.env", "format": "dotenv"}],
}
_BOTH: Final = {
    "env": {"OTHER": "vault://secret/other#key", "PASSWORD": "vault://database/creds/db#password"},
    "ttl": "30m",
    "on_rotate": "terminate",
    "rotate_limits": {"max_per_hour": 1000},
}
CONFIGURATIONS: Final[dict[str, dict[str, Any] | None]] = {
    "all": {"web": _WEB, "db": _DB, "both": _BOTH},
    "without web": {"db": _DB, "both": _BOTH},
    "without db": {"web": _WEB, "both": _BOTH},
    "nothing": {},
    "web changed": {
        "web": {**_WEB, "env": {"WEB_KEY": "vault://secret/web#key", "WEB_SAME": "vault://secret/web#key"}},
        "db": _DB,
        "both": _BOTH,
    },
    "db of another user": {"web": _WEB, "db": {**_DB, "callers": [{"kind": "operator", "uid": 54321}]}, "both": _BOTH},
    "broken": None,
}

# What may be wrong with the two services; the last one ends it all.
TROUBLE: Final = (
    "provider away", "provider back", "provider refuses", "provider loses answers", "engine down", "replica behind",
    "central away", "central back", "central denies", "central loses answers", "workers lost", "all well",
)  # fmt: skip


@dataclass(frozen=True)
class Out:
    """Something that is out there: files of a scope, or a process with values. ``versions`` are of KV, by path."""

    what: str
    reservation: str
    scopes: frozenset[str]
    run_ref: str | None
    versions: dict[str, int]


class Here(Configuration):
    """A configuration that is read in this process: another one takes time of which the simulated clock knows nothing."""

    def load(self, _before: object = None) -> Settings:
        """Return the settings."""
        return load(self._main, {})


class World:
    """All of it. ``defects`` are what was found wrong while it happened."""

    def __init__(self, template: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pv-model-", dir="/dev/shm"))
        self.clock = Clock()
        self.defects: list[str] = []
        self.counts = {"crashes": 0, "starts": 0}
        self.state, self.files = self.directory / "state", self.directory / "files"
        self.socket, self.config, self.log = (self.directory / name for name in ("agent.sock", "agent.toml", "agent.log"))
        for made in (self.state, self.files, self.directory / "scopes.d"):
            made.mkdir(mode=0o700)
        (self.files / ".staged").mkdir(mode=0o700)  # a place that is not empty is not mounted over
        self._patches = contextlib.ExitStack()
        self._patches.enter_context(self.clock.told())
        self.central = Central(self.directory, template, self.clock)
        self.provider = Provider(self.clock, self._read)
        self.processes = Processes()
        self.log_file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._write_config()
        self.reload_to("all")
        for path in PATHS:
            self.provider.write(path)
        self.loop: Loop | None = None
        self.parts: parts.Parts | None = None
        self.crash_kills_workers = False
        self._workers: SimulatedWorkers | None = None
        self._asked: list[asyncio.Task[Any]] = []
        self._connections: list[socket.socket] = []
        self._pidfds: list[int] = []
        self._inodes: dict[str, int] = {}
        self._patch()

    # What the agent is.

    def _patch(self) -> None:
        made = self._patches.enter_context
        made(patch.object(parts, "Workers", self._make_workers))
        made(patch.object(parts, "CentralHttp", lambda *_: CentralHttp(self.central)))
        made(patch.object(parts, "SignalStream", lambda *_: SignalStream(self.central)))
        made(patch.object(agent, "_signals", lambda: (self._stop, self._hang_up)))
        made(patch.object(reload, "changes", self._changes))
        made(patch.object(front, "attest", self._attest))
        made(patch.object(hierarchy, "where", lambda _pid: None))  # to move a process the kernel waits for all processors
        stubborn = lambda pid: any(each.stubborn for each in self.processes.all if each.pid == pid)  # noqa: E731
        made(patch.object(signal, "pidfd_send_signal", signalling(signal.pidfd_send_signal, stubborn)))

    def _make_workers(self, settings: Any, ready: int) -> SimulatedWorkers:
        self._workers = SimulatedWorkers(settings, ready, provider=self.provider, before=self._before, defects=self.defects)
        return self._workers

    async def _changes(self, *_: object) -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()

    def _attest(self, connection: socket.socket) -> Any:
        self._connections.append(connection)
        return self.processes.attest(connection, self._pidfds)

    def start(self, fuse: int | None = None) -> None:
        """Start an agent, as ``agent/agent.py`` does; it crashes after so many turns of its loop, where that is said."""
        assert self.loop is None
        self.counts["starts"] += 1
        if self.configured == "broken":
            self.reload_to("all", told=False)
        logs.configure("json", "debug", self.log_file)
        self._stop, self._hang_up = asyncio.Event(), asyncio.Event()
        self.socket.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self.socket))
        listening.listen(128)
        listening.setblocking(False)
        found = os.lstat(self.socket)
        self._listening = Listener(listening, str(self.socket), (found.st_dev, found.st_ino), -1, ours_to_unlink=False)
        self.loop = Loop(self.clock, self._each_turn)
        self.loop.turns.fuse = fuse
        settings = load(str(self.config), {})
        self.parts = parts.Parts.make(settings, (self._listening, None), Hardening(True, True), Here(str(self.config), {}), None)
        self._main = self.loop.create_task(agent.serve(self.parts, Notifier({})))
        self.run(0.2)

    def stop(self) -> None:
        """Stop the agent with SIGTERM."""
        assert self.loop is not None
        self._stop.set()
        for task in self._asked:  # whoever asked is cut off, as the front does
            task.cancel()
        for _ in range(200):
            if self._main.done() or self.parts is None:
                break
            self.run(0.1)
        if self.loop is not None:
            assert self._main.done(), "the agent does not stop"
            self._forget(killed=False)

    def crash(self) -> None:
        """Drop the agent where it is: nothing of it runs any more, and the kernel closes what it had open."""
        self.counts["crashes"] += 1
        self._forget(killed=self.crash_kills_workers)

    def _forget(self, *, killed: bool) -> None:
        assert self.loop is not None
        assert self.parts is not None
        assert self._workers is not None
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it will be pending for ever
        _LEFT.append((tasks, self._main, self.parts, self._listening, list(self.loop._ready)))  # type: ignore[attr-defined]
        self._workers.crash(killed=killed)
        for connection in self._connections:
            connection.close()
        for pidfd in self._pidfds:
            with contextlib.suppress(OSError):
                os.close(pidfd)
        if self.parts.files._place is not None:
            self.parts.files._place.close()
        self._listening.socket.close()
        self._connections, self._pidfds, self._asked = [], [], []
        self.loop.close()
        self.central.forget()
        self.loop = self.parts = self._workers = None
        for client in self.processes.all:
            client.collect(self.clock.monotonic)
            client.hang_up()

    # What happens.

    def run(self, seconds: float) -> None:
        """Let time pass, for the agent if there is one; it may crash meanwhile."""
        end = self.clock.monotonic + seconds
        if self.loop is not None:
            try:
                self.loop.run_for(seconds)
            except Crash:
                self.crash()
            else:
                if self._main.done() and not self._stop.is_set():
                    self._main.result()
                    self.defects.append("the agent ended by itself")
        self.clock.pass_(max(0.0, end - self.clock.monotonic))
        self.provider.passed()
        if not self.central.away:
            self.central.sweep()
        self.processes.collect(self.clock.monotonic)

    def do(self, act: Coroutine[Any, Any, Any]) -> asyncio.Task[Any] | None:
        """Have the agent begin something; its refusal is as good as its success."""
        if self.loop is None:
            act.close()
            return None
        task = self.loop.create_task(self._refusable(act))
        self._asked.append(task)
        return task

    async def _refusable(self, act: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await act
        except PrismVaultError as error:
            return error

    def burn(self, turns: int) -> None:
        """Have the agent crash after so many turns of its loop."""
        if self.loop is not None:
            self.loop.turns.fuse = turns

    def exec(self, scopes: tuple[str, ...], run_ref: str, *, stubborn: bool, seconds: float) -> None:
        """Have a process ask for the values of scopes."""
        client = self.processes.start(scopes, run_ref, self.clock.monotonic, stubborn=stubborn, seconds=seconds)
        self.processes.ask(client, str(self.socket), seconds)

    def render(self, scope: str) -> asyncio.Task[Any] | None:
        """Have files rendered."""
        if self.parts is None:
            return None
        peer = Peer(os.geteuid(), os.getegid(), os.getpid(), os.pidfd_open(os.getpid()), guaranteed=True)
        try:
            asked = peer.caller()
        finally:
            peer.close()
        return self.do(self.parts.requests.render(asked, Request((ScopeName(scope),))))

    def clear(self, scope: str) -> None:
        """Have files cleared, which is done at once."""
        if self.parts is not None and self.loop is not None:
            self._at_once(partial(self.parts.requests.clear, os.geteuid(), (ScopeName(scope),)))

    def order(self, kind: str, target: dict[str, Any]) -> None:
        """Order a rotation or revocation on this host."""
        if self.parts is None:
            return
        meant = Target.parse(target, [ANY])
        if kind == "rotation":
            self._at_once(partial(self.parts.orders.rotate, os.geteuid(), meant))
        else:
            self.do(self.parts.orders.revoke(os.geteuid(), meant))

    def _at_once(self, act: Any) -> None:
        async def acting() -> Any:
            return act()

        self.do(acting())

    def reload_to(self, name: str, *, told: bool = True) -> None:
        """Write another configuration, and have the agent told of it."""
        self.configured = name
        scopes = CONFIGURATIONS[name]
        lines = ["this is no TOML"] if scopes is None else []
        for scope, more in (scopes or {}).items():
            common: dict[str, Any] = {
                "project": "prism", "environment": "test", "purposes": ["test"], "grace": f"{GRACE}s",
                "callers": [{"kind": "operator", "uid": os.geteuid()}],
            }  # fmt: skip
            lines += [f"[scopes.{scope}]", *(f"{key} = {_toml(value)}" for key, value in {**common, **more}.items())]
        self._private(self.directory / "scopes.d" / "all.toml", "\n".join(lines) + "\n")
        if told and getattr(self, "loop", None) is not None:
            self._hang_up.set()

    def lacks(self, scope: str) -> bool:
        """Tell whether the configuration says that there is no such scope; a broken one says nothing."""
        scopes = CONFIGURATIONS[self.configured]
        return scopes is not None and scope not in scopes

    def trouble(self, what: str) -> None:
        """Have something go wrong, or be well again."""
        provider, central = self.provider, self.central
        if what.startswith("provider "):
            provider.away = what == "provider away"
        if what.startswith("central "):
            central.away = what == "central away"
        provider.refusing |= what == "provider refuses"
        provider.engine_down |= what == "engine down"
        provider.lagging |= what == "replica behind"
        provider.losing = 2 if what == "provider loses answers" else provider.losing
        provider.dying = 2 if what == "workers lost" else provider.dying
        central.losing = 2 if what == "central loses answers" else central.losing
        central.denied = frozenset(("web", "both")) if what == "central denies" else central.denied
        if central.away:
            central.lose()
        if what == "all well":
            provider.away = provider.refusing = provider.engine_down = provider.lagging = central.away = False
            provider.losing = provider.dying = central.losing = 0
            central.denied = frozenset()

    def mend(self) -> None:
        """Have everybody answer, and an agent run that has every scope."""
        self.trouble("all well")
        if self.loop is not None:
            self.loop.turns.fuse = None
        else:
            self.start()
        self.reload_to("all")
        self.run(10.0)

    def _write_config(self) -> None:
        for name in ("role-id", "secret-id", "central-token"):
            self._private(self.directory / name, f"s3cr3t-{name}\n")
        self._private(
            self.config,
            f'[agent]\nhost = "server1"\nsocket = "{self.socket}"\nstate = "{self.state}"\nfiles = "{self.files}"\n'
            'files_risks = ["swap"]\n[vault]\naddress = "https://provider.test"\npoll = "60s"\n'
            f'[vault.auth]\nmethod = "approle"\nrole_id_file = "{self.directory}/role-id"\n'
            f'secret_id_file = "{self.directory}/secret-id"\n'
            f'[central]\nurl = "http://127.0.0.1:1"\ntoken_file = "{self.directory}/central-token"\n',
        )

    def _private(self, path: Path, text: str) -> None:
        path.touch(mode=0o600)
        path.write_text(text)

    # What is seen.

    def out(self) -> list[Out]:
        """Return what is out there."""
        found = [
            Out(f"process {each.pid}", each.reservation, frozenset(each.scopes), each.run_ref, self._versions(each.values))
            for each in self.processes.holding()
        ]
        place = os.open(self.files, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in os.listdir(place):
                if name.startswith("."):
                    continue
                recorded = record.read(place, name)
                if recorded is None:
                    self.defects.append(f"the files of {name} have no record")
                    continue
                told = recorded[0]
                versions = {each["path"]: each["version"] for each in told["leases"] if each["version"] is not None}
                found.append(Out(f"files of {name}", told["reservation"], frozenset((name,)), None, versions))
        finally:
            os.close(place)
        return found

    def _versions(self, values: dict[str, str]) -> dict[str, int]:
        return {
            path: number
            for path, versions in self.provider.kv.items()
            for number, version in enumerate(versions, 1)
            if version.value in values.values()
        }

    def outdated(self) -> list[Out]:
        """Return what is out there and is to be replaced or ended, because the provider has a newer version that stands."""
        newest = {path: len(versions) for path, versions in self.provider.kv.items() if versions[-1].stands}
        return [
            each
            for each in self.out()
            if (each.what.startswith("files") or "both" in each.scopes)
            and any(number < newest.get(path, 0) for path, number in each.versions.items())
        ]

    def journalled(self, name: str) -> dict[str, Any]:
        """Return what a journal of the agent's says, as the next agent will read it."""
        found: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError), open(self.state / name) as lines:
            for line in lines:
                if line != "\n":
                    journal.take(found, line)
        return found

    def _each_turn(self) -> None:
        self.processes.collect(self.clock.monotonic)
        for name in FILES:
            try:
                inode = os.stat(f"{self.files}/{name}").st_ino
            except FileNotFoundError:
                self._inodes.pop(name, None)
                continue
            if self._inodes.get(name) != inode:
                self._inodes[name] = inode
                self._switched(name)

    def _switched(self, name: str) -> None:
        place = os.open(self.files, os.O_RDONLY | os.O_DIRECTORY)
        recorded = record.read(place, name)
        os.close(place)
        if recorded is None or "success" not in self.central.of(recorded[0]["reservation"]):
            self.defects.append(f"G1: files of {name} became visible before their success was on the log")

    def _before(self, job: Message) -> None:
        if job["do"] == "deliver":
            head = job["head"]
            audit_id = head.partition("X-Prism-Vault-Audit-Id: pva_")[2].partition("\r")[0]
            if "success" not in self.central.of(audit_id):
                self.defects.append("G1: values were delivered before their success was on the log")

    def _read(self, path: str, version: int | None, accessor: str) -> None:
        bound = {each["reference"].partition("#")[0] for row in self.central.open().values() for each in row["bindings"]}
        if f"vault://{path}" not in bound:
            self.defects.append(f"G2: {path} was read without a reservation")
        if version is None and accessor not in self.journalled("leases"):
            self.defects.append(f"leases: {path} was read by a token that is not in the journal")

    def close(self) -> None:
        """End everything."""
        if self.loop is not None:
            self.crash_kills_workers = True
            self._forget(killed=True)
        self.processes.end()
        self.central.close()
        self._patches.close()
        for line in logs._open:
            line.close()
        os.close(self.log_file)
        shutil.rmtree(self.directory)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
