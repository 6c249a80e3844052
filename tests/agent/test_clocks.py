"""Clocks that jump, and a host that sleeps: nothing ends early or late for that (F95), what ended in its sleep is gone (F96)."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.agent.leases.child import now as boottime
from tests.support.clocks import Clocks
from tests.support.fault_proxy import Fault, always, times, with_kind
from tests.support.leased import Leased, leased
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agent import AgentProcess

pytestmark = pytest.mark.tool("cc")

DAY, YEAR, HOUR = 86_400, 365 * 86_400, 3_600
# A leap second either way, steps of NTP, a day, ten years; a clock before 1970 + ten years is no clock of today.
JUMPS = (1, -1, 127, -127, DAY, -DAY, 10 * YEAR, -10 * YEAR)


@pytest.fixture(scope="module")
def clocks() -> Iterator[Clocks]:
    """The clocks that the agent of this file sees."""
    directory = Path(tempfile.mkdtemp(prefix="pv-", dir="/tmp"))
    yield Clocks(directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def made(clocks) -> Iterator[Leased]:
    """A stack whose agent has these clocks."""
    with leased(before=clocks.before) as running:
        yield running


@pytest.fixture(autouse=True)
def right(clocks) -> None:
    """Have each test begin with the host's own clocks; who sets CLOCK_BOOTTIME on is the last one, as it never goes back."""
    clocks.set()


def test_f95_a_clock_that_jumps_ends_nothing_and_keeps_nothing_from_being_renewed(made, clocks):
    """Whatever the wall clock does, a run and a file stay, their lease is renewed in time, and what is asked for is given."""
    name = made.scope("jumping", role=("6s", "1h"))
    made.filed.render(name)
    with made.running(name) as child:
        audit_id, users = made.told(child.pid)["id"], made.users(name)
        for seconds in JUMPS:
            clocks.set(wall=seconds)
            made.filed.stack.works()
        renewed = made.told(child.pid)["leases"][0]["renewed"]
        wait_until(lambda: made.told(child.pid)["leases"][0]["renewed"] >= renewed + 2, 60)
        clocks.set()
        assert child.poll() is None and made.users(name) == users
        assert made.told(child.pid)["id"] == audit_id and (made.filed.top / name / "db.json").exists()
    made.filed.command("clear", name)
    made.becomes(name, 0)


@pytest.mark.parametrize("seconds", [-10 * YEAR, 10 * YEAR])
def test_f95_a_lease_ends_when_it_ends_whatever_the_clock_says(made, clocks, seconds):
    """A lease that nobody can renew is taken back at its end: not later with a clock set back, not earlier with one set on."""
    name = made.scope("back" if seconds < 0 else "on", role=("8s", "8s"), grace="1s")
    with made.running(name) as child:
        audit_id = made.told(child.pid)["id"]
        began, left = boottime(), made.told(child.pid)["leases"][0]["expires_in"]
        with made.filed.stack.to_openbao.failing(always(Fault("reset"))):
            clocks.set(wall=seconds)
            child.wait(60)
            assert boottime() - began > left - 3.0  # its grace, and what status rounds off
    assert made.filed.ended(audit_id) == "lease_expired"
    clocks.set()
    made.becomes(name, 0)


def test_f95_rows_tell_both_clocks_and_when_central_had_them(made, clocks):
    """A row has the wall clock as its sender saw it, a clock that nobody sets, and the time at which central got it."""
    before = len(made.filed.stack.settle())
    clocks.set(wall=-10 * YEAR)
    earliest = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    made.filed.stack.works()
    latest = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    rows = [each for each in made.filed.stack.central.events()[before:] if each["kind"] in ("reserved", "success")]
    assert len(rows) == 2
    for row in rows:
        assert abs(row["fields"]["at"] / 1000 + 10 * YEAR - time.time()) < DAY
        assert earliest <= row["fields"]["boot_ms"] <= latest
        assert abs(row["received_at"] / 1000 - time.time()) < DAY


@pytest.mark.namespaces
def test_f96_what_ended_before_an_agent_is_there_again_is_gone_before_it_answers_anybody(made):
    """An agent that is killed, and started an hour on by the kernel's own CLOCK_BOOTTIME, has cleared what ended when it serves.

    A time namespace moves when processes began, too: a run whose values do not end is known all the same, and stays.
    """
    agent = made.filed.stack.agent
    ended, stays = made.scope("ended", role=("30m", "1h"), grace="1s"), made.filed.scope("stays")
    for name in (ended, stays):
        made.filed.render(name)
    rendered = made.filed.told(ended)["id"]
    with made.running(ended) as child, made.running(stays) as other:
        audit_id, kept = made.told(child.pid)["id"], made.told(other.pid)["id"]
        agent.kill()
        with slept(agent, HOUR), made.filed.stack.to_openbao.failing(always(Fault("reset"))):
            agent.start(ready=False)
            assert not (made.filed.top / ended / "db.json").exists()
            assert child.wait(30) == -signal.SIGTERM
            assert other.poll() is None and made.told(other.pid)["id"] == kept
            assert made.filed.file(stays) == made.filed.whole(stays, 1)
        assert made.filed.ended(audit_id) == made.filed.ended(rendered) == "lease_expired"
        wait_until(lambda: agent.status()["ready"], 60)
        made.filed.stack.works()
        newest = [row for row in made.filed.stack.rows() if row["kind"] == "success"][-1]
        assert newest["boot_ms"] / 1000 - boottime() > HOUR - 60
        agent.stop()
        agent.start()
        assert made.told(other.pid)["id"] == kept
    made.becomes(ended, 0)


def test_f96_what_ended_while_the_host_slept_is_taken_back_and_never_given(made, clocks):
    """After an hour of sleep a lease of half an hour has ended: the run and the file are gone at once, without the provider.

    What was about to be given when the host fell asleep, recorded already, is not given, and the log says so.
    """
    name = made.scope("asleep", role=("30m", "30m"), grace="1s")
    made.filed.render(name)
    stack = made.filed.stack
    rendered, recorded = made.filed.told(name)["id"], threading.Event()
    with made.running(name) as child:
        audit_id = made.told(child.pid)["id"]
        held, since = Fault("answer", forwarded=True, until=recorded), len(stack.to_central.seen)
        with stack.to_central.failing(times(1, held, with_kind("success"))):
            late = stack.agent.spawn("--scope", name, "--run-ref", "late", "--", "echo", "given")
            wait_until(lambda: any(map(with_kind("success"), stack.to_central.seen[since:])))
            with stack.to_openbao.failing(always(Fault("reset"))):
                clocks.set(boot=HOUR)
                recorded.set()
                said, why = late.communicate(timeout=60)
                child.wait(30)
                wait_until(lambda: not (made.filed.top / name / "db.json").exists())
    assert (late.returncode, said) == (75, "") and "a lease ended before its values could be released" in why
    (reservation,) = {row["reservation"] for row in stack.rows() if row.get("run_ref") == "late"}
    assert made.filed.ended(f"pva_{reservation}") == "not_delivered"
    assert made.filed.ended(audit_id) == "lease_expired"
    assert made.filed.ended(rendered) == "lease_expired"
    made.becomes(name, 0)


@contextlib.contextmanager
def slept(agent: AgentProcess, seconds: int) -> Iterator[None]:
    """Have the agent start in a time namespace (time_namespaces(7)) whose CLOCK_BOOTTIME is so far on."""
    before, agent.before = agent.before, ["/usr/bin/unshare", "--time", "--boottime", str(seconds), *agent.before]
    try:
        yield
    finally:
        agent.before = before
