"""What the secret ``secret/dev`` is made of: the variables of an env file, read once and checked before anything starts."""

from __future__ import annotations

import secrets
from typing import Final

from prism_vault_agent.errors import ConfigError
from prism_vault_agent.exec import Failure, envfile
from prism_vault_agent.policy.names import dangerous, fault, shown

EXAMPLE: Final = "DEMO_SECRET"
# OpenBao takes 1,000 strings in one request; a variable is two of them.
MOST: Final = 490


def read(path: str | None) -> dict[str, str]:
    """Return the variables of the env file at ``path``; without one, a single made-up ``DEMO_SECRET``.

    Raises ``ConfigError`` that names file and line, or the variable that no scope may set; never a value.
    """
    if path is None:
        return {EXAMPLE: secrets.token_urlsafe(24)}
    try:
        found = envfile.read(path)
    except Failure as failure:
        raise ConfigError(failure.line) from None
    if len(found) > MOST:
        raise ConfigError(f"{path}: has {len(found)} variables, and dev takes {MOST}", mend="leave out what is no secret")
    seed: dict[str, str] = {}
    twins: dict[str, str] = {}
    for raw, value in found.items():
        name = raw.decode("ascii", "backslashreplace")
        if (why := fault(name)) is not None:
            raise ConfigError(f"{path}: the name {shown(name)} {why}", mend="rename the variable")
        if dangerous(name):
            what = f"{path}: {shown(name)} changes how programs load or run, so no scope sets it unasked"
            raise ConfigError(what, mend="take it out of the file, and set it for the command itself")
        if (twin := twins.setdefault(name.lower(), name)) != name:
            raise ConfigError(f"{path}: {shown(name)} and {shown(twin)} differ only by case", mend="keep one of them")
        try:
            seed[name] = value.decode()
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: the value of {name} is not UTF-8, which OpenBao needs", mend="encode it") from None
    return seed
