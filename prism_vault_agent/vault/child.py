"""Child tokens: made for one release, known by their accessor, and revoked with every lease that was made by them."""

from __future__ import annotations

from dataclasses import dataclass, field

from prism_vault_agent.errors import ConfigError, ProtocolError
from prism_vault_agent.vault import fields
from prism_vault_agent.vault.refusal import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from prism_vault_agent.vault.transport import Answer, Transport

# A lease or token that is not there any more has no time left.
GONE = 0


@dataclass(frozen=True, slots=True)
class Child:
    """A child token; ``seconds`` is its life. ``value`` is never shown, and never leaves the worker that reads with it.

    ``orphan``: it does not end with the token that it was made with.
    """

    value: str = field(repr=False)
    accessor: str
    seconds: int
    orphan: bool = False


def make(transport: Transport, token: str, wanted: Mapping[str, Any], deadline: float, role: str = "") -> Child:
    """Make a child of ``token`` as ``wanted`` says: ``policies``, ``seconds``, ``at_most`` (0 for no such bound), ``meta``.

    It has the policies that are named and not the default one, so it can read and nothing else; with a token ``role`` those
    that the role allows. Raises :class:`ConfigError` where the server refuses it, ``Denied`` or ``TokenExpired`` for a 403, and
    as ``Transport.request``.
    """
    path = f"auth/token/create/{role}" if role else "auth/token/create"
    body = {
        "no_default_policy": True,
        "ttl": f"{wanted['seconds']}s",
        "renewable": True,
        "meta": wanted["meta"],
        "display_name": f"prism-vault-{wanted['meta']['audit_id']}",  # SSH certificates and users are named after it
        **({"policies": wanted["policies"]} if wanted["policies"] and not role else {}),
        **({"explicit_max_ttl": f"{wanted['at_most']}s"} if wanted["at_most"] else {}),
    }
    answer = transport.request("POST", path, token=token, body=body, deadline=deadline)
    if answer.status == 403:
        mend = f"grant update on {path} to the agent's role; see docs/leases.md"
        raise refusal(transport, token, path, deadline=deadline, mend=mend)
    if not answer.ok:
        raise ConfigError(
            f"{transport.address} makes no child of our token by {path} ({answer.status})",
            mend=(f"check the token role {role}, and " if role else "check ") + "that the agent's tokens have no number of uses",
            reason="no_child_token",
        )
    auth = fields.mapping(answer.data, "auth")
    value, accessor = fields.text(auth, "client_token"), fields.text(auth, "accessor", "")
    child = Child(value, accessor, fields.seconds(auth, "lease_duration"), fields.flag(auth, "orphan"))
    if not child.accessor or not child.seconds or not child.value.isascii() or not child.value.isprintable():
        raise ProtocolError("the answer's field auth is not that of a service token with an end", reason="malformed_answer")
    return child


def left(transport: Transport, token: str, accessors: Iterable[str], leases: Iterable[str], deadline: float) -> dict[str, int]:
    """Return the seconds that each accessor's token and each lease has left, 0 for one that is gone.

    What may not be asked (403) is not in it. Raises as ``Transport.request``.
    """
    found = {}
    for path, field_name, each in _each("auth/token/lookup-accessor", accessors, "sys/leases/lookup", leases):
        answer = transport.request("POST", path, token=token, body={field_name: each}, deadline=deadline, repeatable=True)
        if answer.ok:
            found[each] = fields.seconds(fields.mapping(answer.data, "data"), "ttl")
        elif _is_gone(answer):
            found[each] = GONE
    return found


def extend(
    transport: Transport, token: str, accessors: Mapping[str, int], leases: Mapping[str, int], deadline: float
) -> dict[str, int]:
    """Renew tokens and leases, each by so many seconds; return the seconds that each has now, 0 for one that is gone.

    What cannot be renewed, or not by us, is not in it. Raises as ``Transport.request``.
    """
    found = {}
    for path, field_name, each in _each("auth/token/renew-accessor", accessors, "sys/leases/renew", leases):
        increment = accessors.get(each) or leases[each]
        body = {field_name: each, "increment": increment}
        answer = transport.request("POST", path, token=token, body=body, deadline=deadline, repeatable=True)
        if answer.ok:
            plain = answer.data if each in leases else fields.mapping(answer.data, "auth")
            found[each] = fields.seconds(plain or {}, "lease_duration")
        elif _is_gone(answer):
            found[each] = GONE
    return found


def revoke(transport: Transport, token: str, accessor: str, leases: Iterable[str], deadline: float) -> list[str]:
    """Revoke a child token with all that was made by it; return the leases that the server has not ended yet.

    A token that is gone is as good, and a lease that may not be asked for counts as ended. Raises ``Denied`` and ``TokenExpired``
    where the token may not be revoked, and as ``Transport.request``.
    """
    path, body = "auth/token/revoke-accessor", {"accessor": accessor}
    answer = transport.request("POST", path, token=token, body=body, deadline=deadline, repeatable=True)
    if answer.status == 403:
        mend = "grant update on it to the agent's role; see docs/leases.md"
        raise refusal(transport, token, path, deadline=deadline, mend=mend)
    if not answer.ok and not _is_gone(answer):
        raise ProtocolError(f"{path} was answered {answer.status}")
    remaining = []
    for lease in leases:
        body = {"lease_id": lease}
        answer = transport.request("POST", "sys/leases/lookup", token=token, body=body, deadline=deadline, repeatable=True)
        if answer.ok:
            remaining.append(lease)
    return remaining


def _each(first: str, accessors: Iterable[str], second: str, leases: Iterable[str]) -> list[tuple[str, str, str]]:
    return [(first, "accessor", each) for each in accessors] + [(second, "lease_id", each) for each in leases]


def _is_gone(answer: Answer) -> bool:
    """Tell whether the server knows nothing of what was asked: it answers 400 and one of these texts."""
    told = str((answer.data or {}).get("errors"))
    return answer.status in {400, 404} and any(
        words in told for words in ("invalid accessor", "invalid lease", "lease not found")
    )
