"""What the agent counts and measures, in the text format of Prometheus. ``docs/reference/agent-metrics.md`` is made from here.

No label has the name of a scope, project, path, run or user, and each label has only the values that stand here: whoever reads
figures need not know them, and there is an end of them. Source: "Exposition formats" of Prometheus, text format 0.0.4.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from prism_vault_agent.agent.runs.times import RunTimes
from prism_vault_agent.agent.stages import RUN_STAGES, STAGES, RotationTimes, Timed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prism_vault_agent.agent.stages import Mode, Outcome, Stage
    from prism_vault_agent.render import AuditLog, Provider, Sink

PREFIX: Final = "prism_vault_agent"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

Labels = tuple[tuple[str, tuple[str, ...]], ...]
MODE: Final = ("mode", ("exec", "file", "credential"))


class Described(NamedTuple):
    """A metric: its name without the prefix, its kind, every value of every label, and what it tells."""

    name: str
    kind: str
    labels: Labels
    told: str


COUNTED: Final = (
    Described(
        "renders_total",
        "counter",
        (MODE, ("outcome", ("released", "denied", "failed"))),
        "Renders that ended, by what came of them.",
    ),
)
MEASURED: Final = (
    Described(
        "render_seconds", "histogram", (MODE, ("stage", STAGES[:-1])),
        "Seconds that each stage of a render took: the reservation, the read, the success on the log, the release.",
    ),
    Described(
        "rotation_seconds", "histogram", (("stage", STAGES),),
        "Seconds from when a rotation of files was noticed until each stage was done; told: a consumer knows of it.",
    ),
    Described(
        "run_rotation_seconds", "histogram", (("stage", RUN_STAGES),),
        "Seconds from when a rotation was noticed until a run was signalled, was asked to end or had ended (switched), and to "
        "each stage of what was started anew.",
    ),
)  # fmt: skip
LOOKED_UP: Final = (
    Described("ready", "gauge", (), "1 while an exec can be expected to work."),
    Described("start_time_seconds", "gauge", (), "When the agent was started, in seconds since 1970."),
    Described("provider_reachable", "gauge", (), "1 while the provider answered when it was last asked."),
    Described("logged_in", "gauge", (), "1 while the agent has a token of the provider."),
    Described("token_ends_seconds", "gauge", (), "Seconds until that token ends; +Inf where it does not, 0 without one."),
    Described("central_reachable", "gauge", (), "1 while central took what it was last sent."),
    Described("log_refused", "gauge", (), "1 while central's log is not the one that this host knows."),
    Described("signals_connected", "gauge", (), "1 while central can tell this host to take something back at once."),
    Described("records_waiting", "gauge", (), "Records of the log that central has not yet."),
    Described("records_lost", "gauge", (), "Denials and reloads that are only counted on the log, since there was no room."),
    Described("workers_idle", "gauge", (), "Workers that wait for a render."),
    Described("runs", "gauge", (("state", ("own", "adopted")),), "Runs that hold values; adopted: given out by an agent before."),
    Described("runs_outdated", "gauge", (), "Runs that hold an older version than the newest."),
    Described("runs_failed", "gauge", (), "Runs whose rotation failed when it was last tried; it is tried again."),
    Described("runs_oldest_seconds", "gauge", (), "Age of the oldest run; 0 without any."),
    Described("runs_left", "gauge", (), "Runs that hold what was taken back, since on_revoke leaves them."),
    Described("unconfirmed", "gauge", (), "Runs and files that stale_ok bounds, and that the provider confirms no more."),
    Described("files", "gauge", (("state", ("fresh", "stale", "failed")),), "Scopes with files; failed: stale, and not renewed."),
    Described("files_drifted", "gauge", (), "Scopes whose files somebody else has changed."),
    Described("files_adopted", "gauge", (), "Scopes whose files were given out by an agent before."),
    Described("next_check_seconds", "gauge", (), "Seconds until each run and scope was asked for again, at the latest."),
    Described("files_oldest_seconds", "gauge", (), "Age of the oldest generation of files; 0 without any."),
    Described("consumers", "gauge", (("state", ("told", "due", "failed")),), "Who is told of files: do they know the newest?"),
    Described("leases", "gauge", (("state", ("held", "revoking")),), "Leases that the provider has of this host."),
    Described("config_refused", "gauge", (), "1 while the configuration has changed and is not in use, since it is wrong."),
    Described("memory_bytes", "gauge", (), "Resident memory of the front."),
)  # fmt: skip
DESCRIBED: Final = (*COUNTED, *MEASURED, *LOOKED_UP)


class Histogram:
    """How many of what was measured were at most each of the bounds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Metrics:
    """What was counted since the start, and the last rotation of each scope."""

    def __init__(self) -> None:
        """Begin with every series at nothing, so that a rate has a beginning."""
        self._renders = dict.fromkeys(_series(COUNTED[0].labels), 0)
        self._stages = {values: Histogram() for values in _series(MEASURED[0].labels)}
        self._rotations = {values: Histogram() for values in _series(MEASURED[1].labels)}
        self._run_rotations = {values: Histogram() for values in _series(MEASURED[2].labels)}
        self.rotations = RotationTimes(lambda stage, seconds: self._rotations[stage,].observe(seconds))
        self.run_rotations = RunTimes(lambda stage, seconds: self._run_rotations[stage,].observe(seconds))

    def ended(self, mode: Mode, outcome: Outcome) -> None:
        """Count a render."""
        self._renders[mode, outcome] += 1

    def stage(self, mode: Mode, stage: Stage, seconds: float) -> None:
        """Count how long a stage of a render took."""
        self._stages[mode, stage].observe(seconds)

    def timed(self, mode: Mode, audit: AuditLog, provider: Provider, sink: Sink) -> Timed:
        """Return the adapters of a render that is counted here."""
        return Timed(audit, provider, sink, partial(self.stage, mode), partial(self.ended, mode))

    def exposition(self, now: Mapping[str, float | Mapping[str, float]]) -> str:
        """Return every metric; ``now`` has the figures of ``LOOKED_UP``, by name, those with a label by its values."""
        lines: list[str] = []
        for each in DESCRIBED:
            name = f"{PREFIX}_{each.name}"
            lines += [f"# HELP {name} {each.told}", f"# TYPE {name} {each.kind}"]
            if each is COUNTED[0]:
                lines += [f"{name}{_labels(each.labels, values)} {count}" for values, count in self._renders.items()]
            elif each in MEASURED:
                found = (self._stages, self._rotations, self._run_rotations)[MEASURED.index(each)]
                for values, histogram in found.items():
                    lines += _buckets(name, each.labels, values, histogram)
            else:
                figure = now[each.name]
                if isinstance(figure, int | float):
                    lines.append(f"{name} {_number(figure)}")
                else:
                    lines += [f"{name}{_labels(each.labels, (value,))} {_number(figure[value])}" for value in each.labels[0][1]]
        return "\n".join(lines) + "\n"


def _series(labels: Labels) -> Iterator[tuple[str, ...]]:
    return itertools.product(*(values for _, values in labels))


def _labels(labels: Labels, values: tuple[str, ...], *more: str) -> str:
    pairs = [f'{name}="{value}"' for (name, _), value in zip(labels, values, strict=True)]
    return "{" + ",".join([*pairs, *more]) + "}"


def _buckets(name: str, labels: Labels, values: tuple[str, ...], histogram: Histogram) -> Iterator[str]:
    counts = list(itertools.accumulate(histogram.counts))
    for bound, count in zip((*BOUNDS, math.inf), counts, strict=True):
        at_most = f'le="{_number(bound)}"'
        yield f"{name}_bucket{_labels(labels, values, at_most)} {count}"
    yield f"{name}_sum{_labels(labels, values)} {histogram.total:.6f}"
    yield f"{name}_count{_labels(labels, values)} {counts[-1]}"


def _number(figure: float) -> str:
    return "+Inf" if figure == math.inf else str(int(figure)) if figure == int(figure) else repr(figure)
