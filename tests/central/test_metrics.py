"""Central's figures: they count what was done, name nobody, and are all described."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.metrics import PREFIX, Metrics
from tests.central.conftest import POLICIES
from tests.central.host import Host
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CentralProcess]:
    """Return a central that gives up on a reservation after a second."""
    with CentralProcess(tmp_path_factory.mktemp("central"), policies=POLICIES, reservation_ttl="1s") as running:
        yield running


def scraped(central: CentralProcess, **headers: str) -> httpx2.Response:
    """Return the answer of ``/metrics`` without a credential."""
    return httpx2.get(f"{central.url}/metrics", headers=headers, trust_env=False)


def samples(central: CentralProcess) -> Samples:
    """Return every sample by its name and labels."""
    families = text_string_to_metric_families(scraped(central).text)
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}


def value(found: Samples, name: str, **labels: str) -> float:
    """Return one of central's own samples; zero where it was never counted."""
    return found.get((f"{PREFIX}_{name}", tuple(sorted(labels.items()))), 0.0)


def test_what_was_done_is_counted(central, host):
    """Events by kind and outcome, requests by route and status, problems by code, transactions: each as often as it was."""
    before = samples(central)
    reservation = host.reserve()
    host.end("success", reservation)
    host.send(host.make("reserved", purpose="curiosity"))  # policy says no: appended, denied
    host.send(host.make("failure"))  # of no reservation: refused
    host.client.post("/v1/audit/reservations", content=b"{}")
    with central.client("wrong") as stranger:
        stranger.get("/v1/audit/events")
        stranger.get(f"/{new_id()}")
    after = samples(central)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("events_total", kind="reserved", outcome="appended") == 1
    assert grown("events_total", kind="success", outcome="appended") == 1
    assert grown("events_total", kind="reserved", outcome="denied") == 1
    assert grown("events_total", kind="failure", outcome="refused") == 1
    assert grown("events_total", kind="other", outcome="refused") == 1
    reserve = "POST /v1/audit/reservations"
    assert grown("http_request_seconds_count", route=reserve, status="201") == 1
    assert grown("http_request_seconds_count", route=reserve, status="403") == 1
    assert grown("http_request_seconds_count", route=reserve, status="400") == 1
    assert grown("http_request_seconds_count", route=f"{reserve}/{{reservation}}/finalize", status="200") == 1
    assert grown("http_request_seconds_count", route="other", status="404") == 1
    assert grown("problems_total", code="unknown_token") == 1
    assert grown("problems_total", code="purpose_not_allowed") == 1
    assert grown("transaction_seconds_count") >= 5
    assert grown("transaction_works_sum") >= 5
    assert grown("transactions_failed_total") == 0


def test_the_log_is_told(central, host):
    """Leaves, checkpoint and lag follow the log; reservations that nobody ended are counted."""
    count = value(samples(central), "tree_leaves")
    host.reserve()

    def caught_up() -> Samples | None:
        found = samples(central)
        leaves = value(found, "tree_leaves")
        return found if leaves > count and leaves == value(found, "checkpoint_leaves") else None

    found = wait_until(caught_up) or {}
    assert value(found, "checkpoint_lag_seconds") < 5
    assert value(found, "checkpoint_timestamp_seconds") > 1.7e9
    assert value(found, "ready", part="storage") == 1
    assert value(found, "connections") >= 1
    assert value(found, "certificate_end_timestamp_seconds") == 0
    wait_until(lambda: value(samples(central), "reservations_abandoned_total") >= 1)


def test_no_label_names_anybody(central):
    """No host, project, scope, run, purpose, path or header that a caller chooses is in any figure."""
    canary = f"canary{new_id()}"
    host = Host(central)
    host.send(host.make("reserved", run_ref=canary, purpose=canary, scopes=[canary], project=canary))
    host.send(host.make(canary))
    host.client.get(f"/v1/{canary}?{canary}=1", headers={canary: canary})
    host.client.request(canary.upper()[:20], "/v1/audit/events")
    with central.client(canary) as stranger:
        stranger.get("/v1/audit/events")
    text = scraped(central).text

    assert canary not in text.lower()
    assert canary[:20] not in text.lower()
    assert not [name for name in ("server1", "prism-ops", '"prism"', '"lan"', '"web"') if name in text]


def test_every_figure_is_described(central):
    """What is exposed is what the reference describes and the process's own figures, and nothing that it describes is missing."""
    families = {family.name for family in text_string_to_metric_families(scraped(central).text)}
    described = {each.name.removesuffix("_total") for each in Metrics("sqlite").described}

    assert described == {name for name in families if name.startswith(PREFIX)}
    assert {name for name in families if not name.startswith(PREFIX)} <= {
        *("process_virtual_memory_bytes", "process_resident_memory_bytes", "process_start_time_seconds"),
        *("process_cpu_seconds", "process_open_fds", "process_max_fds"),
    }
    assert scraped(central).headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("forwarded", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_who_reads_figures(central, forwarded):
    """A process of this machine reads them; what a proxy here forwards needs an operator's credential."""
    elsewhere = {forwarded: "203.0.113.9"}
    with central.client(central.agent_tokens["server1"]) as agent, central.client() as operator:
        answers = [
            scraped(central),
            scraped(central, **elsewhere),
            agent.get("/metrics", headers=elsewhere),
            operator.get("/metrics", headers=elsewhere),
        ]

    assert [answer.status_code for answer in answers] == [200, 401, 403, 200]
