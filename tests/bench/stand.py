"""The stand that benchmarks run on: a real OpenBao, a real central, a real agent, and the peers' scripts beside them."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import bao_agent
from tests.support.agent import AgentProcess
from tests.support.central import CentralProcess
from tests.support.counting_proxy import CountingProxy
from tests.support.openbao import OpenBao

PYTHON = sys.executable
KEYS = 5

STDLIB_SCRIPT = """
import http.client, json, os, sys
from urllib.parse import urlsplit
address, role_id, secret_id, path = sys.argv[1:5]
connection = http.client.HTTPConnection(urlsplit(address).netloc)
login = {"role_id": open(role_id).read(), "secret_id": open(secret_id).read()}
connection.request("POST", "/v1/auth/approle/login", json.dumps(login))
token = json.load(connection.getresponse())["auth"]["client_token"]
connection.request("GET", "/v1/" + path, headers={"X-Vault-Token": token})
os.environ.update(json.load(connection.getresponse())["data"]["data"])
os.execvp(sys.argv[5], sys.argv[5:])
"""
HVAC_SCRIPT = """
import os, sys, hvac
address, role_id, secret_id, path = sys.argv[1:5]
client = hvac.Client(url=address, token="")
client.auth.approle.login(open(role_id).read(), open(secret_id).read())
os.environ.update(client.secrets.kv.v2.read_secret_version(path, raise_on_deleted_version=True)["data"]["data"])
os.execvp(sys.argv[5], sys.argv[5:])
"""


@dataclass
class Stand:
    """Everything that runs, and where scripts can be put."""

    directory: Path
    openbao: OpenBao
    central: CentralProcess
    agent: AgentProcess
    role_id: Path
    secret_id: Path
    counted: CountingProxy | None

    def script(self, text: str) -> list[str]:
        """Return the command line of a Python script that logs in, reads ``secret/bench`` and becomes its last arguments."""
        path = self.directory / f"script-{abs(hash(text))}.py"
        path.write_text(text)
        return [PYTHON, "-I", str(path), self.openbao.address, str(self.role_id), str(self.secret_id)]

    def bao_agent(self, *command: str, keys: Mapping[str, tuple[str, str]] | None = None) -> list[str]:
        """Return the command line of OpenBao's own agent in its process supervisor mode, around ``command``.

        ``keys`` maps a variable to the path below ``secret/`` and the key that it gets; by default the five of ``bench``.
        """
        config = self.directory / "bao-agent.hcl"
        named = keys or {f"KEY_{n}": ("bench", f"KEY_{n}") for n in range(KEYS)}
        variables = {name: bao_agent.value(path, key) for name, (path, key) in named.items()}
        config.write_text(self.bao_login() + bao_agent.in_environment(variables, command))
        return bao_agent.command_line(config)

    def bao_login(self) -> str:
        """Return the lines with which OpenBao's own agent logs in here."""
        return bao_agent.login(self.openbao.address, (self.role_id, self.secret_id))

    def environment(self) -> dict[str, str]:
        """Return the environment that every contender is started with."""
        return {**self.agent.environment(), "XDG_CACHE_HOME": str(self.directory / "cache"), "LANG": "C.UTF-8"}


@contextlib.contextmanager
def stand(
    scopes: Mapping[str, dict[str, str]] | None = None, *, proxied: bool = False, agent: str = "", vault: str = "", **more: Any
) -> Iterator[Stand]:
    """Set everything up with a scope ``bench`` of five keys, and take it down again; ``proxied`` counts what the agent asks.

    ``agent`` and ``vault`` are lines of those sections; ``more`` is in each scope.
    """
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        for part in ("bao", "central", "agent"):
            (directory / part).mkdir(mode=0o700)
        openbao = stack.enter_context(OpenBao(directory / "bao"))
        central = stack.enter_context(CentralProcess(directory / "central"))
        openbao.kv_put("secret/bench", {f"KEY_{n}": f"value-{n}-" + "x" * 32 for n in range(KEYS)})
        counted = stack.enter_context(CountingProxy(openbao.port)) if proxied else None
        address = counted.address if counted else ""
        running = AgentProcess(directory / "agent", openbao, central, vault_address=address, agent=agent, vault=vault)
        running.scope("bench", {f"KEY_{n}": f"vault://secret/bench#KEY_{n}" for n in range(KEYS)}, **more)
        for name, env in (scopes or {}).items():
            running.scope(name, env, **more)
        stack.enter_context(running)
        role_id, secret_id = openbao.approle("bench", ["prism-vault"])
        yield Stand(directory, openbao, central, running, role_id, secret_id, counted)


def interleaved(
    contenders: Mapping[str, tuple[list[str], int]], environment: dict[str, str], rounds: int
) -> dict[str, list[float]]:
    """Return milliseconds of each run; every round starts each contender once, so that drift hits all alike.

    A contender is a command and how many of the rounds it takes part in (slow ones need fewer).
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name, (command, most) in contenders.items():
            if turn < most:
                times[name].append(once(command, environment))
    return times


def once(command: list[str], environment: dict[str, str]) -> float:
    """Return the milliseconds that a command takes from start to end; it must succeed."""
    begun = time.perf_counter()
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    took = (time.perf_counter() - begun) * 1000
    if done.returncode:
        raise SystemExit(f"{command[:3]}: status {done.returncode}: {done.stderr.decode()[-300:]}")
    return took


def table(times: Mapping[str, list[float]], against: str) -> None:
    """Print median, fastest, and the ratio of medians against one contender."""
    base = statistics.median(times[against])
    print(f"{'':44}{'median':>9}{'min':>9}{'n':>5}{'ratio':>9}")
    for name, each in times.items():
        middle = statistics.median(each)
        print(f"{name:44}{middle:8.1f} {min(each):8.1f} {len(each):4d} {middle / base:8.2f}")


def percentile(values: list[float], part: float) -> float:
    """Return the value below which ``part`` (0 to 1) of all are, the nearest one."""
    return sorted(values)[min(len(values) - 1, round(part * (len(values) - 1)))]


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used (proc_pid_stat(5), utime + stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
