"""What every import makes: the head of a scope, from the options that say what it is called and where it belongs."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Final

from prism_vault_agent.config import shapes
from prism_vault_agent.errors import UsageError
from prism_vault_agent.policy.names import dangerous

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

NAMES: Final = ("scope", "project", "environment")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a scope."""
    parser.add_argument("--scope", metavar="NAME", help="name of the scope")
    parser.add_argument("--project", metavar="NAME", help="its project")
    parser.add_argument("--environment", metavar="NAME", help="its environment, for instance lan")


def check(scope: Mapping[str, str]) -> None:
    """Raise ``UsageError`` for a name that no scope could have."""
    for key in NAMES:
        try:
            shapes.name(scope[key])
        except ValueError as error:
            raise UsageError(f"--{key} {error}") from None


def table(scope: str) -> str:
    """Return the name of a scope's table in TOML."""
    return f"scopes.{scope if _BARE.fullmatch(scope) else quoted(scope)}"


def head(*, scope: str, project: str, environment: str, names: Iterable[str]) -> list[str]:
    """Return the lines of a scope down to its variables, whose ``names`` decide what it must allow. Pure, but for who we are."""
    lines = [
        f"[{table(scope)}]",
        f"project = {quoted(project)}",
        f"environment = {quoted(environment)}",
        'purposes = ["service"]',
        '# You. A service would be { kind = "service", unit = "web.service" }.',
        f'callers = [{{ kind = "operator", uid = {os.getuid()} }}]',
    ]
    if allowed := [name for name in names if dangerous(name)]:
        lines.append("# These change how programs load or run; take out what is not meant.")
        lines.append(f"allow_names = [{', '.join(map(quoted, allowed))}]")
    return lines


def quoted(text: str) -> str:
    """Return printable text as a basic string of TOML, which JSON's are but for what is not printable."""
    return json.dumps(text, ensure_ascii=False)
