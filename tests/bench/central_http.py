"""Reservations that central opens and ends in a second over HTTP: ``python -m tests.bench.central_http [SECONDS]``.

Agents are coroutines of this process, each with one kept connection and one request under way, as an agent's outbox has. The
floor is the same requests to the same server for ``/healthz``, which does nothing. Processor time shows where a pair's time goes:
what central takes is divided into its loop and its other threads, of which the writer is the one that works.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from prism_vault_agent.audit.event import Chain, new_id
from tests.bench.stand import percentile
from tests.central.host import fields
from tests.support.central import CentralProcess
from tests.support.postgres import PostgresServer

AGENTS = (1, 16, 64)


class Agent:
    """One host on one connection; its pairs' times in seconds."""

    def __init__(self, central: CentralProcess, name: str) -> None:
        self.took: list[float] = []
        self._chain = Chain(name, new_id())
        self._address = urlsplit(central.url)
        self._token = central.agent_tokens[name]

    async def run(self, until: float, *, idle: bool) -> None:
        """Open and end reservations until then, or with ``idle`` ask twice whether central lives."""
        reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        while time.perf_counter() < until:
            begun = time.perf_counter()
            reservation = new_id()
            for kind in ("reserved", "success"):
                if idle:
                    await self._ask(reader, writer, "GET /healthz", b"")
                    continue
                body = self._chain.seal(fields(kind, reservation))
                end = "" if kind == "reserved" else f"/{reservation}/finalize"
                await self._ask(reader, writer, f"POST /v1/audit/reservations{end}", body)
                self._chain.accept(body)
            self.took.append(time.perf_counter() - begun)
        writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, what: str, body: bytes) -> None:
        head = f"{what} HTTP/1.1\r\nHost: central\r\nAuthorization: Bearer {self._token}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer[9:12] in (b"200", b"201"), answer
        length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)


def measure(central: CentralProcess, agents: int, seconds: float, *, idle: bool) -> tuple[float, float, dict[str, float]]:
    """Return pairs a second, their p99 in milliseconds, and the processor time of one pair by place, in microseconds."""
    assert central.process is not None
    before, ours = _threads(central.process.pid), time.process_time()
    senders = [Agent(central, f"server{number}") for number in range(agents)]
    begun = time.perf_counter()

    async def load() -> None:
        await asyncio.gather(*(sender.run(begun + seconds, idle=idle) for sender in senders))

    asyncio.run(load())
    took = time.perf_counter() - begun
    pairs = [each for sender in senders for each in sender.took]
    spent = {place: at - before[place] for place, at in _threads(central.process.pid).items()}
    spent["this process"] = time.process_time() - ours
    return len(pairs) / took, 1000 * percentile(pairs, 0.99), {place: 1e6 * at / len(pairs) for place, at in spent.items()}


def _threads(pid: int) -> defaultdict[str, float]:
    """Return the processor time of central's threads, in seconds, by what they do."""
    found: defaultdict[str, float] = defaultdict(float)
    for thread in psutil.Process(pid).threads():
        found["loop" if thread.id == pid else "writer"] += thread.user_time + thread.system_time
    return found


def main() -> None:
    """Run on both databases and print the table and the goal."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    hosts = {f"server{number}": ["*"] for number in range(max(AGENTS))}
    places = ("loop", "writer", "this process")
    print(f"{'':12}{'agents':>8}{'pairs/s':>9}{'p99 ms':>8}" + "".join(f"{place + ' us':>18}" for place in places))
    rate = 0.0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "server").mkdir()
        with PostgresServer(directory / "server") as server:
            for kind in ("SQLite", "PostgreSQL"):
                (directory / kind).mkdir()
                with CentralProcess(directory / kind, agents=hosts, server=server if kind == "PostgreSQL" else None) as central:
                    for agents in AGENTS:
                        for what in ("healthz", kind):
                            rate, last, spent = measure(central, agents, seconds, idle=what == "healthz")
                            told = "".join(f"{spent.get(place, 0):18.0f}" for place in places)
                            print(f"{what:12}{agents:8}{rate:9.0f}{last:8.1f}{told}")
                if kind == "SQLite":
                    print(f"goal: at least 800 requests a second with 64 agents: {2 * rate:.0f}")


if __name__ == "__main__":
    main()
