"""A grant and what follows from it, for tests of the audit rows."""

from __future__ import annotations

from typing import Any

from prism_vault_agent.model import Caller, Grant, Lease, Request, Reservation, ReservationId, Resolution
from prism_vault_agent.scope import Binding, CallerRule, Purpose, Scope, ScopeName, SecretReference

WEB = ScopeName("web")
BINDING = Binding("A", SecretReference("secret/web", "a"))
SCOPE = Scope(WEB, "prism", "lan", (Purpose("test"),), (CallerRule("operator", uid=7),), (BINDING,))


def caller(**more: Any) -> Caller:
    """Return a caller."""
    return Caller(**{"pid": 42, "uid": 7, "gid": 8, "groups": frozenset(), "executable": "/bin/x", "started": 1, **more})


def grant(**more: Any) -> Grant:
    """Return a grant for the scope ``web``."""
    return Grant((SCOPE,), caller(), "operator", Purpose("test"), Request((WEB,), **more), (BINDING,), pristine=False)


def reservation() -> Reservation:
    """Return a reservation of it."""
    return Reservation(ReservationId("0" * 31 + "1"), "pva_" + "0" * 31 + "1", grant())


def resolution(held: object = None) -> Resolution:
    """Return a resolution of it."""
    return Resolution(reservation(), ("A",), (Lease("secret/web", 3), Lease("db/creds", lease_id="db/1", seconds=60)), held)
