"""From the values of a scope to the contents of its files, all of them or an error that names a variable. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, get_args

from prism_vault_agent.dialects import quoting
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.policy.names import fault, shown
from prism_vault_agent.scope import Format

if TYPE_CHECKING:
    from collections.abc import Mapping

# A template writes what its author wrote (see ``template.py``); all the others write what their reader reads.
FORMATS: Final[tuple[Format, ...]] = tuple(form for form in get_args(Format) if form != "template")
# What systemd takes of all credentials of a unit together; a file of secrets that is larger is a mistake.
LARGEST_FILE: Final = 1024 * 1024


def contents(form: Format, path: str, values: Mapping[str, str | bytes]) -> dict[str, bytes]:
    """Return what stands in the file at ``path``: one, or for ``dir`` one below it for each value, bytes as they are.

    Raises ``ConfigError`` for what the format cannot carry or what is over 1 MiB; it names the variable, never a value.
    """
    if form == "dir":
        found = {f"{path}/{_file_name(name)}": _bytes(value) for name, value in values.items()}
    elif form == "json":
        # In ASCII: it spells a lone surrogate too, and every reader of JSON knows it.
        found = {path: (json.dumps(texts(form, values), indent=1) + "\n").encode()}
    else:
        found = {path: "".join(quoting.line(form, name, value) for name, value in texts(form, values).items()).encode()}
    for file, content in found.items():
        if len(content) > LARGEST_FILE:
            raise ConfigError(
                f"the file {file} would have {len(content)} bytes; {LARGEST_FILE} is the most",
                mend="store less in it, or split the scope",
                reason="unrepresentable",
            )
    return found


def texts(form: Format, values: Mapping[str, str | bytes]) -> dict[str, str]:
    """Return the values, or raise ``ConfigError`` for one that is no text, which no format but ``dir`` can carry."""
    found = {}
    for name, value in values.items():
        if isinstance(value, bytes):
            raise quoting.unrepresentable(name, "bytes that are no UTF-8", form)
        found[name] = value
    return found


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")


def _file_name(name: str) -> str:
    """Return the name of a variable as that of its file."""
    if (why := fault(name)) is not None:
        raise ConfigError(f"the name {shown(name)} {why}", mend="rename it", reason="bad_name")
    return name
