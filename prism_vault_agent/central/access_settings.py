"""Who may speak to central and what may be reserved, as configured."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from prism_vault_agent.central.access.policy import Rule
from prism_vault_agent.central.shapes import Name, Section

NameOrAny = Annotated[str, Field(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9._-]{0,99})$")]
TextOrAny = Annotated[str, Field(min_length=1, max_length=200)]
SOME: Final = Field(min_length=1, max_length=256)


class Issuer(Section):
    """Whose identity tokens are believed: ``url`` is the exact ``iss``, ``audience`` the exact ``aud``."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+[^\s?#/]$")]
    audience: Annotated[str, Field(min_length=1)]
    ca_file: str = ""


class Mtls(Section):
    """Whose client certificates are believed: those of the authorities in ``ca_file``, and of no others."""

    ca_file: Annotated[str, Field(min_length=1)]


class Agent(Section):
    """Which host an identity token's subject or a client certificate is, and for which projects that host may reserve and read.

    ``certificate`` is a URI or a DNS name in its subject alternative name.
    """

    subject: str = ""
    certificate: str = ""
    host: Name
    projects: tuple[NameOrAny, ...]

    @model_validator(mode="after")
    def _known_by_one(self) -> Agent:
        if bool(self.subject) == bool(self.certificate):
            raise ValueError("an agent is known by either subject or certificate")
        return self


class Operator(Section):
    """Which operator a client certificate is, by a URI or a DNS name in its subject alternative name."""

    certificate: Annotated[str, Field(min_length=1)]
    name: Name
    projects: tuple[NameOrAny, ...]


class ServiceToken(Section):
    """A bearer token, known by its SHA-256 only. An agent's token speaks for ``host``; an operator's only reads."""

    name: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    role: Literal["operator", "agent"]
    host: Name | Literal[""] = ""
    projects: tuple[NameOrAny, ...]

    @model_validator(mode="after")
    def _host_of_an_agent(self) -> ServiceToken:
        if (self.role == "agent") != bool(self.host):
            raise ValueError("a token of role agent needs a host, and one of role operator has none")
        return self


class PolicyEntry(Section):
    """What may be reserved. A reservation needs one entry that matches all of it; ``*`` matches anything."""

    project: NameOrAny
    environment: NameOrAny
    scopes: Annotated[tuple[NameOrAny, ...], SOME]
    hosts: Annotated[tuple[NameOrAny, ...], SOME]
    kinds: Annotated[tuple[Literal["service", "agent", "worker", "operator", "*"], ...], SOME]
    purposes: Annotated[tuple[TextOrAny, ...], SOME]

    def rule(self) -> Rule:
        """Return the entry as the pure policy takes it."""
        return Rule(
            self.project,
            self.environment,
            frozenset(self.scopes),
            frozenset(self.hosts),
            frozenset(self.kinds),
            frozenset(self.purposes),
        )


class Limits(Section):
    """How much each host and each operator may ask: so many events or requests a second, and so many at once."""

    rate: Annotated[float, Field(gt=0, le=1_000_000)] = 5_000
    burst: Annotated[int, Field(ge=256, le=10_000_000)] = 20_000
