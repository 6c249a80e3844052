"""The agent's figures and what status tells of versions, rotations and adoption: true, whole, bounded, and without a name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from prism_vault_agent.agent.figures import figures as looked_up
from prism_vault_agent.agent.metrics import BOUNDS, DESCRIBED, LOOKED_UP, PREFIX, Metrics
from tests.agent.asking import command_line
from tests.agent.rotating import noted, noted_rows
from tests.support.fault_proxy import Fault, always
from tests.support.files import SYSTEMD, Filed, filed
from tests.support.signalled import status_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack whose agent renders files and looks every second."""
    with filed() as running:
        yield running


def figures(text: str) -> Figures:
    """Return what a parser of another maker reads, by name and labels."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    read = {(each.name.removeprefix(f"{PREFIX}_"), frozenset(each.labels.items())): each.value for each in found}
    assert len(read) == len(found)
    return read


def now(made: Filed) -> Figures:
    """Return the agent's figures as the command prints them."""
    done = made.command("status", "--metrics")
    assert (done.returncode, done.stderr) == (0, "")
    return figures(done.stdout)


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """Return how a figure is found."""
    return name, frozenset(labels.items())


def test_every_figure_is_there_with_its_labels_and_no_other(made):
    """At the socket all that the reference describes is there, each label with exactly the values that it may have."""
    status, body = made.stack.agent.http("GET", "/metrics")
    assert status == 200
    families = {each.name: each for each in text_string_to_metric_families(body.decode())}
    assert {each.removesuffix("_total") for each in (f"{PREFIX}_{each.name}" for each in DESCRIBED)} == set(families)
    for each in DESCRIBED:
        family = families[f"{PREFIX}_{each.name}".removesuffix("_total")]
        assert (family.type, family.documentation) == (each.kind, each.told)
        for name, values in each.labels:
            assert {sample.labels[name] for sample in family.samples} == set(values)
        allowed = {name for name, _ in each.labels} | ({"le"} if each.kind == "histogram" else set())
        assert {name for sample in family.samples for name in sample.labels} == allowed
    assert made.stack.agent.http("POST", "/metrics")[0] == 405


def test_what_ended_is_counted_by_what_came_of_it(made):
    """A release, a denial and a failure are counted each where it belongs, and each stage that was done with it."""
    before = now(made)
    made.stack.works()
    made.stack.fails(77, options=("--purpose", "other"))
    with made.stack.to_central.failing(always(Fault("reset"))):
        made.stack.fails(75)
    after = now(made)
    counted = {name: after[key("renders_total", mode="exec", outcome=name)] for name in ("released", "denied", "failed")}
    assert counted == {name: before[key("renders_total", mode="exec", outcome=name)] + 1 for name in counted}
    for stage in ("reserved", "read", "recorded", "released"):
        counts = [each[key("render_seconds_count", mode="exec", stage=stage)] for each in (before, after)]
        assert counts[1] == counts[0] + 1, stage


def test_a_rotation_is_told_with_its_stages(made, short):
    """Status tells how long a rotation took to each stage, until its consumer knew, and which version there is now."""
    name = made.scope("measured", files=[{**SYSTEMD, "notify": {"command": ["/bin/true"], "min_interval": "0s"}}])
    made.render(name)
    told = made.told(name)
    assert (told["versions"], told["last_rotation"], told["adopted"]) == ({f"secret/{name}": 1}, None, False)
    before = now(made)
    made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 2)})
    wait_until(lambda: "told" in ((made.told(name)["last_rotation"] or {}).get("stages") or {}))
    told = made.told(name)
    assert told["versions"] == {f"secret/{name}": 2}
    stages = told["last_rotation"]["stages"]
    assert list(stages) == ["reserved", "read", "recorded", "released", "told"]
    assert list(stages.values()) == sorted(stages.values()) and stages["told"] < 60
    after = now(made)
    for stage in stages:
        counts = [each[key("rotation_seconds_count", stage=stage)] for each in (before, after)]
        assert counts[1] == counts[0] + 1, stage
    assert "ago: reserved 0." in made.command("status").stdout
    took = {stage: round(seconds * 1000) for stage, seconds in stages.items()}
    (told_row,) = wait_until(lambda: noted_rows(made, "notified", f"{name}: "))
    assert told_row["stages"] == pytest.approx(took, abs=1)
    (replaced,) = [row for row in made.stack.rows() if row.get("reason") == "rotated" and row["scopes"] == [name]]
    assert replaced["stages"] == pytest.approx({stage: took[stage] for stage in ("reserved", "read", "recorded")}, abs=1)


