"""How Vault Agent reaches Vault and logs in, as lines of ``[vault]`` in ``agent.toml``. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from prism_vault_agent.migrate.hcl import Body, Item
from prism_vault_agent.policy.names import shown

if TYPE_CHECKING:
    from prism_vault_agent.migrate.taken import Taken

_SERVER: Final = {
    "address": "address", "namespace": "namespace", "ca_cert": "ca_file", "client_cert": "cert_file", "client_key": "key_file",
}  # fmt: skip
# For each method that is here too: what its settings are called.
_METHODS: Final[dict[str, dict[str, str]]] = {
    "approle": {
        "role_id_file_path": "role_id_file",
        "secret_id_file_path": "secret_id_file",
        "secret_id_response_wrapping_path": "secret_id_wrapped_by",
    },
    "jwt": {"role": "role", "path": "jwt_file"},
    "kubernetes": {"role": "role", "token_path": "jwt_file"},
    "cert": {"name": "role"},
    "token_file": {"token_file_path": "token_file"},
}
_NEEDLESS: Final = {
    "remove_secret_id_file_after_reading": "the secret id stays in its file",
    "remove_jwt_after_reading": "the token stays in its file",
    "retry": "what is unreachable is asked again within the time of a request",
    "exit_on_err": "the agent goes on and says so",
    "max_backoff": "the agent has its own",
    "min_backoff": "the agent has its own",
    "sink": "no token is written to a file",
}


def login(item: Item, taken: Taken) -> None:
    """Add what a ``vault`` or ``auto_auth`` block says."""
    if not isinstance(item.value, Body):
        taken.left.append((item.line, f"{item.name} is no block"))
        return
    for each in item.value:
        if item.name == "vault" and each.name in _SERVER and isinstance(each.value, str):
            taken.server.append(f"{_SERVER[each.name]} = {json.dumps(each.value, ensure_ascii=False)}")
        elif item.name == "auto_auth" and each.name == "method":
            _method(each, taken)
        elif each.name in _NEEDLESS:
            taken.notes.append((each.line, f"{each.name} is not needed: {_NEEDLESS[each.name]}"))
        elif each.name == "tls_skip_verify" and each.value is False:
            continue
        else:
            taken.left.append((each.line, f"{item.name}: {shown(each.name)} has no counterpart"))


def _method(item: Item, taken: Taken) -> None:
    body = item.value if isinstance(item.value, Body) else Body(())
    kind = body.get("type")
    method = item.labels[0] if item.labels else str(kind.value) if kind is not None else ""
    if method not in _METHODS:
        taken.left.append((item.line, f"auto_auth: the method {shown(method)} is none of this agent's"))
        return
    lines = [f"method = {json.dumps(method)}"]
    for each in body:
        if each.name == "mount_path" and isinstance(each.value, str):
            lines.append(f"mount = {json.dumps(each.value.strip('/').removeprefix('auth/'), ensure_ascii=False)}")
        elif each.name == "config" and isinstance(each.value, Body):
            lines += _settings(method, each.value, taken)
        elif each.name in _NEEDLESS:
            taken.notes.append((each.line, f"{each.name} is not needed: {_NEEDLESS[each.name]}"))
        elif each.name != "type":
            taken.left.append((each.line, f"auto_auth: {shown(each.name)} has no counterpart"))
    taken.login += lines


def _settings(method: str, config: Body, taken: Taken) -> list[str]:
    """Return the lines of a method's own settings."""
    lines = []
    for each in config:
        known = _METHODS[method].get(each.name)
        if known is not None and isinstance(each.value, str):
            lines.append(f"{known} = {json.dumps(each.value, ensure_ascii=False)}")
        elif each.name in _NEEDLESS:
            taken.notes.append((each.line, f"{each.name} is not needed: {_NEEDLESS[each.name]}"))
        else:
            taken.left.append((each.line, f"auto_auth: {shown(each.name)} of {method} has no counterpart"))
    return lines
