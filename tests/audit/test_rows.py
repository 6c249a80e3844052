"""What the rows say: names, paths and versions; never a value; nothing that a caller can forge."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prism_vault_agent.audit import rows
from prism_vault_agent.audit.event import Chain, canonical, parse
from prism_vault_agent.central.log import incoming
from prism_vault_agent.errors import AuditUnavailable, ConfigError, Denied, SecretNotFound
from prism_vault_agent.model import Request
from prism_vault_agent.policy.decide import Denial, decide
from prism_vault_agent.scope import Binding, Purpose, ScopeName, SecretReference
from tests.audit.nouns import BINDING, SCOPE, WEB, caller, grant, reservation, resolution

# The bytes of a caller that are no UTF-8 arrive as surrogates.
ANY = st.text(st.characters(exclude_categories=()), max_size=300)


def test_each_row_has_what_every_event_needs() -> None:
    """All rows have kind, ids and both clocks, are canonical, and those of one reservation share its id, project and scopes."""
    held = reservation()
    made = [
        rows.reserved(grant(), held.id),
        rows.success(resolution()),
        rows.failure(held, AuditUnavailable("x")),
        rows.cleared(held, "exited"),
    ]
    for row in made:
        assert parse(canonical(row)) == row
        assert {"kind", "event_id", "reservation", "at", "boot_ms"} <= row.keys()
        assert (row["reservation"], row["project"], row["environment"], row["scopes"]) == (held.id, "prism", "lan", ["web"])
    assert len({row["event_id"] for row in made}) == len(made)


def test_the_success_names_versions_and_leases() -> None:
    """A success says which names are released and which versions and leases they come from."""
    row = rows.success(resolution())
    assert row["names"] == ["A"]
    assert row["leases"] == [
        {"path": "secret/web", "version": 3, "lease_id": "", "seconds": 0},
        {"path": "db/creds", "version": None, "lease_id": hashlib.sha256(b"db/1").hexdigest()[:32], "seconds": 60},
    ]


def test_a_success_never_holds_what_the_resolution_holds() -> None:
    """The values that a resolution points to do not come into its row."""
    assert b"CANARY" not in canonical(rows.success(resolution(held=b"CANARY")))


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (Denied("no", reason="provider_policy"), "denied", "provider_policy"),
        (SecretNotFound("gone", reason="deleted"), "failure", "deleted"),
        (AuditUnavailable("away"), "failure", "audit_unavailable"),
        (asyncio.CancelledError("CANARY"), "failure", "cancelled"),
        (ValueError("CANARY"), "failure", "cancelled"),
    ],
)
def test_a_failure_tells_the_reason_and_no_text_that_nobody_typed(error: BaseException, kind: str, reason: str) -> None:
    """Denials are rows of kind denied, all else failures with the error's reason; of a foreign error only its type is told."""
    row = rows.failure(reservation(), error)
    assert (row["kind"], row["reason"]) == (kind, reason)
    assert b"CANARY" not in canonical(row)


def test_a_success_that_stands_by_mistake_is_taken_back_by_a_row_of_its_own() -> None:
    """The row made from a late failure belongs to the same reservation and scopes, with an id of its own."""
    failure = rows.failure(reservation(), AuditUnavailable("away"))
    row = rows.not_delivered(failure)
    assert (row["kind"], row["reason"]) == ("cleared", "not_delivered")
    for name in ("reservation", "project", "environment", "scopes"):
        assert row[name] == failure[name]
    assert row["event_id"] != failure["event_id"]


@given(ANY, ANY, ANY, ANY, ANY)
def test_f61_whatever_a_caller_writes_stays_one_printable_ascii_text(
    scope: str, purpose: str, run_ref: str, job_id: str, executable: str
) -> None:
    """Line ends, escapes, surrogates and floods of a caller's making cannot forge, hide or break a denial's row."""
    request = Request((ScopeName(scope),), Purpose(purpose), run_ref, job_id)
    who = caller(executable=executable)
    decision = decide({WEB: SCOPE}, who, request)
    if not isinstance(decision, Denial):
        return
    row = rows.denied(who, request, decision, "0" * 32)
    assert parse(Chain("h", "e").seal(row))
    told = [row["purpose"], row["run_ref"], row["job_id"], row["message"], row["caller"]["executable"], *row["scopes"]]  # type: ignore[index,misc]
    for text in told:
        assert isinstance(text, str)
        assert text.isascii()
        assert text == "" or text.isprintable()
        assert len(text) <= rows.LONGEST_TEXT + 3


@given(st.lists(ANY, max_size=5), ANY, ANY, ANY)
@example(["web"] * 2000 + ["\n" * 300], "\ud800" * 300, "\0" * 300, "")
@example([""], "", "", "")
def test_f61_every_denial_fits_the_log(scopes: list[str], purpose: str, run_ref: str, job_id: str) -> None:
    """Central takes the row of every denial, whatever was asked for: nobody can be denied off the record."""
    request = Request(tuple(map(ScopeName, scopes)), Purpose(purpose), run_ref, job_id)
    decision = decide({}, caller(), request)
    assert isinstance(decision, Denial)
    body = Chain("h", "e" * 32).seal(rows.denied(caller(), request, decision, "0" * 32))
    assert incoming.read(body).kind == "denied"


@given(ANY.filter(len), ANY.filter(len))
@example("\udc80", "k")
@example("a", "\x1b[2J")
def test_f61_a_reference_of_the_callers_own_never_breaks_the_log(path: str, key: str) -> None:
    """Whatever reference a caller writes below an allowed path is refused as it is read, or is a row that can be sent."""
    try:
        reference = SecretReference.parse(f"vault://secret/{path}#{key}")
    except ConfigError:
        return
    assert str(reference).isprintable()
    row = rows.reserved(grant(references=(Binding("B", reference), BINDING)), "0" * 32)
    row["bindings"] = [rows._binding(Binding("B", reference))]
    assert parse(Chain("h", "e").seal(row))
