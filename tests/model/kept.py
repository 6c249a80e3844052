"""What the simulated provider keeps: versions, tokens and leases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

# What every value and every token begins with, so that it is found wherever it should not be.
VALUE: Final = "v4lu3-"
TOKEN: Final = "t0k3n-"


@dataclass(slots=True)
class Version:
    """One version of a KV secret."""

    value: str
    created: str
    deleted: str = ""
    destroyed: bool = False

    @property
    def stands(self) -> bool:
        """Whether it can be read."""
        return not self.deleted and not self.destroyed


@dataclass(slots=True, eq=False)
class Token:
    """A token that lives; ``longest`` is when no renewal helps any more."""

    value: str
    accessor: str
    parent: Token | None
    seconds: int
    ends: float
    longest: float


@dataclass(slots=True, eq=False)
class Leased:
    """A lease that lives; ``stuck`` is one that was revoked while the engine's database was down."""

    lease_id: str
    value: str
    token: Token
    ends: float
    longest: float
    stuck: bool = False


def values_in(text: str) -> set[str]:
    """Return the values that a text holds."""
    return {VALUE + part[:6] for part in text.split(VALUE)[1:]}


def auth(token: Token) -> dict[str, Any]:
    """Return what the answer to a login, or to the making of a token, says of it."""
    life = {"lease_duration": token.seconds, "renewable": True, "token_type": "service"}
    return {"client_token": token.value, "accessor": token.accessor, **life}
