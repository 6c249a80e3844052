"""What central counts and measures, for Prometheus. ``docs/reference/metrics.md`` is made from here.

No label has the name of a host, project, scope, run or caller: there is no end of them, and whoever reads figures need not know
them.
"""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from prism_vault_agent import __version__
from prism_vault_agent.central.log.incoming import FROM_AGENTS, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from prism_vault_agent.central.log.answer import Answer
    from prism_vault_agent.central.readiness import Answer as Ready

PREFIX: Final = "prism_vault_central"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_GROUPS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Followed(Collector):
    """A counter that is kept elsewhere: ``read`` returns it."""

    def __init__(self, name: str, told: str) -> None:
        """Call it ``name``."""
        self._name, self._told = name, told
        self.read: Callable[[], float] = lambda: 0

    def collect(self) -> Iterator[Metric]:
        """Yield the counter as it is now."""
        yield CounterMetricFamily(self._name, self._told, value=self.read())


class Described(NamedTuple):
    """A metric as the reference shows it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    told: str


class Metrics:
    """Every metric of one central, in a registry of its own."""

    def __init__(self, database: str) -> None:
        """Begin to count; ``database`` is ``sqlite`` or ``postgresql``."""
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each, which says when counting began
        self.registry = CollectorRegistry(auto_describe=True)
        self.described: list[Described] = []
        ProcessCollector(registry=self.registry)
        build = self._gauge("build_info", "Always 1; its labels say what runs.", "version", "python", "database")
        build.labels(__version__, platform.python_version(), database).set(1)
        # What agents and operators ask.
        self._events = self._counter(
            "events",
            "Events that agents sent, by kind and outcome: appended, denied (appended, and central's policy said no), refused.",
            "kind",
            "outcome",
        )
        self._requests = self._histogram(
            "http_request_seconds", "Seconds until the answer began, by route and status.", _SECONDS, "route", "status"
        )
        self._problems = self._counter(
            "problems", "Requests that were answered with a problem, by its code (reference/problems.md).", "code"
        )
        self.connections = self._gauge("connections", "Connections that are open now.")
        self.connections_refused = self._counter(
            "connections_refused", "Connections that were refused because too many are open."
        )
        self.streams = self._gauge("signal_streams", "Streams of signals that are open now.")
        self.names_refused = self._counter(
            "names_refused", "Releases and streams of signals of an installation whose host's name another one has."
        )
        self.nameless = self._gauge("nameless_streams", "Streams of signals whose installation does not have its host's name.")
        # The log.
        self.transactions = self._histogram("transaction_seconds", "Seconds that a durable transaction took.", _SECONDS)
        self.failed = self._counter("transactions_failed", "Transactions that the database did not take, or not certainly.")
        self.groups = self._histogram("transaction_works", "Requests that one transaction did together.", _GROUPS)
        self.queue = self._gauge("queue", "Requests that wait for a transaction now.")
        self.abandoned = self._counter("reservations_abandoned", "Reservations that ended because no outcome came in time.")
        self._leaves = self._gauge("tree_leaves", "Leaves of the log's tree, as it was within the last second.")
        self._proved = self._gauge("checkpoint_leaves", "Leaves that the newest checkpoint is about.")
        self._made = self._gauge("checkpoint_timestamp_seconds", "When the newest checkpoint was made, in seconds since 1970.")
        self._lag = self._gauge("checkpoint_lag_seconds", "How long the oldest event without a checkpoint waits; 0 without one.")
        self.receipts_missed = self._followed("receipts_missed", "Answers whose rows are durable, and that have no receipt.")
        # This replica.
        self._part = self._gauge("ready", "1 where the part of /readyz is ok, else 0.", "part")
        self.certificate = self._gauge(
            "certificate_end_timestamp_seconds", "When the certificate that is served ends, in seconds since 1970; 0 without TLS."
        )
        self._children: dict[tuple[str, str], Counter | Histogram] = {}

    def appended(self, events: Sequence[Event | Answer], answers: Sequence[Answer]) -> None:
        """Count events and what became of each."""
        for event, answer in zip(events, answers, strict=True):
            kind = event.kind if isinstance(event, Event) and event.kind in FROM_AGENTS else "other"
            outcome = "refused" if not answer.appended else "denied" if answer.reason else "appended"
            child = self._children.get((kind, outcome))
            if child is None:
                child = self._children[kind, outcome] = self._events.labels(kind, outcome)
            assert isinstance(child, Counter)
            child.inc()

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answer that has begun after so many seconds; ``route`` is a method and a template."""
        key = (route, str(status))
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._requests.labels(*key)
        assert isinstance(child, Histogram)
        child.observe(seconds)

    def problem(self, code: str) -> None:
        """Count a problem."""
        self._problems.labels(code).inc()

    def transaction(self, works: int, seconds: float) -> None:
        """Count a transaction that is durable."""
        self.groups.observe(works)
        self.transactions.observe(seconds)

    def exposition(self, ready: Ready) -> bytes:
        """Return every metric as Prometheus reads it, with what ``ready`` has found."""
        for part, state in ready.parts.items():
            self._part.labels(part).set(state == "ok")
        if ready.standing is not None:
            stands = ready.standing
            self._leaves.set(stands.leaves)
            self._proved.set(stands.checkpoint)
            self._made.set((stands.made_at or 0) / 1000)
            self._lag.set(0 if stands.waiting_since is None else max(0.0, time.time() - stands.waiting_since / 1000))
        return generate_latest(self.registry)

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        self._describe(f"{name}_total", "counter", labels, told)
        return Counter(name, told, labels, namespace=PREFIX, registry=self.registry)

    def _followed(self, name: str, told: str) -> Followed:
        self._describe(f"{name}_total", "counter", (), told)
        followed = Followed(f"{PREFIX}_{name}", told)
        self.registry.register(followed)
        return followed

    def _gauge(self, name: str, told: str, *labels: str) -> Gauge:
        self._describe(name, "gauge", labels, told)
        return Gauge(name, told, labels, namespace=PREFIX, registry=self.registry)

    def _histogram(self, name: str, told: str, buckets: Sequence[float], *labels: str) -> Histogram:
        self._describe(name, "histogram", labels, told)
        return Histogram(name, told, labels, namespace=PREFIX, registry=self.registry, buckets=buckets)

    def _describe(self, name: str, kind: str, labels: tuple[str, ...], told: str) -> None:
        self.described.append(Described(f"{PREFIX}_{name}", kind, labels, told))
