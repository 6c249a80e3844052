"""Outages of central and ends of the agent: what could not be told is told later, once; the log never under-reports."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support import history
from tests.support.fault_proxy import Fault, Seen, always, with_kind
from tests.support.soak import count
from tests.support.stack import Stack, is_read, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def stacked() -> Iterator[Stack]:
    with stack(vault='timeout = "10s"', central_lines='timeout = "1s"') as made:
        yield made


def test_f20_a_central_that_drips_its_answer(stacked: Stack) -> None:
    """An answer that comes byte by byte is bounded as a whole, not byte by byte."""
    reads = stacked.reads
    with stacked.to_central.failing(always(Fault("drip", forwarded=True), with_kind("reserved"))):
        stacked.fails(75, "central did not take the audit record")
        assert stacked.reads == reads
    stacked.works()


@pytest.mark.soak
def test_f30_central_restarts_under_load(stacked: Stack) -> None:
    """While central is restarted and killed under load, as many values come out as the log says, and each exec has its end."""
    before = len(stacked.settle())
    done: list[subprocess.CompletedProcess[str]] = []
    enough = threading.Event()

    def loop() -> None:
        while not enough.is_set():
            done.append(stacked.exec("--timeout", "4s"))

    def more(ended: int) -> None:
        """Wait until so many more execs have given their value."""
        goal = ended + sum(each.returncode == 0 for each in done)
        wait_until(lambda: sum(each.returncode == 0 for each in done) >= goal, 60)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(loop) for _ in range(4)]
        try:
            for end in (stacked.central.stop, stacked.central.kill) * count(1, 20):
                more(5)
                end()
                stacked.central.start()
            more(5)
        finally:
            enough.set()
        for each in running:
            each.result()
    events = stacked.settle()[before:]
    for one in done:
        assert one.returncode in (0, 75), one
        assert one.stdout == (f"ran {stacked.canary}\n" if one.returncode == 0 else "")
    assert sum(each.returncode == 0 for each in done) <= len(history.released(events))
    assert stacked.agent.log.count("audit.chain_broken") == 0
    stacked.works()
    stacked.verify()


def _long_run(stacked: Stack) -> subprocess.Popen[str]:
    """Start a command under exec that runs until its standard input is closed; return when it has its values."""
    script = 'echo "$CANARY"; read -r line'
    run = stacked.agent.spawn("--scope", "web", "--", "/bin/sh", "-c", script, stdin=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.readline() == f"{stacked.canary}\n"
    return run


def _end(run: subprocess.Popen[str]) -> None:
    run.communicate(timeout=30)


def _cleared(stacked: Stack, before: int) -> list[object]:
    return [row["reason"] for row in stacked.rows(before) if row["kind"] == "cleared"]


def test_an_outage_is_told_in_full_when_it_is_over(stacked: Stack) -> None:
    """Denials and ends that happen while central is away are on the log once each when it is back, in their order."""
    before = len(stacked.settle())
    runs = [_long_run(stacked) for _ in range(3)]
    stacked.central.stop()
    try:
        for _ in range(3):
            stacked.agent.exec("--scope", "no-such-scope", "--", "/bin/true")
        for run in runs:
            _end(run)
        wait_until(lambda: stacked.agent.status()["central"]["queued"] >= 6)
    finally:
        stacked.central.start()
    stacked.settle()
    rows = stacked.rows(before)
    assert [row["reason"] for row in rows if row["kind"] == "denied"] == ["unknown_scope"] * 3
    assert _cleared(stacked, before) == ["exited"] * 3
    wait_until(lambda: _journal(stacked) == [])  # they are taken out of it after they are taken


def _journal(stacked: Stack) -> list[str]:
    """Return the lines of the agent's journal."""
    path = stacked.agent.directory / "state" / "journal"
    return path.read_text().split("\n")[1:] if path.exists() and path.stat().st_size else []


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_what_an_agent_could_not_tell_is_told_by_the_next_one(stacked: Stack, how: str) -> None:
    """What was kept while central was away survives the agent's end, by a signal or in good order, and arrives once."""
    before = len(stacked.settle())
    run = _long_run(stacked)
    stacked.central.stop()
    try:
        stacked.agent.exec("--scope", "no-such-scope", "--", "/bin/true")
        _end(run)
        wait_until(lambda: len(_journal(stacked)) >= 2)
        getattr(stacked.agent, how)()
    finally:
        stacked.central.start()
    stacked.agent.start()
    stacked.settle()
    assert sorted(str(row["reason"]) for row in stacked.rows(before) if row["kind"] in ("denied", "cleared")) == [
        "exited",
        "unknown_scope",
    ]
    assert _journal(stacked) == []
    stacked.works()


