"""The agent at a stream of signals that is wrong, a central that was set back, and a revocation in the middle of a render."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.fault_proxy import Fault, Seen, times, with_kind
from tests.support.own_agent import logged
from tests.support.signalled import SLEEP, complete, evidence, order, signalled, started, status_of
from tests.support.stack import Stack, is_read, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def made() -> Iterator[Stack]:
    with signalled() as running:
        yield running


def is_stream(seen: Seen) -> bool:
    """Tell whether a request follows the stream."""
    return seen.path.startswith("/v1/signals")


def wrong_streams(last: int) -> dict[str, bytes]:
    """Return what a stream after ``last`` must not be."""
    begun = HEAD + b"id: %d\n\n" % last
    order_ = b'data: {"target": {"everything": true}, "projects": ["*"], "emergency": true}\n\n'
    return {
        "no_http": b"\x16\x03\x01\x02\x00garbage\r\n\r\n",
        "garbage": begun + bytes(range(256)) * 8 + b"\n\nid: x\n\n",
        "endless_line": begun + b"data: " + b"x" * 300_000,
        "no_id": begun + b"event: revocation\n" + order_,
        "no_json": begun + b"id: %d\nevent: revocation\ndata: {\n\n" % (last + 1),
        "back": begun + b"id: %d\nevent: revocation\n" % last + order_,
        "far_back": begun + b"id: 0\n\n",
        "cut": begun + b"id: %d\nevent: revocation\ndata: {" % (last + 1),
    }


@pytest.mark.parametrize(
    "names", [("no_http", "no_http", "garbage", "endless_line"), ("no_id", "no_id", "no_json"), ("back", "far_back", "cut")]
)
def test_a_wrong_stream_ends_nothing_and_is_followed_anew(made, names):
    """Garbage, endless lines, no id or sense, ids that go back: nothing ends, each is told once, what comes then is heard."""
    run = f"steady-{names[0]}"
    child = started(made.agent, run)
    wait_until(lambda: made.agent.status()["signals"]["connected"], 60)
    last, before, since = (
        made.agent.status()["signals"]["last"],
        len(logged(made.agent, "signals.away")),
        len(made.to_central.seen),
    )
    contents = [wrong_streams(last)[name] for name in names]
    with made.to_central.failing(lambda seen: Fault("answer", raw=contents.pop(0)) if is_stream(seen) and contents else None):
        made.to_central.cut()
        wait_until(lambda: sum(map(is_stream, made.to_central.seen[since:])) > len(names), 60)
    wait_until(lambda: made.agent.status()["signals"]["connected"], 60)
    told = [line["message"] for line in logged(made.agent, "signals.away")[before:]]
    assert len(told) == len(set(told)) >= 1
    assert made.agent.status()["signals"]["last"] == last
    assert child.poll() is None
    number = order(made.central, "revocations", run_ref=run)

    assert status_of(child) == -signal.SIGTERM
    assert complete(made.central, number)["states"] == {"cleared": 1}
    assert logged(made.agent, "signals.failed") == []


@pytest.mark.parametrize(("emergency", "number"), [(False, signal.SIGTERM), (True, signal.SIGKILL)])
@pytest.mark.parametrize("step", ["read", "success"])
def test_what_is_rendered_when_a_revocation_comes_is_ended(made, step, emergency, number):
    """A revocation while a value is read, or its success recorded, ends the command as soon as it has it; cleared on the log."""
    going = threading.Event()
    fault = Fault("answer", forwarded=True, until=going)
    proxy, wanted = (made.to_openbao, is_read) if step == "read" else (made.to_central, with_kind("success"))
    since, run = len(proxy.seen), f"under-way-{step}-{emergency}"
    with proxy.failing(times(1, fault, wanted)):
        child = made.agent.spawn("--scope", "web", "--run-ref", run, *SLEEP)
        wait_until(lambda: any(map(wanted, proxy.seen[since:])), 30)
        revocation = order(made.central, "revocations", run_ref=run, emergency=emergency)
        wait_until(lambda: made.agent.status()["signals"]["last"] == revocation)
        going.set()
    assert status_of(child) == -number
    made.settle()
    rows = [event["fields"] for event in made.central.events(run_ref=run) if event["fields"].get("kind") != "admin"]
    reservation = rows[0]["reservation"]
    (cleared,) = [event["fields"] for event in made.central.events(reservation=reservation, kind="cleared")]

    assert [row["kind"] for row in rows][:2] == ["reserved", "success"]
    assert (cleared["reason"], cleared["signal"]) == ("revoked", revocation)
    assert made.agent.status()["runs"] == []


def test_a_central_that_was_set_back_is_followed_from_where_it_is() -> None:
    """When a backup has replaced the log, the agent says so once, and ends what is revoked from then on, by old numbers too."""
    with stack(vault='poll = "60s"', reservation_ttl="60s", log_key=False) as made:
        wait_until(lambda: made.agent.status()["signals"]["connected"])
        child = started(made.agent, "survivor")
        copy = made.directory / "backup.db"
        copy.touch(mode=0o600)
        with (
            contextlib.closing(sqlite3.connect(made.central.database)) as log,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            log.backup(target)
        numbers = [order(made.central, "rotations", scope="web") for _ in range(3)]
        wait_until(lambda: made.agent.status()["signals"]["last"] == numbers[-1])
        made.central.stop()
        for each in made.central.database.parent.glob(f"{made.central.database.name}-*"):
            each.unlink()
        shutil.copy(copy, made.central.database)
        made.central.start()
        (told,) = wait_until(lambda: logged(made.agent, "signals.ahead"), 60)
        wait_until(lambda: made.agent.status()["signals"]["connected"], 60)
        again = order(made.central, "revocations", run_ref="survivor")

        assert (told["ours"], told["central"]) == (numbers[-1], numbers[0] - 1)
        assert again == numbers[0]
        assert status_of(child) == -signal.SIGTERM
        assert evidence(made.central, again)["complete"] is False  # its answers are of a chain that this log does not know
        made.agent.stop()
        made.agent.start()
        assert logged(made.agent, "signals.failed") == []
