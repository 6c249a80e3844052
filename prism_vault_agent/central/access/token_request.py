"""What a service token is asked for with, over HTTP or on the command line, checked before anything of it is believed."""

from __future__ import annotations

import hashlib
import secrets
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from prism_vault_agent.central.access.identity import STORED
from prism_vault_agent.central.access.permission import SCOPES, Role, Scope
from prism_vault_agent.central.access.token_rows import Grant
from prism_vault_agent.central.access_settings import NameOrAny
from prism_vault_agent.central.config import OWN_HOST
from prism_vault_agent.central.shapes import Name

LONGEST_SECONDS: Final = 10 * 366 * 86_400
DEFAULT: Final[dict[Role, frozenset[Scope]]] = {"agent": SCOPES["agent"], "operator": frozenset({"audit:read"})}


class TokenRequest(BaseModel):
    """A token to be made. Without ``scopes``, an agent's has all of its role and an operator's reads the log only.

    ``expires_in`` is seconds, or null for never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Name
    role: Role
    host: Name | Literal[""] = ""
    projects: Annotated[tuple[NameOrAny, ...], Field(min_length=1, max_length=256)]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)] | None = None
    expires_in: Annotated[int, Field(ge=1, le=LONGEST_SECONDS)] | None

    @model_validator(mode="after")
    def _fits_its_role(self) -> TokenRequest:
        if (self.role == "agent") != bool(self.host):
            raise ValueError("a token of role agent needs a host, and one of role operator has none")
        if self.host == OWN_HOST:
            raise ValueError(f"the host name {OWN_HOST} is central's own")
        if self.scopes is not None and not SCOPES[self.role].issuperset(self.scopes):
            raise ValueError(f"a token of role {self.role} may have {', '.join(sorted(SCOPES[self.role]))}")
        return self

    @property
    def grant(self) -> Grant:
        """What the token is made with, but for when it ends."""
        scopes = DEFAULT[self.role] if self.scopes is None else frozenset(self.scopes)
        return Grant(self.name, self.role, self.host, tuple(sorted(set(self.projects))), tuple(sorted(scopes)), None)

    @property
    def lasts(self) -> int | None:
        """For how many milliseconds it holds."""
        return None if self.expires_in is None else self.expires_in * 1000


def new_token() -> tuple[str, str]:
    """Return a new token of 256 random bits, and its SHA-256."""
    token = STORED + secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode()).hexdigest()
