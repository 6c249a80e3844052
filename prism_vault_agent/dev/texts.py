"""What dev writes: the configurations of the agent and of central, the scope ``dev``, and the file for a shell. Pure."""

from __future__ import annotations

import hashlib
import json
import shlex
from typing import TYPE_CHECKING, Final

from prism_vault_agent.dev.openbao import AUDIENCE, ROLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from prism_vault_agent.dev.place import Place

WRITTEN: Final = "# Written by prism-vault dev at each start.\n"


def agent(place: Place, host: str, vault: str, central: str, log_key: str) -> str:
    """Return the agent's configuration."""
    return f"""{WRITTEN}
[agent]
host = {_quoted(host)}
socket = {_quoted(place.socket)}
socket_mode = "0600"
state = {_quoted(place.directory / "agent")}

[vault]
address = {_quoted(vault)}
[vault.auth]
method = "approle"
role_id_file = {_quoted(place.openbao / "role-id")}
secret_id_file = {_quoted(place.openbao / "secret-id")}

[central]
url = {_quoted(central)}
log_key = {_quoted(log_key)}
identity_role = {_quoted(ROLE)}
"""


def central(place: Place, host: str, issuer: str, entity: str, operator_token: str) -> str:
    """Return central's configuration: this host's agent, one operator, and a policy that leaves the choice to the scopes."""
    return f"""{WRITTEN}
listen = "127.0.0.1:0"
database = {_quoted(place.directory / "central" / "audit.db")}

[issuer]
url = {_quoted(issuer)}
audience = {_quoted(AUDIENCE)}

[[agents]]
subject = {_quoted(entity)}
host = {_quoted(host)}
projects = ["*"]

[[tokens]]
name = "dev"
sha256 = "{hashlib.sha256(operator_token.encode()).hexdigest()}"
role = "operator"
projects = ["*"]

[[policies]]
project = "*"
environment = "*"
scopes = ["*"]
hosts = [{_quoted(host)}]
kinds = ["service", "agent", "worker", "operator"]
purposes = ["*"]
"""


def scope(names: Iterable[str], uid: int) -> str:
    """Return the scope ``dev``: each name of the seed, for the user who started dev."""
    bindings = "\n".join(f"{name} = {_quoted(f'vault://secret/dev#{name}')}" for name in names)
    return f"""{WRITTEN}# Scopes of your own go into files beside this one.

[scopes.dev]
project = "dev"
environment = "dev"
purposes = ["dev"]
callers = [{{ kind = "operator", uid = {uid} }}]
[scopes.dev.env]
{bindings}
"""


def env(variables: Mapping[str, object]) -> str:
    """Return shell text that exports the variables."""
    return "".join(f"export {name}={shlex.quote(str(value))}\n" for name, value in variables.items())


def _quoted(text: str | Path) -> str:
    """Return a TOML basic string; what JSON escapes TOML escapes alike."""
    return json.dumps(str(text), ensure_ascii=False)
