"""Which caller may use which route: the one table of routes, roles and scopes. What is not in it is not served. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from prism_vault_agent.central.access.identity import Identity

Role = Literal["agent", "operator"]
Scope = Literal[
    "audit:append",
    "audit:read",
    "metrics:read",
    "policy:read",
    "policy:write",
    "signals:read",
    "signals:write",
    "tokens:read",
    "tokens:write",
]
# What each role may have at all; also what a credential has that is not narrowed.
SCOPES: Final[Mapping[Role, frozenset[Scope]]] = {
    "agent": frozenset({"audit:append", "audit:read", "signals:read"}),
    "operator": frozenset(
        {
            *("audit:read", "metrics:read", "policy:read", "policy:write"),
            *("signals:read", "signals:write", "tokens:read", "tokens:write"),
        }
    ),
}


@dataclass(frozen=True, slots=True)
class Need:
    """What a route needs: one of the roles, and the scope. ``loopback`` lets anyone of this machine do without.

    Where it is ``audited``, it is on the audit log that a caller who is known was refused it.
    """

    scope: Scope
    roles: frozenset[Role]
    loopback: bool = False
    audited: bool = False


class Refused(Exception):
    """No, to a caller who is known: a status as HTTP knows it, a stable word, and a sentence without values."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


def _agent(scope: Scope) -> Need:
    return Need(scope, frozenset({"agent"}))


def _operator(scope: Scope) -> Need:
    return Need(scope, frozenset({"operator"}), audited=scope.endswith(":write"))


def _both(scope: Scope) -> Need:
    return Need(scope, frozenset({"agent", "operator"}))


OPEN: Final = None
NEEDS: Final[Mapping[tuple[str, str], Need | None]] = {
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/openapi.json"): OPEN,
    ("GET", "/metrics"): Need("metrics:read", frozenset({"operator"}), loopback=True),
    ("POST", "/v1/audit/events:batch"): _agent("audit:append"),
    ("POST", "/v1/audit/reservations"): _agent("audit:append"),
    ("POST", "/v1/audit/reservations/{reservation}/finalize"): _agent("audit:append"),
    ("GET", "/v1/audit/head"): _agent("audit:read"),
    ("GET", "/v1/audit/events"): _both("audit:read"),
    ("GET", "/v1/audit/log"): _both("audit:read"),
    ("GET", "/v1/audit/checkpoint"): _both("audit:read"),
    ("GET", "/v1/audit/proof/{n}"): _both("audit:read"),
    ("GET", "/v1/audit/log-key"): _both("audit:read"),
    ("GET", "/v1/policies"): _operator("policy:read"),
    ("POST", "/v1/policies:explain"): _operator("policy:read"),
    ("GET", "/v1/policies/{name}"): _operator("policy:read"),
    ("PUT", "/v1/policies/{name}"): _operator("policy:write"),
    ("DELETE", "/v1/policies/{name}"): _operator("policy:write"),
    ("GET", "/v1/tokens"): _operator("tokens:read"),
    ("POST", "/v1/tokens"): _operator("tokens:write"),
    ("DELETE", "/v1/tokens/{name}"): _operator("tokens:write"),
    ("GET", "/v1/signals"): _both("signals:read"),
    ("POST", "/v1/rotations"): _operator("signals:write"),
    ("POST", "/v1/revocations"): _operator("signals:write"),
    ("GET", "/v1/revocations"): _operator("signals:read"),
    ("GET", "/v1/revocations/{id}"): _operator("signals:read"),
}


class Route(NamedTuple):
    """A route by its template, and what each of its methods needs."""

    template: str
    methods: Mapping[str, Need | None]


def _matching(template: str) -> re.Pattern[str]:
    return re.compile("".join("[^/]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", template)))


_METHODS: Final[dict[str, dict[str, Need | None]]] = {}
for (_method, _path), _need in NEEDS.items():
    _METHODS.setdefault(_path, {})[_method] = _need
_TEMPLATES: Final = tuple((_matching(path), Route(path, methods)) for path, methods in _METHODS.items() if "{" in path)
_NO_ROUTE: Final = Route("", {})


def route(path: str) -> Route:
    """Return the route at ``path``; one without a method where there is none."""
    if path in _METHODS and "{" not in path:
        return Route(path, _METHODS[path])
    return next((found for pattern, found in _TEMPLATES if pattern.fullmatch(path)), _NO_ROUTE)


def needs(path: str) -> Mapping[str, Need | None]:
    """Return what each method of the route at ``path`` needs; nothing where there is no such route."""
    return route(path).methods


def permit(identity: Identity, need: Need) -> None:
    """Raise :class:`Refused` unless the caller has the role and the scope. A scope to write is one to read too."""
    if identity.role not in need.roles:
        known = "the agent of a host" if "agent" in need.roles else "an operator"
        raise Refused(403, "role", f"only {known} may do this")
    wider = need.scope.removesuffix(":read") + ":write"
    if need.scope not in identity.scopes and wider not in identity.scopes:
        raise Refused(403, "insufficient_scope", f"the credential does not have the scope {need.scope}")