def test_an_agent_that_stops_while_central_hangs_keeps_what_it_has_to_tell(stacked: Stack) -> None:
    """An end that is under way to a central that never answers is kept when the agent stops, and told by the next one."""
    before = len(stacked.settle())
    run = _long_run(stacked)
    with stacked.to_central.failing(always(Fault("hang"))):
        _end(run)
        wait_until(lambda: stacked.to_central.seen[-1].kinds == ["cleared"])
        stacked.agent.stop()
    assert len(_journal(stacked)) == 1
    stacked.agent.start()
    stacked.settle()
    assert _cleared(stacked, before) == ["exited"]


@pytest.mark.parametrize("persisted", [True, False])
def test_f24_a_kept_row_whose_answer_was_lost_arrives_once(stacked: Stack, *, persisted: bool) -> None:
    """A row that central may have taken before the agent was killed is sent again by the next agent, and is there once."""
    before = len(stacked.settle())
    run = _long_run(stacked)
    with stacked.to_central.failing(always(Fault("reset", forwarded=persisted), with_kind("cleared"))):
        _end(run)
        wait_until(lambda: len(_journal(stacked)) == 1)
        stacked.agent.kill()
    stacked.agent.start()
    stacked.settle()
    assert _cleared(stacked, before) == ["exited"]
    assert _journal(stacked) == []


def test_f24_a_success_in_doubt_at_the_agents_end_is_taken_back_by_the_next_one(stacked: Stack) -> None:
    """A success that stands on the log although its agent was killed before it knew is taken back: nothing was released."""
    before = len(stacked.settle())
    with stacked.to_central.failing(always(Fault("hang", forwarded=True), with_kind("success"))):
        stacked.fails(75, "central did not take the audit record")
        wait_until(lambda: len(_journal(stacked)) == 1)
        stacked.agent.kill()
    stacked.agent.start()
    wait_until(lambda: _cleared(stacked, before) == ["not_delivered"])
    assert history.kinds(stacked.rows(before)) == ["reserved", "success", "cleared"]
    stacked.works()


def test_f22_an_agent_that_is_killed_in_the_middle_leaves_a_reservation_that_ends(stacked: Stack) -> None:
    """An agent that dies while the provider is read releases nothing; central ends its reservation."""
    before = len(stacked.settle())
    assert stacked.agent.process is not None
    pid = stacked.agent.process.pid

    def kill(seen: Seen) -> None:
        if is_read(seen):
            os.kill(pid, signal.SIGKILL)

    with stacked.to_openbao.failing(kill):
        done = stacked.exec()
    stacked.agent.kill()
    assert done.returncode in (75, 76)
    assert done.stdout == ""
    stacked.agent.start()
    stacked.settle()
    assert history.kinds(stacked.rows(before)) == ["reserved", "abandoned"]
    stacked.works()


def test_g8_a_caller_that_is_gone_before_the_delivery_is_recorded(stacked: Stack) -> None:
    """A success whose values reached nobody, because the caller ended while it was recorded, is taken back on the log."""
    before = len(stacked.settle())
    go_on = threading.Event()
    arrived = threading.Event()

    def hold(seen: Seen) -> Fault | None:
        if "success" not in seen.kinds:
            return None
        arrived.set()
        return Fault("answer", forwarded=True, until=go_on)

    with stacked.to_central.failing(hold):
        run = stacked.agent.spawn("--scope", "web", "--", "/bin/true")
        try:
            assert arrived.wait(20)
            run.kill()
            run.communicate()
        finally:
            go_on.set()
        stacked.settle()
    assert history.kinds(stacked.rows(before))[:2] == ["reserved", "success"]
    wait_until(lambda: _cleared(stacked, before) in (["not_delivered"], ["exited"]))
    stacked.works()
