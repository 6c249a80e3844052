"""The reference of the configuration and its JSON Schema, from the model that reads it."""

from __future__ import annotations

import json
from typing import Any, Final

from docs_tools.markdown import GENERATED, code, table
from prism_vault_agent.config import schema as model
from prism_vault_agent.config.fields import Section
from prism_vault_agent.config.load import VARIABLES

EXAMPLE: Final = """\
[vault]
address = "https://vault.lan:8200"

[vault.auth]
method = "approle"
role_id_file = "/etc/prism-vault/role-id"
secret_id_file = "/etc/prism-vault/secret-id"

[central]
url = "https://server1.lan:8310"
identity_role = "prism-vault"

[scopes.web]
project = "prism"
environment = "lan"
purposes = ["service", "deploy-check"]
callers = [
  { kind = "service", user = "www-data" },
  { kind = "operator", group = "adm" },
]
[scopes.web.env]
DATABASE_URL = "vault://secret/prism/lan/web#database_url"
"""
_INTRODUCTION: Final = """\
The agent reads one TOML file and, beside it, `scopes.d/*.toml`, which may hold scopes and nothing else; a scope has one place.
Which file: `--config`, else `PRISM_VAULT_CONFIG`, else `/etc/prism-vault/agent.toml` for root and
`$XDG_CONFIG_HOME/prism-vault/agent.toml` (`~/.config`) for everybody else.

- An unknown key is an error, told with file, line and the nearest known key. `prism-vault config check` tells all errors at once,
  `config show` prints what is understood, `config schema` a JSON Schema for editors
  (that of the files in `scopes.d` is [scope.schema.json](scope.schema.json)).
- Files that somebody other than root and the reader owns, or that group or world may write, are refused, and so is such a
  directory or symbolic link anywhere on the way from `/` (others may write where the sticky bit is set, as in `/tmp`). A file is
  1 MiB at most.
- No key takes a secret: credentials are named by the file that holds them. Paths are absolute.
- Durations are a whole number with `ms`, `s`, `m` or `h`: `"250ms"`, `"10s"`.
- Names of scopes, projects, environments, purposes and hosts are up to 100 letters, digits, `_`, `.` and `-`, a letter or digit
  first.
- The running agent applies a changed file by itself, and on SIGHUP; a wrong one is refused, told in `prism-vault status`, and the
  old one stays in use. Scopes change at once; `[agent]`, `[vault]` and `[central]` with a restart.
"""


def page() -> str:
    """Return the page."""
    parts = [f"{GENERATED}# Configuration\n\n{_INTRODUCTION}\n{code(EXAMPLE, 'toml')}"]
    for place, section in model.SECTIONS.items():
        if place:
            parts.append(f"\n## {_heading(place)}\n\n{_told(section)}\n\n{_keys(section)}")
    rows = [(f"`{key}` in `[vault]`", ", ".join(f"`{name}`" for name in names)) for key, names in VARIABLES.items()]
    parts.append(
        "\n## Variables of the environment\n\nThey stand in for keys that the file does not set; the first that is set counts. "
        "A token is never taken from the environment.\n\n" + table(("key", "variables"), rows)
    )
    return "".join(parts)


def schema() -> str:
    """Return the JSON Schema of a file in ``scopes.d``."""
    described = model.ScopesDocument.model_json_schema()
    described["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(described, indent=2, sort_keys=True) + "\n"


def _heading(place: tuple[str, ...]) -> str:
    if place[:2] == ("vault", "auth"):
        return f'`[vault.auth]` with `method = "{place[2]}"`'
    if place[-1] == "*" and len(place) > 2:
        return f"Entries of `{place[-2]}`"
    if place[-1] == "notify":
        return "`notify` of an entry of `files`"
    return f"`[{'.'.join(place).replace('*', 'NAME')}]`"


def _told(section: type[Section]) -> str:
    return " ".join((section.__doc__ or "").split())


def _keys(section: type[Section]) -> str:
    described = section.model_json_schema()["properties"]
    rows = [
        (f"`{key}`", _type(described[key]), _default(key, field), field.description or "")
        for key, field in section.model_fields.items()
        if key != "auth"
    ]
    return table(("key", "type", "default", "meaning"), rows)


def _type(described: dict[str, Any]) -> str:
    """Return a JSON Schema's type in words."""
    if "anyOf" in described:
        kinds = [_type(kind) for kind in described["anyOf"] if kind.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in described:
        return "table"
    if "const" in described:
        return f"`{json.dumps(described['const'])}`"
    if "enum" in described:
        return " or ".join(f"`{json.dumps(value)}`" for value in described["enum"])
    if described.get("type") == "integer":
        lowest, highest = described.get("minimum"), described.get("maximum")
        return f"whole number, {lowest} to {highest}"
    words = {"string": "string", "boolean": "true or false", "object": "table", "array": "list"}
    return words[described["type"]]


def _default(key: str, field: Any) -> str:
    if field.is_required():
        return "BAO_ADDR or VAULT_ADDR" if key == "address" else "**required**"
    default = field.get_default(call_default_factory=True)
    return "" if default in (None, [], {}) else f"`{json.dumps(default)}`"
