"""The checks of ``doctor`` that are about policies at the provider: each right that is missing, with the line that grants it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli import socket
from prism_vault_agent.cli.checks import Check
from prism_vault_agent.errors import Denied, PrismVaultError

if TYPE_CHECKING:
    from prism_vault_agent.cli.show import Json

NAME: Final = "the agent's role may do what the scopes take"


def rights(path: str | None, status: Json) -> list[Check]:
    """Return a check for each right that the agent's role lacks at the provider, or the one that it lacks none."""
    if not status:
        return [Check(NAME, "G7", "unknown", "no agent tells", "start it")]
    try:
        told = socket.ask(socket.find(path), "POST", "/v1/rights", {})[1]
    except Denied as error:
        return [Check(NAME, "G7", "unknown", error.message, error.mend)]
    except PrismVaultError as error:
        return [Check(NAME, "G7", "unknown", error.message, error.mend or "see prism-vault status")]
    lacking = [_lacking(right) for right in told["missing"]]
    return lacking or [Check(NAME, "G7", "holds", f"{told['count']} rights")]


def _lacking(right: Json) -> Check:
    path, capability, needed = str(right["path"]), str(right["capability"]), bool(right["needed"])
    mend = f'add to its policy: path "{path}" {{ capabilities = ["{capability}"] }}'
    why = "the provider denies it" if needed else "without it a withdrawal or an end is noticed late, or not at all"
    return Check(f"the agent's role may {capability} {path}", "G7" if needed else "G6", "does not hold", why, mend, needed)
