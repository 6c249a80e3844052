"""An exchange with central that fails once, at each step of the protocol, before or after central has acted on it: one row.

``test_audit_faults.py`` has the two steps that a release waits for; here are the three that nobody waits for.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.agent.test_audit_faults import HOWS, _fault
from tests.support import history
from tests.support.fault_proxy import Fault, always, times, with_kind
from tests.support.stack import Stack, is_read, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = ("failure", "denied", "cleared")
CASES = list(itertools.product(STEPS, (False, True), HOWS))
IDS = [f"{step}-{'persisted' if forwarded else 'not_persisted'}-{how}" for step, forwarded, how in CASES]
EXPECTED = {"failure": ["reserved", "failure"], "denied": ["denied"], "cleared": ["reserved", "success", "cleared"]}


@pytest.fixture(scope="module")
def stacked() -> Iterator[Stack]:
    with stack(vault='timeout = "2s"', central_lines='timeout = "1s"', reservation_ttl="30s") as made:
        yield made


@pytest.mark.parametrize(("step", "forwarded", "how"), CASES, ids=IDS)
def test_one_lost_exchange_at_a_step_that_nobody_waits_for(stacked: Stack, step: str, how: str, *, forwarded: bool) -> None:
    """A failure, a denial or an end whose request or answer is lost once is told again: one row of it, nothing else released."""
    before = len(stacked.settle())
    with stacked.to_central.failing(times(1, _fault(how, forwarded=forwarded), with_kind(step))):
        if step == "failure":
            with stacked.to_openbao.failing(always(Fault("answer", status=404, body=b'{"errors":[]}'), is_read)):
                stacked.fails(66, "secret")
        elif step == "denied":
            stacked.fails(77, "curiosity", options=("--purpose", "curiosity"))
        else:
            stacked.works()
        wait_until(lambda: [row["kind"] for row in stacked.rows(before)] == EXPECTED[step], 20)
        wait_until(lambda: stacked.to_central.count(lambda seen: step in seen.kinds) >= 2)
    stacked.settle()
    assert [row["kind"] for row in stacked.rows(before)] == EXPECTED[step]
    released = history.released(stacked.central.events()[before:])
    assert len(released) == (step == "cleared")
