"""What proof costs: ``python -m tests.bench.central_proofs [SECONDS]``.

Receipts are signed in this process, with a key at hand and with one in a real OpenBao's transit; the floor is libsodium's
signature on 32 bytes. Rows travel over HTTP to a real central with 16 agents at work; how long each waited for its checkpoint
is read from the database. Proofs are asked for one after another on one connection, with ``/healthz`` as the floor.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from prism_vault_agent.central.log.receipts import Receipts
from prism_vault_agent.central.log_settings import Transit
from prism_vault_agent.central.storage.engines import reading_engine
from prism_vault_agent.central.transit import TransitSigner
from prism_vault_agent.proof.keys import SigningKey
from tests.bench.central_http import Agent
from tests.bench.stand import percentile
from tests.support.central import CentralProcess
from tests.support.openbao import OpenBao
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.proof.keys import Signer

AGENTS = 16
WAITED = (
    "SELECT (SELECT min(c.made_at) FROM checkpoint c WHERE c.size > l.idx) - e.received_at "
    "FROM leaf l JOIN event e ON e.n = l.n WHERE l.idx < (SELECT max(size) FROM checkpoint)"
)
BEHIND = "SELECT (SELECT count(*) FROM event) - (SELECT max(size) FROM checkpoint)"


def each(work: Callable[[], object], times: int) -> float:
    """Return the median of what ``work`` takes, in microseconds."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return 1e6 * percentile(took, 0.5)


def receipts(signer: Signer, rows: int, together: int, times: int) -> float:
    """Return the median of what ``together`` receipts of so many rows take, in microseconds for each."""
    signing = Receipts(signer)
    leaves = [(n, bytes(32)) for n in range(rows)]

    async def scenario() -> float:
        took = []
        for _ in range(times):
            begun = time.perf_counter()
            found = await asyncio.gather(*(signing.sign(leaves) for _ in range(together)))
            took.append(time.perf_counter() - begun)
            assert all(found), signing.trouble
        return 1e6 * percentile(took, 0.5) / together

    return asyncio.run(scenario())


def signers(directory: Path) -> None:
    """Print what a receipt costs."""
    key = SigningKey.generate("bench")
    floor = each(lambda: key.sign(bytes(32)), 2_000)
    print(f"{'receipt':44}{'us each':>10}{'of the floor':>14}")
    print(f"{'Ed25519 on 32 bytes (floor)':44}{floor:10.0f}{1:14.2f}")
    for rows in (1, 256):
        took = receipts(key, rows, 1, 1_000)
        print(f"{f'key at hand, {rows} rows':44}{took:10.0f}{took / floor:14.2f}")
    with OpenBao(directory / "bao") as bao:
        bao.must("POST", "sys/mounts/transit", {"type": "transit"})
        bao.must("POST", "transit/keys/bench", {"type": "ed25519"})
        token = bao.credential("token", bao.root_token)
        signer = TransitSigner(Transit(address=bao.address, key="bench", name="bench", token_file=str(token)))
        for together in (1, 16, 64):
            took = receipts(signer, 1, together, 50)
            print(f"{f'key in transit, {together} answers at a time':44}{took:10.0f}{took / floor:14.2f}")
        signer.close()


def waits(central: CentralProcess, seconds: float) -> list[float]:
    """Return how long each row waited for its checkpoint, in milliseconds, with all agents at work for so long."""
    until = time.perf_counter() + seconds

    async def load() -> None:
        await asyncio.gather(*(Agent(central, f"server{number}").run(until, idle=False) for number in range(AGENTS)))

    asyncio.run(load())
    engine = reading_engine(central.setting("database"))
    with engine.connect() as connection:
        wait_until(lambda: connection.execute(text(BEHIND)).scalar() == 0, 60)
        found = [float(row[0]) for row in connection.execute(text(WAITED))]
    engine.dispose()
    return found


def asked(central: CentralProcess) -> None:
    """Print what the routes of proofs take."""
    with central.client() as client:
        size = client.get("/v1/audit/checkpoint").json()["size"]
        paths = {
            "/healthz (floor)": "/healthz",
            "newest checkpoint": "/v1/audit/checkpoint",
            "growth from the half": f"/v1/audit/checkpoint?from={size // 2}",
            "inclusion": f"/v1/audit/proof/{size // 3}",
        }
        took = {what: each(partial(client.get, path), 300) for what, path in paths.items()}
        assert all(client.get(path).status_code == 200 for path in paths.values())
    print(f"{'asked over HTTP':44}{'us each':>10}{'of the floor':>14}")
    for what, microseconds in took.items():
        print(f"{what:44}{microseconds:10.0f}{microseconds / took['/healthz (floor)']:14.2f}")


def main() -> None:
    """Measure and print the tables and the goal."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    hosts = {f"server{number}": ["*"] for number in range(AGENTS)}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        signers(directory)
        (directory / "server").mkdir()
        with PostgresServer(directory / "server") as server:
            for kind in ("SQLite", "PostgreSQL"):
                (directory / kind).mkdir()
                with CentralProcess(directory / kind, agents=hosts, server=server if kind == "PostgreSQL" else None) as central:
                    found = waits(central, seconds)
                    told = ", ".join(f"p{int(100 * part)} {percentile(found, part):.0f} ms" for part in (0.5, 0.99))
                    print(f"\n{kind}: {len(found)} rows, row to signed checkpoint {told}, at most {max(found):.0f} ms")
                    asked(central)
        print("\ngoal: row to signed checkpoint p99 at most 1,000 ms")


if __name__ == "__main__":
    main()
