"""The credentials of a scope: from their entries in a file to nouns, each the only one of its name for every unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from prism_vault_agent.config.fields import FileName, Section, Template, Text
from prism_vault_agent.config.problems import Problem
from prism_vault_agent.config.templates import template_of
from prism_vault_agent.policy.names import shown
from prism_vault_agent.scope import Credential, File, Format

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prism_vault_agent.config import entries
    from prism_vault_agent.config.lines import KeyPath
    from prism_vault_agent.config.templates import Templates


class CredentialEntry(Section):
    """A credential that systemd asks the agent for: `LoadCredential=NAME:/run/prism-vault/credentials.sock` of a unit.

    It is for the units that the scope's callers name. One of `variable` and `format` is needed.
    """

    name: FileName = Field(description="Its name in the unit: that of a file in `$CREDENTIALS_DIRECTORY`.")
    variable: Text | None = Field(None, description="Environment name in the scope: the credential is its value alone.")
    format: Format | None = Field(None, description="Instead of `variable`: all values, as a file has them. Not `dir`.")
    template: Template | None = Field(None, description="For format `template`, as in a file.")


def credential(
    entry: CredentialEntry,
    here: KeyPath,
    scope: entries.ScopeEntry,
    *,
    templates: Templates,
    problems: list[Problem],
) -> Credential:
    """Return the credential; what is wrong with it is added to ``problems``."""
    if (entry.variable is None) == (entry.format is None):
        problems.append(Problem(here, "needs one of variable and format", "name the value that it is, or how all are written"))
    if entry.format == "dir":
        problems.append(Problem((*here, "format"), "makes several files", "use variable, or another format"))
    if entry.variable is not None and entry.variable not in scope.env and not scope.env_from:
        problems.append(Problem((*here, "variable"), "names no variable of the scope", "bind it in env"))
    if not scope.env and not scope.env_from:
        problems.append(Problem(here, "would be empty, since the scope has no env and no env_from", "bind something"))
    if all(caller.unit is None for caller in scope.callers):
        problems.append(Problem(here, "is for no unit, since no caller of the scope has one", "add unit to the caller"))
    if len(set(scope.purposes)) > 1:
        what = "has several purposes to choose from, and systemd names none"
        problems.append(Problem(here, what, "give it a scope of its own, with one purpose"))
    template = template_of(entry, (*here, "template"), templates, problems)
    if entry.format is None:
        return Credential(entry.name, entry.variable or "")
    return Credential(entry.name, file=File(entry.name, entry.format, -1, -1, 0, *template))


def check_names(scopes: Mapping[str, entries.ScopeEntry], problems: list[Problem]) -> None:
    """Refuse a credential that means two things: the same name twice for one unit, in whatever scopes."""
    seen: dict[tuple[str, str], tuple[str, int]] = {}
    for name, scope in scopes.items():
        for unit in dict.fromkeys(caller.unit for caller in scope.callers if caller.unit is not None):
            for index, entry in enumerate(scope.credentials):
                first = seen.setdefault((unit, entry.name), (name, index))
                if first != (name, index):
                    what = f"is a credential of {shown(unit)} in scope {first[0]} too"
                    problems.append(Problem(("scopes", name, "credentials", index, "name"), what, "give each its own name"))
