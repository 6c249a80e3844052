"""Configurations as tests write them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

ENVIRON = {"XDG_RUNTIME_DIR": "/run/user/1000"}
BASE = """\
[vault]
address = "http://127.0.0.1:8200"

[vault.auth]
method = "approle"
role_id_file = "/etc/prism-vault/role-id"
secret_id_file = "/etc/prism-vault/secret-id"

[central]
url = "http://127.0.0.1:8310"
identity_role = "agent"
"""
SCOPE = """
[scopes.web]
project = "prism"
environment = "lan"
purposes = ["service"]
callers = [{ kind = "service", uid = 1000 }]
"""
ENV = """
[scopes.web.env]
"""


def write(directory: Path, text: str = BASE + SCOPE, **scopes_d: str) -> str:
    """Write agent.toml, and ``scopes.d/NAME.toml`` for each named text; return the path of the first."""
    directory.chmod(0o700)
    main = directory / "agent.toml"
    private(main, text)
    for name, scope in scopes_d.items():
        (directory / "scopes.d").mkdir(mode=0o700, exist_ok=True)
        private(directory / "scopes.d" / f"{name}.toml", scope)
    return str(main)


def private(path: Path, text: str) -> None:
    """Write a file that only its owner may write, whatever the umask."""
    path.touch()
    path.chmod(0o600)
    path.write_bytes(text.encode())


def toml(tree: dict[str, Any]) -> str:
    """Return a TOML text with one inline value for each key of the tree."""
    return "".join(f"{key_of(key)} = {value(inner)}\n" for key, inner in tree.items())


def value(tree: Any) -> str:
    """Return a tree of JSON's types as a TOML value."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key_of(key)} = {value(inner)}" for key, inner in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(value(inner) for inner in tree) + "]"
    if isinstance(tree, float):
        return repr(tree)
    return key_of(tree)


def key_of(text: Any) -> str:
    """Return JSON for a scalar; TOML's basic strings read it alike, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
