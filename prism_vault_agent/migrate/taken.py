"""What becomes of a configuration: variables and files of a scope, lines for ``agent.toml``, and what is left. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from prism_vault_agent.errors import ConfigError
from prism_vault_agent.policy.names import dangerous, fault, shown
from prism_vault_agent.scope import SecretReference


@dataclass(slots=True)
class FileOf:
    """A file of the scope: where it was, what it is called here, its template in Jinja2, and the command for its changes."""

    destination: str
    path: str
    text: str
    mode: str
    owner: str
    group: str
    notify: tuple[str, ...] = ()


@dataclass(slots=True)
class Taken:
    """What becomes of a configuration. ``left`` has what does not translate, ``notes`` what is otherwise here, both by line.

    ``env`` maps variables to references; ``server`` and ``login`` are lines of ``[vault]`` and ``[vault.auth]``.
    """

    env: dict[str, str] = field(default_factory=dict)
    files: list[FileOf] = field(default_factory=list)
    server: list[str] = field(default_factory=list)
    login: list[str] = field(default_factory=list)
    command: str = ""
    notes: list[tuple[int, str]] = field(default_factory=list)
    left: list[tuple[int, str]] = field(default_factory=list)

    def bind(self, reference: str) -> str:
        """Return the variable for a reference, the same for the same one. Raises ``ValueError`` for what is none of ours."""
        try:
            parsed = SecretReference.parse(reference)
        except ConfigError:
            raise ValueError(f"reads {shown(reference.removeprefix('vault://'))}, which is no path of a secret here") from None
        known = next((name for name, each in self.env.items() if each == str(parsed)), None)
        if known is not None:
            return known
        key = re.sub(r"[^A-Za-z0-9_]", "_", parsed.key or "").upper()
        above = re.sub(r"[^A-Za-z0-9_]", "_", parsed.path.rpartition("/")[2]).upper()
        wanted = [key, f"{above}_{key}", *(f"{above}_{key}_{number}" for number in range(2, 1000))]
        taken = {name.lower() for name in self.env}
        for name in wanted:
            if not fault(name) and not dangerous(name) and name.lower() not in taken:
                self.env[name] = str(parsed)
                return name
        raise ValueError("has more keys of one name than can be told apart")
