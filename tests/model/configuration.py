"""The configuration of the simulated host: which scopes it has, and what it changes to."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.config.apart import Configuration
from prism_vault_agent.config.load import load

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from prism_vault_agent.config.settings import Settings

GRACE: Final = 5
FILES: Final = ("web", "db", "calm", "left")
PATHS: Final = ("secret/web", "secret/other")
# The path of transit whose one key decrypts one value, and that of certificates.
KEY: Final = "transit/decrypt/app"
ISSUE: Final = "pki/issue/calm"
# What of the provider each scope binds.
BINDS: Final = {
    "web": frozenset({"secret/web", "secret/other"}),
    "db": frozenset({"secret/web", "database/creds/db"}),
    "both": frozenset({"secret/other", "database/creds/db"}),
    "calm": frozenset({"secret/web", ISSUE}),
    "left": frozenset({"secret/other", KEY}),
}
# Scopes of whose files somebody is told, and the programs that this takes, which are simulated.
TELLS: Final = ("web", "db", "calm")
_CONSUMER: Final = {"command": ["/consumer"], "min_interval": "1s", "max_per_hour": 3600}
_WEB: Final = {
    "env": {"WEB_KEY": "vault://secret/web#key", "WEB_OTHER": "vault://secret/other#key"},
    "files": [
        {"path": "web.env", "format": "systemd", "mode": "0440", "notify": _CONSUMER},
        {"path": "web.json", "format": "json", "notify": _CONSUMER},
    ],
}
_DB: Final = {
    "env": {
        "DB_USER": "vault://database/creds/db#username",
        "DB_PASSWORD": "vault://database/creds/db#password",
        "DB_KEY": "vault://secret/web#key",
    },
    "files": [{"path": "db.env", "format": "dotenv", "notify": _CONSUMER}],
    "health": {"command": ["/health"], "within": "5s"},
}
_BOTH: Final = {
    "env": {"OTHER": "vault://secret/other#key", "PASSWORD": "vault://database/creds/db#password"},
    "ttl": "30m",
    "on_rotate": "terminate",
    "rotate_limits": {"max_per_hour": 1000},
}
# It is signalled, at a rotation and at a revocation, and has a certificate.
_CALM: Final = {
    "env": {
        "CALM_KEY": "vault://secret/web#key",
        "CALM_CERTIFICATE": f"vault://{ISSUE}#certificate",
        "CALM_PRIVATE": f"vault://{ISSUE}#private_key",
    },
    "certificates": {ISSUE: {"common_name": "calm.test", "ttl": "15m"}},
    "files": [{"path": "calm.json", "format": "json", "notify": _CONSUMER}],
    "on_rotate": "signal:HUP",
    "on_revoke": "signal:USR1",
    "rotate_limits": {"max_per_hour": 1000},
}
# Its processes are left alone, and have something that is decrypted.
_LEFT: Final = {
    "env": {"LEFT_KEY": "vault://secret/other#key", "LEFT_TOKEN": f"vault://{KEY}#token"},
    "transit": {KEY: {"token": {"ciphertext": "vault:v1:abcd"}}},
    "files": [{"path": "left.env", "format": "dotenv"}],
    "on_rotate": "rewrite",
    "on_revoke": "clear",
}
_ALL: Final[dict[str, dict[str, Any]]] = {"web": _WEB, "db": _DB, "both": _BOTH, "calm": _CALM, "left": _LEFT}
_NARROW_WEB: Final = {**_WEB, "env": {"WEB_KEY": "vault://secret/web#key", "WEB_SAME": "vault://secret/web#key"}}
_NARROW_LEFT: Final = {"env": {"LEFT_KEY": "vault://secret/other#key"}, "files": _LEFT["files"], "on_revoke": "clear"}
CONFIGURATIONS: Final[dict[str, dict[str, Any] | None]] = {
    "all": _ALL,
    "without web": {name: scope for name, scope in _ALL.items() if name != "web"},
    "without db": {name: scope for name, scope in _ALL.items() if name != "db"},
    "without calm and left": {"web": _WEB, "db": _DB, "both": _BOTH},
    "nothing": {},
    "narrowed": {**_ALL, "web": _NARROW_WEB, "left": _NARROW_LEFT},
    "other reactions": {**_ALL, "web": {**_WEB, "on_rotate": "restart"}, "left": {**_LEFT, "on_rotate": "none"}},
    "db of another user": {**_ALL, "db": {**_DB, "callers": [{"kind": "operator", "uid": 54321}]}},
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

    def names(self, scopes: Iterable[str]) -> frozenset[str] | None:
        """Return the variables that it gives to these scopes; None where it says nothing, or has not all of them."""
        here = CONFIGURATIONS[self.name]
        if here is None or not all(scope in here for scope in scopes):
            return None
        return frozenset(name for scope in scopes for name in here[scope]["env"])


def leaves(scopes: Collection[str], paths: Collection[str] | None) -> bool:
    """Tell whether a process of these scopes is left alone when these paths are taken back (None: all that it has)."""
    return {scope for scope in scopes if paths is None or BINDS[scope] & set(paths)} == {"left"}


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