def test_what_is_stale_or_cannot_be_rendered_is_counted(made):
    """While a rotation cannot be rendered its files are counted as failed, and as fresh when it was."""
    name = made.scope("failing")
    made.render(name)
    with made.stack.to_central.failing(always(Fault("reset"))):
        made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 2)})
        wait_until(lambda: now(made)[key("files", state="failed")] == 1, 60)
        assert now(made)[key("central_reachable")] == 0
        assert "a newer one is due; FAILED: " in made.command("plan", name).stdout
    wait_until(lambda: now(made)[key("files", state="failed")] == 0, 60)
    wait_until(lambda: now(made)[key("central_reachable")] == 1)


def test_what_an_agent_before_gave_out_is_told_as_adopted(made):
    """Runs and files of an earlier agent are adopted, in status and in the figures; what is given out now is not."""
    name = made.scope("kept")
    made.render(name)
    agent = made.stack.agent
    with agent.spawn("--scope", "web", "--", "sleep", "1000") as child:
        wait_until(lambda: "prism-vault" not in command_line(child.pid))
        wait_until(lambda: child.pid in [run["pid"] for run in agent.status()["runs"]])
        assert now(made)[key("runs", state="own")] == 1
        agent.stop()
        agent.start()
        (run,) = agent.status()["runs"]
        assert run["adopted"] and run["versions"] == {"secret/web": 1} and made.told(name)["adopted"]
        assert (now(made)[key("runs", state="own")], now(made)[key("runs", state="adopted")]) == (0, 1)
        assert ", adopted" in made.command("status").stdout
        assert now(made)[key("files_adopted")] >= 1
        assert noted(made, "adopted", "1 runs that") and noted(made, "adopted", "the files of ")
        made.stack.openbao.kv_put("secret/web", {"canary": made.stack.canary})
        wait_until(lambda: now(made)[key("runs_outdated")] == 1)
        child.kill()
        status_of(child)


def test_the_oldest_the_last_and_what_failed_are_of_all(made):
    """Ages and the next check are the highest of all runs and scopes; a run failed while its rotation did and is tried again."""
    run = {"adopted": False, "stale": [], "left": "", "age": 5, "next_check": 9, "pending": True, "rotation_error": ""}
    tried = {**run, "age": 70, "next_check": None, "rotation_error": "no supervisor"}
    name = made.scope("figured")
    made.render(name)
    told = made.stack.agent.status()
    (files,) = [each for each in told["files"] if each["scope"] == name]
    told |= {"runs": [run, tried, {**tried, "pending": False}], "files": [{**files, "age": 80, "next_check": 14}]}
    found = looked_up(told)
    assert (found["runs_oldest_seconds"], found["next_check_seconds"], found["files_oldest_seconds"]) == (70, 14, 80)
    assert found["runs_failed"] == 1


def test_figures_name_nobody_and_nothing(made):
    """Neither a scope, a path, a directory, a purpose nor a value is in the figures of an agent that has them all."""
    made.stack.works()
    text = made.stack.agent.http("GET", "/metrics")[1].decode()
    names = [scope["name"] for scope in made.stack.agent.status()["scopes"]]
    for word in (*names, "secret/", "server1", "prism-test", str(made.top), made.stack.canary):
        assert word not in text.replace("token_ends_seconds", "")


def test_without_an_agent_there_are_no_figures(made, short):
    """Where no agent listens the command ends with 69 and one line."""
    line = made.refused(69, "status", "--metrics", "--socket", str(short / "none"))
    assert "no agent answers" in line


@given(st.lists(st.floats(0, 1e6)))
def test_a_histogram_is_what_was_measured(seconds):
    """For any durations each bucket has those that are at most its bound, and sum and count are theirs."""
    metrics = Metrics()
    for each in seconds:
        metrics.stage("exec", "read", each)
    nothing = {each.name: dict.fromkeys(each.labels[0][1], 0.0) if each.labels else 0.0 for each in LOOKED_UP}
    read = figures(metrics.exposition(nothing))
    labels = {"mode": "exec", "stage": "read"}
    for bound in (*BOUNDS, math.inf):
        at_most = "+Inf" if bound == math.inf else str(bound)
        (found,) = [
            value for (name, pairs), value in read.items()
            if name == "render_seconds_bucket" and dict(pairs) in ({**labels, "le": at_most}, {**labels, "le": f"{bound:g}"})
        ]  # fmt: skip
        assert found == sum(each <= bound for each in seconds)
    assert read[key("render_seconds_count", **labels)] == len(seconds)
    assert read[key("render_seconds_sum", **labels)] == pytest.approx(sum(seconds), abs=1e-5, rel=1e-6)
