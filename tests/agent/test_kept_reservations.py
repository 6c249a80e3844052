"""A reservation as it is kept for the next agent: what it needs to look after a run is there, and older records are read."""

from __future__ import annotations

import json

from prism_vault_agent.agent import reservations
from prism_vault_agent.model import Caller, Grant, Request, Reservation, ReservationId
from prism_vault_agent.scope import Binding, CallerRule, Purpose, Reaction, Scope, ScopeName, SecretReference

OWN = Binding("OWN", SecretReference("secret/own", "key"))
BOUND = Binding(None, SecretReference("secret/web"))
CALLER = Caller(7, 1000, 1000, frozenset({4, 5}), "/usr/bin/web", 12345, "web.service")
SCOPE = Scope(ScopeName("web"), "prism", "lan", (Purpose("service"),), (CallerRule("service", uid=1000),), (BOUND,), grace=3.0)
REQUEST = Request(
    (ScopeName("web"),), Purpose("service"), "run-1", "job-1", (OWN,), supervised=True, on_rotate=Reaction("signal", "HUP")
)
GRANT = Grant((SCOPE,), CALLER, "service", Purpose("service"), REQUEST, (OWN, BOUND), pristine=True)


def test_what_was_asked_is_what_the_next_agent_reads():
    """Request, caller and bindings come back as they were; of a scope what ending its runs needs."""
    kept = json.loads(json.dumps(reservations.plain(Reservation(ReservationId("r1"), "pva_r1", GRANT))))
    found = reservations.recall(kept)
    assert (found.id, found.audit_id, found.grant.request, found.grant.caller) == ("r1", "pva_r1", REQUEST, CALLER)
    assert found.grant.bindings == (OWN, BOUND)
    assert [(each.name, each.grace) for each in found.grant.scopes] == [("web", 3.0)]


def test_a_record_of_an_older_agent_is_read():
    """What an older agent did not keep is as it was then: no supervisor, no word of its own, no references."""
    kept = reservations.plain(Reservation(ReservationId("r1"), "pva_r1", GRANT))
    for name in ("supervised", "on_rotate", "references"):
        del kept[name]
    found = reservations.recall(json.loads(json.dumps(kept))).grant.request
    assert (found.supervised, found.on_rotate, found.references) == (False, None, ())
