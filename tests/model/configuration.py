"""The configuration of the simulated host: which scopes it has, and what it changes to."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.config.apart import Configuration
from prism_vault_agent.config.load import load

if TYPE_CHECKING:
    from pathlib import Path

    from prism_vault_agent.config.settings import Settings

GRACE: Final = 5
FILES: Final = ("web", "db")
PATHS: Final = ("secret/web", "secret/other")
_WEB: Final = {
    "env": {"WEB_KEY": "vault://secret/web#key", "WEB_OTHER": "vault://secret/other#key"},
    "files": [{"path": "web.env", "format": "systemd", "mode": "0440"}, {"path": "web.json", "format": "json"}],
}
_DB: Final = {
    "env": {
        "DB_USER": "vault://database/creds/db#username",
        "DB_PASSWORD": "vault://database/creds/db#password",
        "DB_KEY": "vault://secret/web#key",
    },
    "files": [{"path": "db.env", "format": "dotenv"}],
}
_BOTH: Final = {
    "env": {"OTHER": "vault://secret/other#key", "PASSWORD": "vault://database/creds/db#password"},
    "ttl": "30m",
    "on_rotate": "terminate",
    "rotate_limits": {"max_per_hour": 1000},
}
CONFIGURATIONS: Final[dict[str, dict[str, Any] | None]] = {
    "all": {"web": _WEB, "db": _DB, "both": _BOTH},
    "without web": {"db": _DB, "both": _BOTH},
    "without db": {"web": _WEB, "both": _BOTH},
    "nothing": {},
    "web changed": {
        "web": {**_WEB, "env": {"WEB_KEY": "vault://secret/web#key", "WEB_SAME": "vault://secret/web#key"}},
        "db": _DB,
        "both": _BOTH,
    },
    "db of another user": {"web": _WEB, "db": {**_DB, "callers": [{"kind": "operator", "uid": 54321}]}, "both": _BOTH},
    "broken": None,
}


class Here(Configuration):
    """A configuration that is read in this process: another one takes time of which the simulated clock knows nothing."""

    def load(self, _before: object = None) -> Settings:
        """Return the settings."""
        return load(self._main, {})


class ConfigurationFiles:
    """The files of it in a directory; ``name`` is which of the configurations they hold."""

    def __init__(self, directory: Path) -> None:
        self.main = directory / "agent.toml"
        self.name = ""
        self._directory = directory
        (directory / "scopes.d").mkdir(mode=0o700)
        for name in ("role-id", "secret-id", "central-token"):
            _write(directory / name, f"s3cr3t-{name}\n")
        _write(
            self.main,
            f'[agent]\nhost = "server1"\nsocket = "{directory}/agent.sock"\nstate = "{directory}/state"\n'
            f'files = "{directory}/files"\nfiles_risks = ["swap"]\n[vault]\naddress = "https://provider.test"\npoll = "60s"\n'
            f'[vault.auth]\nmethod = "approle"\nrole_id_file = "{directory}/role-id"\n'
            f'secret_id_file = "{directory}/secret-id"\n'
            f'[central]\nurl = "http://127.0.0.1:1"\ntoken_file = "{directory}/central-token"\n',
        )
        self.change("all")

    def change(self, name: str) -> None:
        """Write another one."""
        self.name = name
        scopes = CONFIGURATIONS[name]
        lines = ["this is no TOML"] if scopes is None else []
        for scope, more in (scopes or {}).items():
            common: dict[str, Any] = {
                "project": "prism", "environment": "test", "purposes": ["test"], "grace": f"{GRACE}s",
                "callers": [{"kind": "operator", "uid": os.geteuid()}],
            }  # fmt: skip
            lines += [f"[scopes.{scope}]", *(f"{key} = {_toml(value)}" for key, value in {**common, **more}.items())]
        _write(self._directory / "scopes.d" / "all.toml", "\n".join(lines) + "\n")

    def lacks(self, scope: str) -> bool:
        """Tell whether it says that there is no such scope; a broken one says nothing."""
        scopes = CONFIGURATIONS[self.name]
        return scopes is not None and scope not in scopes


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
