"""``python -m tests.bench.central_signals [COUNT]``: agents on the stream of one central, and how long until the last is told.

The floor is a bare asyncio server that writes the same bytes to as many connections, told by the same clients in the same run.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import psutil
import uvloop

from prism_vault_agent.audit.event import new_id
from tests.support.central import CentralProcess

COUNT = 10_000
ROUNDS = 5
AT_ONCE = 200
HOSTS = {f"host{number}": ["*"] for number in range(10)}
BARE = """
import asyncio, sys, uvloop
async def main():
    writers = []
    async def accept(reader, writer):
        await reader.readuntil(b"\\r\\n\\r\\n")
        writers.append(writer)
        writer.write(b"HTTP/1.1 200 OK\\r\\n\\r\\nid: 0\\n\\n")
    server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        for writer in writers:
            writer.write(b"event: revocation\\n" + b"x" * 300 + b"\\n\\n")
uvloop.run(main())
"""


class Agent(asyncio.Protocol):
    """One who follows: ``heard`` is called for each signal."""

    def __init__(self, request: bytes, heard: asyncio.Queue[float], began: asyncio.Future[None]) -> None:
        self._request = request
        self._heard = heard
        self._began = began
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        cast("asyncio.WriteTransport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count signals."""
        if not self._began.done():
            assert data.startswith(b"HTTP/1.1 200"), data[:200]
            if b"id: " in data:
                self._began.set_result(None)
            elif data:
                return
        for _ in range(data.count(b"event: revocation")):
            self._heard.put_nowait(time.perf_counter())


async def connect(host: str, port: int, count: int, requests: list[bytes]) -> asyncio.Queue[float]:
    """Connect so many agents and return what they hear."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[float] = asyncio.Queue()
    for start in range(0, count, AT_ONCE):
        began = []
        for number in range(start, min(start + AT_ONCE, count)):
            began.append(loop.create_future())
            request, future = requests[number % len(requests)], began[-1]
            await loop.create_connection(partial(Agent, request, heard, future), host, port)
        await asyncio.wait_for(asyncio.gather(*began), 60)
    return heard


async def last(heard: asyncio.Queue[float], count: int, begun: float) -> float:
    """Return the seconds until all have heard it."""
    times = [await asyncio.wait_for(heard.get(), 60) for _ in range(count)]
    return max(times) - begun


def resident(pid: int) -> int:
    """Return the bytes that a process has resident."""
    return int(psutil.Process(pid).memory_info().rss)


async def of_central(count: int, directory: Path) -> tuple[float, list[float]]:
    """Return bytes for each connection, and the seconds from the order to the last agent, of each round."""
    with CentralProcess(directory, agents=HOSTS) as central:
        where = urlsplit(central.url)
        assert central.process is not None
        requests = [
            f"GET /v1/signals HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            for token in central.agent_tokens.values()
        ]
        before = resident(central.process.pid)
        heard = await connect(where.hostname or "", where.port or 0, count, requests)
        memory = (resident(central.process.pid) - before) / count
        rounds = []
        with central.client() as client:
            for _ in range(ROUNDS):
                begun = time.perf_counter()
                order = {"id": new_id(), "everything": True, "emergency": True}
                answer = asyncio.get_running_loop().run_in_executor(None, partial(client.post, "/v1/revocations", json=order))
                rounds.append(await last(heard, count, begun))
                assert (await answer).status_code == 201
        central.kill()
        return memory, rounds


async def of_bare(count: int) -> list[float]:
    """Return the seconds from the order to the last one, of each round, for the bare server."""
    with subprocess.Popen([sys.executable, "-c", BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:  # noqa: ASYNC220 - before anything waits
        assert server.stdin is not None
        assert server.stdout is not None
        port = int(server.stdout.readline())
        heard = await connect("127.0.0.1", port, count, [b"GET / HTTP/1.1\r\n\r\n"])
        rounds = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            server.stdin.write(b"\n")
            server.stdin.flush()
            rounds.append(await last(heard, count, begun))
        server.kill()
        return rounds


def main() -> None:
    """Print the figures."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    bare = uvloop.run(of_bare(count))
    with tempfile.TemporaryDirectory() as directory:
        memory, rounds = uvloop.run(of_central(count, Path(directory)))
    print(f"{count:,} agents on the stream of one central: {memory / 1024:.1f} KiB resident for each")
    print(f"order to the last agent told: {min(rounds) * 1000:.0f} to {max(rounds) * 1000:.0f} ms (goal: at most 1,000)")
    print(
        f"a bare broadcast of asyncio:  {min(bare) * 1000:.0f} to {max(bare) * 1000:.0f} ms; ratio {min(rounds) / min(bare):.1f}"
    )


if __name__ == "__main__":
    main()
