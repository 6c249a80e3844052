"""What is done at a rotation and a revocation, for a scope and for single variables of it: as it is written, and as it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, Field

from prism_vault_agent.config.fields import Duration, MaintenanceWindow, Section, Ttl
from prism_vault_agent.config.problems import Problem
from prism_vault_agent.config.shapes import seconds
from prism_vault_agent.policy.names import fault
from prism_vault_agent.scope import KeyReaction, Limits, Reaction

if TYPE_CHECKING:
    from prism_vault_agent.config import entries
    from prism_vault_agent.config.lines import KeyPath

_AT_ROTATION: Final = ("terminate", "restart", "signal", "notify", "rewrite", "none")
_AT_REVOCATION: Final = ("terminate", "signal", "clear")


def _on_rotate(text: str) -> str:
    return _one_of(text, _AT_ROTATION)


def _on_revoke(text: str) -> str:
    return _one_of(text, _AT_REVOCATION)


def _one_of(text: str, words: tuple[str, ...]) -> str:
    told = ", ".join("signal:HUP" if word == "signal" else word for word in words)
    try:
        known = Reaction.parse(text).does in words
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"is none of {told}; a signal may be HUP, INT, TERM, USR1 or USR2")
    return text


OnRotate = Annotated[str, AfterValidator(_on_rotate)]
OnRevoke = Annotated[str, AfterValidator(_on_revoke)]


class KeyEntry(Section):
    """What is done when the secret of one variable is rotated, revoked or stale. Where several are, the strongest counts."""

    on_rotate: OnRotate | None = Field(None, description="As in the scope, for this variable. Default: as the scope says.")
    on_revoke: OnRevoke | None = Field(None, description="As in the scope, for this variable. Default: as the scope says.")
    stale_ok: Ttl | None = Field(None, description="As in the scope, for this variable. Default: as the scope says.")


class LimitsEntry(Section):
    """How often and when `on_rotate` restarts, signals or ends processes. What is held back is done later, and is not lost."""

    splay: Duration = Field(
        "0s", description="It is done after a random part of this time, so that hosts do not act at one moment."
    )
    min_interval: Duration = Field("10s", description="Least time between two times.")
    window: list[MaintenanceWindow] = Field(
        default_factory=list, description="When it may be done, as in `notify`. Default: always."
    )
    max_per_hour: int = Field(12, ge=1, le=3600, description="Most times in any hour.")


def key_reactions(entry: entries.ScopeEntry, here: KeyPath, problems: list[Problem]) -> tuple[KeyReaction, ...]:
    """Return what is done for single variables; one that the scope cannot have is added to ``problems``."""
    found = []
    for name, each in entry.keys.items():
        path = (*here, "keys", name)
        if (why := fault(name)) is not None:
            problems.append(Problem(path, f"the variable's name {why}", "write its exact name"))
        elif name not in entry.env and not entry.env_from:
            problems.append(Problem(path, "names no variable of the scope", "bind it in env"))
        rotate, revoke = (None if text is None else Reaction.parse(text) for text in (each.on_rotate, each.on_revoke))
        found.append(KeyReaction(name, rotate, revoke, None if each.stale_ok is None else seconds(each.stale_ok)))
    return tuple(found)


def limits(entry: LimitsEntry | None) -> Limits:
    """Return the limits that are written."""
    if entry is None:
        return Limits()
    return Limits(seconds(entry.splay), seconds(entry.min_interval), tuple(dict.fromkeys(entry.window)), entry.max_per_hour)
