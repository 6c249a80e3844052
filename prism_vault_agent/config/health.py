"""How a new generation of files is judged, as it is written, and from there the noun that a scope has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from prism_vault_agent.config.fields import Duration, Section, Text, Unit
from prism_vault_agent.config.problems import Problem
from prism_vault_agent.config.shapes import seconds
from prism_vault_agent.scope import Health

if TYPE_CHECKING:
    from prism_vault_agent.config import entries
    from prism_vault_agent.config.lines import KeyPath
    from prism_vault_agent.scope import Notify


class HealthEntry(Section):
    """How it is judged whether all is well with new files, once who is told of them has been. If not, the old ones come back."""

    command: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None,
        description="Program, by its absolute path, and its arguments; no shell reads them. All is well once it ends with 0; it "
        "is run again each second until then. Its output is discarded.",
    )
    unit: Unit | None = Field(
        None,
        description="Unit that must be active, and the same start of it, until the time is over. Default: those that `notify` "
        "names, where there is no `command`.",
    )
    within: Duration = Field("10s", description="How long it may take.")


def health(entry: entries.ScopeEntry, here: KeyPath, notify: tuple[Notify, ...], problems: list[Problem]) -> Health | None:
    """Return how a scope's files are judged, None where they are not; what is wrong with it is added to ``problems``."""
    if (found := entry.health) is None:
        return None
    path = (*here, "health")
    units = [found.unit] if found.unit else [each.target[0] for each in notify if each.kind == "unit" and not found.command]
    if not entry.files:
        problems.append(Problem(path, "judges files, and the scope has none", "add [[scopes.NAME.files]]"))
    elif not units and not found.command:
        problems.append(Problem(path, "says nothing to judge by", "set command or unit, or have a unit told by notify"))
    if found.command and not found.command[0].startswith("/"):
        problems.append(Problem((*path, "command"), "does not begin with an absolute path", "write the program's path from / on"))
    if seconds(found.within) <= 0:
        problems.append(Problem((*path, "within"), "leaves no time at all", 'write at least "1s"'))
    return Health(seconds(found.within), tuple(found.command or ()), tuple(dict.fromkeys(units)))
