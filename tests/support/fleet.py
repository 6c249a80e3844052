"""Many hosts at one central: an agent for each, with files and processes, and when the last of them was gone."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from tests.support import fleet_process
from tests.support.agent import AgentProcess
from tests.support.central import CentralProcess
from tests.support.fault_proxy import FaultProxy
from tests.support.openbao import OpenBao
from tests.support.processes import start_tied
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

AT_ONCE = 4
FILES = ("systemd", "sh", "docker", "dotenv", "json")


@dataclass
class HostOfFleet:
    """One host: its agent, the directory of its files, and the processes that hold values."""

    name: str
    agent: AgentProcess
    files: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def give_out(self, processes: int) -> None:
        """Render the five files, and start so many processes."""
        status, answer = self.agent.http("POST", "/v1/render", json.dumps({"scopes": ["web"]}).encode())
        assert status == 200, answer
        assert self.there() == len(FILES)
        for _ in range(processes):
            self.processes.append(self.agent.spawn("--scope", "web", "--", "sleep", "1000", stdout=None, stderr=None))
        wait_until(lambda: len(self.agent.status()["runs"]) == processes, 60)

    def there(self) -> int:
        """Return how many files there are."""
        return len(list((self.files / "web").glob("web.*")))

    def ready(self) -> bool:
        """Tell whether its agent works, and hears central."""
        with contextlib.suppress(OSError):
            return bool(self.agent.status()["ready"]) and not self.alone()
        return False

    def alone(self) -> bool:
        """Tell whether its agent does not hear central."""
        return not self.agent.status()["signals"]["connected"]


@dataclass
class Fleet:
    """The hosts between one OpenBao and one central. Those of ``cut_off`` reach central through ``proxy``."""

    openbao: OpenBao
    central: CentralProcess
    hosts: list[HostOfFleet]
    proxy: FaultProxy
    cut_off: list[HostOfFleet]

    def give_out(self, processes: int) -> None:
        """Have every host give out what it has."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda host: host.give_out(processes), self.hosts))


class Vanishing:
    """Notes when the last file or process of each host was gone, as a stranger sees it (seconds since 1970).

    ``whole`` are the hosts of which nothing is left.
    """

    def __init__(self, hosts: Sequence[HostOfFleet]) -> None:
        self.gone: dict[str, float] = {}
        self.whole: set[str] = set()
        self._hosts = list(hosts)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        poll = select.poll()
        living: dict[int, str] = {}
        for host in self._hosts:
            for process in host.processes:
                pidfd = os.pidfd_open(process.pid)
                living[pidfd] = host.name
                poll.register(pidfd, select.POLLIN)
        there = {host.name: host.files / "web" for host in self._hosts}
        while (living or there) and not self._stop.is_set():
            ended = poll.poll(5)
            now = time.time()
            for pidfd, _ in ended:
                self.gone[living.pop(pidfd)] = now
                poll.unregister(pidfd)
                os.close(pidfd)
            for name in [name for name, path in there.items() if not path.exists()]:
                del there[name]
                self.gone[name] = now
            self.whole = set(self.gone) - set(there) - set(living.values())
        for pidfd in living:
            os.close(pidfd)


@contextlib.contextmanager
def fleet(count: int, cut_off: int) -> Iterator[Fleet]:
    """Run ``count`` hosts, of which ``cut_off`` can be cut off from central; each has scope ``web`` and five files of it."""
    directory = Path(tempfile.mkdtemp(prefix="pv-", dir="/dev/shm"))
    names = [f"host-{number:03}" for number in range(count)]
    try:
        for each in ("bao", "central", *names):
            (directory / each).mkdir(mode=0o700)
        agents = {"server1": ["*"], **{name: ["*"] for name in names}}
        with (
            OpenBao(directory / "bao") as openbao,
            CentralProcess(directory / "central", agents=agents) as central,
            FaultProxy(urlsplit(central.url).port or 0) as proxy,
        ):
            openbao.kv_put("secret/web", {"key": "value"})
            hosts = [
                _host(name, directory / name, openbao, central, proxy.address if number < cut_off else "")
                for number, name in enumerate(names)
            ]
            start = [sys.executable, "-P", fleet_process.__file__]
            process = start_tied(start, directory=directory, log=directory / "fleet.log", stdin=subprocess.PIPE)
            try:
                assert process.stdin is not None
                with process.stdin as line:
                    for some in (hosts[at : at + AT_ONCE] for at in range(0, count, AT_ONCE)):
                        line.write("".join(f"{host.agent.config}\n" for host in some).encode())
                        line.flush()
                        for host in some:
                            wait_until(host.ready, 600)
                yield Fleet(openbao, central, hosts, proxy, hosts[:cut_off])
            finally:
                for running in (each for host in hosts for each in host.processes):
                    running.kill()
                    running.wait()
                process.terminate()
                process.wait(600)
    finally:
        for name in names:
            if (directory / name / "files").is_mount():
                subprocess.run(["umount", str(directory / name / "files")], check=True)
        shutil.rmtree(directory)


def _host(name: str, directory: Path, openbao: OpenBao, central: CentralProcess, central_url: str) -> HostOfFleet:
    files = directory / "files"
    agent = AgentProcess(
        directory,
        openbao,
        central,
        host=name,
        central_url=central_url,
        vault='poll = "60s"',
        agent=f'workers = 1\nfiles = "{files}"\nfiles_risks = ["swap"]',
    )
    written = [{"path": f"web.{each}", "format": each} for each in FILES]
    agent.scope("web", {"KEY": "vault://secret/web#key"}, files=written)
    return HostOfFleet(name, agent, files)
