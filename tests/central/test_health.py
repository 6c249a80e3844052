"""Whether central lives and can work: each part that fails is named, and nothing else about it is told to anyone who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from prism_vault_agent.central.log.sequencer import SEQUENCER
from prism_vault_agent.central.readiness import OK, PARTS, Answer
from tests.central.host import Host
from tests.central.test_identity import AUDIENCE, Keys
from tests.support.central import CentralProcess
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WELL = dict.fromkeys(PARTS, OK)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Return a running PostgreSQL."""
    with PostgresServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, server: PostgresServer) -> Iterator[CentralProcess]:
    """Return a central on PostgreSQL."""
    with CentralProcess(tmp_path_factory.mktemp("shared"), server=server) as running:
        yield running


def ready(central: CentralProcess) -> tuple[int, dict[str, Any]]:
    """Return the status of ``/readyz`` and its parts, asked without a credential."""
    with central.client("none") as client:
        answer = client.get("/readyz")
    if answer.status_code == 503:
        assert answer.json()["code"] == "not_ready"
        assert answer.headers["retry-after"] == "1"
    return answer.status_code, answer.json()["parts"]


def test_a_central_that_works_says_so(central, host):
    """Alive and ready, all parts well, before and after events; without a credential."""
    with central.client("none") as client:
        assert client.get("/healthz").json() == {"status": "ok"}
    assert ready(central) == (200, WELL)
    host.reserve()
    assert ready(central) == (200, WELL)


def test_a_database_that_is_away_is_told(shared, server):
    """While PostgreSQL is away storage fails and central lives; when it is back, central is ready without a restart."""
    Host(shared).reserve()
    server.kill()
    try:
        parts = wait_until(lambda: (found := ready(shared))[0] == 503 and found[1])
        with shared.client("none") as client:
            alive = client.get("/healthz").status_code
    finally:
        server.start()

    assert parts == WELL | {"storage": "failing", "checkpoint": "unknown"}
    assert alive == 200
    wait_until(lambda: ready(shared) == (200, WELL), timeout=20)
    assert [line for line in shared.log if '"event": "not_ready"' in line]


def test_events_without_a_checkpoint_are_told(shared, server):
    """While nobody can sequence, rows are taken and the checkpoint is late; with the lock free again it catches up."""
    wait_until(lambda: ready(shared) == (200, WELL), timeout=20)
    with psycopg.connect(server.owner_url) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (SEQUENCER,))
        Host(shared).reserve()

        assert wait_until(lambda: (found := ready(shared))[0] == 503 and found[1]) == WELL | {"checkpoint": "late"}
    wait_until(lambda: ready(shared) == (200, WELL))


def test_an_issuer_that_is_away_is_told(tmp_path: Path):
    """Until the issuer's keys were had once central is not ready; from then on, the issuer may be away."""
    keys = Keys()
    keys.up = False
    try:
        with CentralProcess(tmp_path, issuer={"url": keys.url, "audience": AUDIENCE}) as central:
            assert ready(central) == (503, WELL | {"issuer": "unreachable"})
            keys.up = True
            wait_until(lambda: ready(central) == (200, WELL))
            keys.up = False
            asked = keys.asked
            assert ready(central) == (200, WELL)
            assert keys.asked == asked
    finally:
        keys.server.shutdown()
        keys.thread.join()
        keys.server.server_close()


def test_many_who_ask_are_one_question(central):
    """However many ask, the parts are asked at most once a second: no flood of questions reaches the disk."""
    with central.client("none") as client:
        began = transactions(client)
        for _ in range(50):
            client.get("/readyz")

        assert transactions(client) - began < 25


def transactions(client: Any) -> float:
    """Return how many transactions central has made."""
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("prism_vault_central_transaction_seconds_count"))


@pytest.mark.parametrize("part", PARTS)
def test_what_keeps_central_from_its_work(part):
    """Each part but the receipts, without which rows are as durable, makes a replica unready."""
    assert Answer(WELL, None).ready
    assert Answer(WELL | {part: PARTS[part][1]}, None).ready == (part == "receipts")
