"""When a child token and its leases are looked after, by the clock that nobody can set; and what the next agent knows of them."""

from __future__ import annotations

import json
import math
import time

import pytest

from prism_vault_agent.agent.leases import child as children
from prism_vault_agent.agent.leases.child import Child, now, recall
from prism_vault_agent.model import Lease
from tests.audit.nouns import reservation

LEASE = Lease("database/creds/web", lease_id="database/creds/web/x", seconds=600, renewable=True)
FIXED = Lease("pki/issue/web", seconds=6000)


def child(*leases: Lease, seconds: int = 3600, since: float | None = None) -> Child:
    """Return a child token whose leases were read just now."""
    made = Child("accessor", "parent", reservation(), seconds, children.boot())
    made.read(leases, now() if since is None else since)
    return made


def test_f15_it_is_renewed_before_two_thirds_of_the_shortest_life():
    """What ends first decides, and each time is another part between 60 % and two thirds; so of what is replaced by then."""
    renewed = [(child(LEASE).due - now()) / 600 for _ in range(200)]
    replaced = [(child(FIXED).replace_at - now()) / 6000 for _ in range(200)]
    for parts in (renewed, replaced):
        assert 0.59 < min(parts) < 0.62 and 0.64 < max(parts) <= 2 / 3


def test_what_cannot_be_renewed_is_replaced_at_two_thirds_whatever_else_is_renewed():
    """A lease that nobody can renew is replaced by its own life; its child token is renewed by that one's."""
    made = child(FIXED)
    assert made.due < now() + 2400 < now() + 3600 <= made.replace_at <= now() + 4000
    made.extended({"accessor": 3600})
    assert not made.capped and made.expires == pytest.approx(now() + 3600, abs=5)
    assert child(Lease("pki/issue/web", seconds=60)).replace_at <= now() + 40


def test_a_max_ttl_is_seen_by_what_a_renewal_gives():
    """A lease that gets less than nine tenths of its life at a renewal is at its end."""
    made = child(LEASE)
    made.extended({"accessor": 3600, LEASE.lease_id: 600})
    assert (made.capped, made.renewed) == (False, 1)
    made.extended({"accessor": 3600, LEASE.lease_id: 300})
    assert made.capped and made.final and made.describe()[0]["expires_in"] in (299, 300)


def test_f95_a_wall_clock_that_is_set_changes_no_end(monkeypatch):
    """Ten years forth or back on the wall clock, and everything ends when it would have."""
    for years in (-10, 10):
        made = child(LEASE)
        ends, due = made.expires, made.due
        shift = years * 365 * 86400
        real = time.time()
        monkeypatch.setattr(time, "time", lambda real=real, shift=shift: real + shift)
        assert (made.expires, made.due) == (ends, due)
        assert child(LEASE).expires == pytest.approx(ends, abs=5)
        monkeypatch.undo()


def test_f96_what_ended_while_the_host_slept_has_ended():
    """The clock goes on in a suspension, so a lease from before it has ended after it."""
    assert child(LEASE, since=now() - 700).expires < now()


def test_what_is_written_down_is_what_the_next_agent_knows():
    """The record gives the same child token back, with the ends that were known in this boot; it is asked about at once."""
    made = child(LEASE, FIXED)
    plain = json.loads(json.dumps(made.record()))
    found = recall(plain)
    assert (found.accessor, found.parent, found.leases, found.seconds) == ("accessor", "parent", (LEASE, FIXED), 3600)
    assert found.reservation.audit_id == made.reservation.audit_id
    assert found.reservation.grant.caller == made.reservation.grant.caller
    assert found.record() == made.record()
    assert (found.due, found.ends) == (0.0, made.ends)
    made.extended({LEASE.lease_id: 7_200})
    assert recall(made.record()).ends == made.ends
    assert recall({**plain, "boot": "another"}).expires == math.inf
    of_before = {name: value for name, value in plain.items() if name != "ends"}
    assert recall(of_before).ends == {FIXED.path: found.ends[FIXED.path]}
    with pytest.raises((TypeError, ValueError)):
        recall({**plain, "ends": 7})


@pytest.mark.parametrize("field", ["event_id", "parent", "reservation", "caller", "bindings", "scopes", "leases", "since"])
def test_a_record_that_lacks_something_is_none(field):
    """What is damaged raises one of the errors that the journal's reader takes for damage."""
    plain = json.loads(json.dumps(child(LEASE).record()))
    del plain[field]
    with pytest.raises((KeyError, TypeError, ValueError)):
        recall(plain)


def test_no_secret_is_in_a_record():
    """There are accessors and ids in it, and neither a value nor a token."""
    assert set(child(LEASE).record()) == {
        "event_id", "parent", "orphan", "seconds", "boot", "since", "leases", "ends", "reservation", "audit_id", "scopes", "kind",
        "purpose", "run_ref", "job_id", "mode", "supervised", "on_rotate", "references", "caller", "bindings",
    }  # fmt: skip
