"""What an administrator's drop-ins add to the environment of a unit, before systemd knows the unit and in an image too."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from prism_vault_agent.errors import ConfigError
from prism_vault_agent.install.system import UNITS

if TYPE_CHECKING:
    from prism_vault_agent.install.system import System


def environment(system: System, unit: str) -> dict[str, str]:
    """Return the variables that ``Environment=`` and ``EnvironmentFile=`` give (systemd.exec(5)), in the order of the files.

    Raises ``ConfigError`` for a line that cannot be read, and ``CannotCreate`` for a file.
    """
    directory = f"{UNITS}{unit}.d"
    named: dict[str, str] = {}
    files: list[str] = []
    for name in sorted(_names(system.root + directory)):
        path = f"{directory}/{name}"
        for line in _lines(system, path):
            key, _, value = (part.strip() for part in line.partition("="))
            if key == "Environment":
                named = {**named, **_variables(value, path)} if value else {}
            elif key == "EnvironmentFile":
                files = [*files, value.removeprefix("-")] if value else []
    for path in files:
        for line in _lines(system, path):
            named |= _variables(line, path)
    return named


def _names(directory: str) -> list[str]:
    """Return the names of a unit's drop-ins; none where it has no directory of them."""
    return [name for name in os.listdir(directory) if name.endswith(".conf")] if os.path.isdir(directory) else []


def _lines(system: System, path: str) -> list[str]:
    """Return the lines of a file that are no comments; none where it is not there."""
    text = (system.content(path) or b"").decode(errors="replace").replace("\\\n", " ")
    return [line for line in map(str.strip, text.splitlines()) if not line.startswith(("#", ";"))]


def _variables(text: str, path: str) -> dict[str, str]:
    """Return the variables of a line."""
    try:
        pairs = [word.partition("=") for word in shlex.split(text)]
    except ValueError:
        raise ConfigError(f"{path}: a quote is not closed", mend="correct that file") from None
    return {name: value for name, _, value in pairs}
