"""Every code that a problem or the answer to one event can have: the one table, from which OpenAPI and the reference are made.

A code is stable: its meaning does not change, and programs may branch on it. A code that is used and not in the table, or in
the table and not used, fails ``make check``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Code:
    """One code: the HTTP statuses that it comes with, what it means, and what the caller should do.

    ``of_event`` tells that it can be about one event among several; ``appended`` that the event is on the log nevertheless.
    """

    statuses: tuple[int, ...]
    meaning: str
    mend: str
    of_event: bool = False
    appended: bool = False


def _request(status: int, meaning: str, mend: str) -> Code:
    return Code((status,), meaning, mend)


def _event(status: int, meaning: str, mend: str = "do not retry") -> Code:
    return Code((status,), meaning, mend, of_event=True)


def _denial(meaning: str) -> Code:
    return Code((403,), meaning, "tell the caller; do not retry", of_event=True, appended=True)


ANEW: Final = "get a new credential"
CODES: Final[Mapping[str, Code]] = {
    # The request as a whole.
    "http": _request(400, "the request is not HTTP/1.1 as it should be; the connection is closed", "a defect of the client"),
    "malformed": Code((400,), "the bytes are not what the route takes", "do not retry", of_event=True),
    "query": _request(400, "a parameter of the path or query is wrong or unknown", "see /openapi.json"),
    "two_credentials": _request(400, "more than one Authorization header, or a client certificate of another caller", "send one"),
    "precondition": _request(400, "the condition of a change is not one version", 'send If-Match: "VERSION" or If-None-Match: *'),
    "other_kind": _request(400, "the event is of a kind that this route does not take", "see /openapi.json"),
    "other_reservation": _request(400, "the event is about another reservation than the path", "a defect of the client"),
    "no_credential": _request(401, "there is no bearer credential, and no client certificate", "send Authorization: Bearer"),
    "credential_too_long": _request(401, "the credential has more than 8,192 characters", "send the right one"),
    "unknown_token": _request(401, "nobody has this token", ANEW),
    "algorithm": _request(401, "the identity token is signed by an algorithm that is not believed", "use ES256, RS256 or EdDSA"),
    "unknown_key": _request(401, "the issuer has no key of this id", ANEW),
    "token_expired": _request(401, "the token has ended", ANEW),
    "token_revoked": _request(401, "the service token was revoked", ANEW),
    "token_invalid": _request(401, "the identity token's signature or form does not hold", ANEW),
    "wrong_audience": _request(401, "the identity token is for somebody else", "see [issuer] audience"),
    "wrong_issuer": _request(401, "the identity token is of another issuer", "see [issuer] url"),
    "unknown_subject": _request(401, "no host has this identity token's subject", "add it to [[agents]]"),
    "unknown_certificate": _request(401, "nobody has a name of this client certificate", "add it to [[agents]] or [[operators]]"),
    "ambiguous_certificate": _request(401, "the client certificate has the names of several callers", "use one of one name"),
    "certificate_ended": _request(401, "the client certificate has ended since the connection began", "connect with a new one"),
    "role": _request(403, "the caller's role may not do this", "use the credential of an agent, or of an operator"),
    "insufficient_scope": _request(403, "the credential does not have the scope that the route needs", "use one that has it"),
    "other_project": _request(
        403, "it is, or would be, of a project that is not the caller's", "ask an operator of that project"
    ),
    "beyond_own": _request(403, "the token could do more than the one that makes it", "ask for less, or as another operator"),
    "no_such_route": _request(404, "there is nothing at this path", "see /openapi.json"),
    "no_such_revocation": _request(404, "the caller may see no revocation of this id", "see GET /v1/revocations"),
    "no_such_policy": _request(404, "there is no policy of this name, or none of the caller's projects", "see GET /v1/policies"),
    "no_such_version": _request(404, "there was no such version of the policies yet", "see GET /v1/policies"),
    "no_such_token": _request(404, "there is no service token of this name", "see GET /v1/tokens"),
    "no_such_event": _request(404, "there is no event with this number", "do not retry"),
    "no_checkpoint": _request(404, "nothing was appended yet, so there is no checkpoint", "retry"),
    "not_sequenced": _request(404, "no checkpoint is about this event yet; within a second one will be", "retry"),
    "method": _request(405, "the path has no such method; Allow names those it has", "see /openapi.json"),
    "ahead": _request(
        409,
        "the newest checkpoint is about fewer leaves than that; or there is no signal of that id yet",
        "compare the notes: the log may have been cut",
    ),
    "id_reused": _request(422, "another order, or an event, has this id", "make a new id, or send the same order"),
    "configured": _request(409, "it stands in central's configuration", "change it there"),
    "name_taken": _request(409, "a token of this name is or was there", "choose another name"),
    "changed": _request(412, "the policy is not at the version that the caller has seen", "look at it again"),
    "too_large": Code((413,), "the body, the batch or the event is too large", "send less", of_event=True),
    "head_too_large": _request(431, "the request's head has more than 32 KiB; the connection is closed", "send less"),
    "rate_limited": _request(429, "the host or operator asks for more than its share; nothing was queued", "retry after that"),
    "internal": _request(500, "a defect of ours, logged with the request's id; nothing was acknowledged", "report it"),
    "integrity": _request(500, "stored hashes of the log's tree are missing", "prism-vault audit verify"),
    "busy": _request(503, "more waits than the disk takes; nothing was queued", "retry"),
    "ending": _request(503, "central ends, and the request took longer than it waits; nothing was acknowledged", "retry"),
    "issuer_unavailable": _request(503, "the issuer's keys cannot be had, so the token is neither believed nor refused", "retry"),
    "too_many_connections": _request(503, "as many connections are open as there may be; this one is closed", "retry"),
    "not_ready": _request(503, "a part of central does not work now; `parts` says which", "retry; see central's log"),
    "storage": _request(503, "the log cannot be written or read now; nothing was acknowledged", "retry"),
    # One event, refused: nothing of it is on the log.
    "host_mismatch": _event(403, "the event's host is not the one that the credential speaks for", "a defect or a forgery"),
    "other_host": _event(403, "the reservation belongs to another host", "a defect or a forgery"),
    "chain": _event(409, "the event is not the next of its chain; `head` says where it stands", "go on there, or begin an epoch"),
    "name_held": _event(
        409, "another installation has the host's name, and is alive", "give each host its own name and credential"
    ),
    "superseded": _event(
        409, "a later start of the same installation has the host's name", "if none was meant, the host was copied: see name_held"
    ),
    "no_signal": _event(409, "there is no signal with this id"),
    "no_reservation": _event(409, "there is no reservation with this id"),
    "not_released": _event(409, "there is no success to take back"),
    "reservation_ended": _event(409, "the reservation has ended; `ended_by` names the kind that ended it", "drop the values"),
    "reservation_exists": _event(409, "there is a reservation with this id"),
    "event_id_reused": _event(422, "another event with this event_id is on the log"),
    "other_scope": _event(422, "project, environment or scopes are not those of the reservation"),
    "not_tried": _event(424, "an earlier event of the batch was refused", "send again, chained anew"),
    # One event, denied by policy: it is on the log, and central's denial too.
    "no_scope": _denial("the reservation names no scope"),
    "dropped": _denial("policy said no when it was sent first; why is no longer kept"),
    "project_not_allowed": _denial("the host is not of this project, or no policy names the project"),
    "run_ref_required": _denial("a reservation of kind agent needs a run_ref"),
    "job_id_required": _denial("a reservation of kind worker needs a job_id"),
    "environment_not_allowed": _denial("no policy of the project names this environment"),
    "scope_not_allowed": _denial("no policy of this environment names all these scopes"),
    "host_not_allowed": _denial("no policy of these scopes names this host"),
    "kind_not_allowed": _denial("no policy of this host names this kind of caller; or, not appended, agents make no such event"),
    "purpose_not_allowed": _denial("no policy of this kind of caller names this purpose"),
}
AUTHENTICATION: Final = tuple(name for name, code in CODES.items() if code.statuses == (401,))
# What any route can answer, and any that asks who is calling.
ANYONE: Final = ("http", "head_too_large", "too_many_connections", "ending", "internal")
ANY_CALLER: Final = (
    *ANYONE,
    *("two_credentials", *AUTHENTICATION, "role", "insufficient_scope"),
    *("issuer_unavailable", "storage"),
)
