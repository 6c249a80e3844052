"""Service tokens as rows: one when a token is made, one when it is revoked, each on the audit log with who did it.

Only the SHA-256 of a token is kept. A name is never used again, so the log says for ever which token it speaks of.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import select

from prism_vault_agent.audit.event import canonical, new_id
from prism_vault_agent.central.access.identity import Identity
from prism_vault_agent.central.access.permission import Refused
from prism_vault_agent.central.access.policy import ANY
from prism_vault_agent.central.access.recorded import recorded
from prism_vault_agent.central.log.signals import SIGNALS, signal
from prism_vault_agent.central.storage import schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from prism_vault_agent.audit.event import Fields
    from prism_vault_agent.central.access.permission import Role, Scope
    from prism_vault_agent.central.log.transaction import Transaction

MADE: Final = "made"
REVOKED: Final = "revoked"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token is made with. ``expires_at`` is milliseconds since 1970, or None for never."""

    name: str
    role: Role
    host: str
    projects: tuple[str, ...]
    scopes: tuple[Scope, ...]
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the rows have it. ``n`` is its row on the audit log; without ``believed`` that row says something else."""

    grant: Grant
    sha256: str
    by: Mapping[str, str]
    n: int
    made_at: int
    believed: bool = True
    revoked_at: int | None = None
    revoked_by: Mapping[str, str] | None = None
    identity: Identity = field(init=False)

    def __post_init__(self) -> None:
        """Say once who holds the token: each request asks."""
        grant = self.grant
        ends = math.inf if grant.expires_at is None else grant.expires_at / 1000
        scopes = frozenset(grant.scopes)
        identity = Identity(grant.name, grant.role, grant.host, frozenset(grant.projects), scopes, "stored_token", ends)
        object.__setattr__(self, "identity", identity)

    def plain(self) -> dict[str, Any]:
        """Return the token as JSON knows it, without its hash."""
        revoked = {"revoked_at": self.revoked_at, "revoked_by": self.revoked_by}
        return {**_plain(self.grant), "made_at": self.made_at, "made_by": self.by, "n": self.n, **revoked}


class _Row(NamedTuple):
    name: str
    what: str
    sha256: str
    body: bytes
    n: int
    made_at: int


def make(transaction: Transaction, who: Identity, grant: Grant, sha256: str, lasts: int | None) -> Token | Refused:
    """Make a token that lasts ``lasts`` milliseconds from now on, and can do no more than ``who``."""
    if lasts is not None:
        grant = replace(grant, expires_at=transaction.now + lasts)
    if (no := _beyond(who, grant)) is not None:
        return no
    transaction.writing.in_turn(transaction.cursor, SIGNALS)
    transaction.flush()
    if transaction.statements.token_of.run(transaction.cursor, {"name": grant.name}):
        return Refused(409, "name_taken", "there is or was a token of this name; names are not used again")
    told: Fields = {"token": {**_plain(grant), "sha256": sha256}, "by": who.who}
    n = _record(transaction, grant, "token_made", told)
    transaction.also(schema.token, (grant.name, MADE, sha256, canonical(told), n, transaction.now))
    return Token(grant, sha256, who.who, n, transaction.now)


def revoke(transaction: Transaction, who: Identity, name: str) -> Token | Refused:
    """Revoke a token; one that is revoked already stays as it is."""
    transaction.writing.in_turn(transaction.cursor, SIGNALS)
    transaction.flush()
    rows = {row.what: row for row in map(_Row._make, transaction.statements.token_of.run(transaction.cursor, {"name": name}))}
    if MADE not in rows:
        return Refused(404, "no_such_token", "there is no token of this name")
    token = _token(rows[MADE], believed=True, revoked=rows.get(REVOKED))
    if not may_see(who, token.grant):
        return Refused(403, "other_project", "the token is of a project that is not the caller's")
    if token.revoked_at is not None:
        return token
    gone: Fields = {"token": {"name": name}, "by": who.who}
    n = _record(transaction, token.grant, "token_revoked", gone)
    transaction.also(schema.token, (name, REVOKED, token.sha256, canonical(gone), n, transaction.now))
    return replace(token, revoked_at=transaction.now, revoked_by=who.who)


def read(connection: Connection) -> list[Token]:
    """Return every token, in the order in which they were made. Raises SQLAlchemy's errors."""
    question = (
        select(*schema.token.columns, schema.event.c.body)
        .outerjoin(schema.event, schema.event.c.n == schema.token.c.n)
        .order_by(schema.token.c.n)
    )
    rows = [(_Row._make(row[:6]), row[6]) for row in connection.execute(question)]
    # A revocation is believed as it stands: it only takes away.
    revoked = {row.name: row for row, _ in rows if row.what == REVOKED}
    return [
        _token(row, believed=recorded(event, json.loads(bytes(row.body))), revoked=revoked.get(row.name))
        for row, event in rows
        if row.what == MADE
    ]


def _token(row: _Row, *, believed: bool, revoked: _Row | None) -> Token:
    told: dict[str, Any] = json.loads(bytes(row.body))
    fields = {name: told["token"][name] for name in ("name", "role", "host", "expires_at")}
    grant = Grant(**fields, projects=tuple(told["token"]["projects"]), scopes=tuple(told["token"]["scopes"]))
    ended = (revoked.made_at, json.loads(bytes(revoked.body))["by"]) if revoked else (None, None)
    same = (grant.name, told["token"]["sha256"]) == (row.name, row.sha256)
    return Token(grant, row.sha256, told["by"], row.n, row.made_at, believed and same, *ended)


def may_see(who: Identity, grant: Grant) -> bool:
    """Tell whether a token is the caller's to see and to revoke: all its projects are, and a host's are of all projects."""
    return who.sees_all or (grant.role == "operator" and ANY not in grant.projects and who.projects.issuperset(grant.projects))


def _beyond(who: Identity, grant: Grant) -> Refused | None:
    """Refuse a token that could do more than who makes it: in scope, in project, or in time."""
    if not may_see(who, grant):
        message = "a token has no projects but its maker's; one of a host is made by an operator of all projects"
        return Refused(403, "beyond_own", message)
    if grant.role == "operator" and not who.scopes.issuperset(grant.scopes):
        return Refused(403, "beyond_own", "a token has no scopes but its maker's")
    if who.expires < (math.inf if grant.expires_at is None else grant.expires_at / 1000):
        return Refused(403, "beyond_own", "a token does not outlive the one that makes it")
    return None


def _record(transaction: Transaction, grant: Grant, reason: str, told: Fields) -> int:
    """Put what is done to a token on the audit log and tell every replica; return the row's index."""
    project = grant.projects[0] if len(grant.projects) == 1 else None
    fields = {**told, "kind": "admin", "reason": reason, "message": f"token {grant.name}", "reservation": new_id()}
    about = {"about_host": grant.host} if grant.host else {}
    placed = transaction.insert_own({**fields, **about, "project": project, "environment": None, "scopes": []})
    signal(transaction, "policy", {"token": grant.name}, placed.n)
    return placed.n


def _plain(grant: Grant) -> dict[str, Any]:
    return {**asdict(grant), "projects": sorted(grant.projects), "scopes": sorted(grant.scopes)}
