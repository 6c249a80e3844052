"""The configuration as a process reads it that ends with that: what validates it is large, and no daemon of ours is to keep it.

That process prints a line of JSON for all but the scopes, or for the error that :func:`load.load` raises, and a line for each
scope, so that whoever reads it never has more than one of them as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from prism_vault_agent import relay
from prism_vault_agent.config import compiled, sources
from prism_vault_agent.config.plain import from_plain, scope_of, to_plain
from prism_vault_agent.errors import ConfigError, PrismVaultError, Unavailable
from prism_vault_agent.errors import from_plain as error_of
from prism_vault_agent.errors import to_plain as plain_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prism_vault_agent.config.settings import Settings
    from prism_vault_agent.scope import Scope, ScopeName

_MAIN: Final = os.path.join(os.path.dirname(__file__), "__main__.py")


class Configuration:
    """The configuration at one place, read when it is asked for."""

    def __init__(self, path: str | None, environ: Mapping[str, str]) -> None:
        """Read what :func:`sources.find` finds for these."""
        self._main = sources.find(path, environ)
        self._environ = {name: environ[name] for name in (*compiled.VARIABLES, relay.VARIABLE) if name in environ}
        self._seen = ""

    def load(self, before: Mapping[ScopeName, Scope] | None = None) -> Settings:
        """Return the settings, as :func:`load.load` does, and raise what it raises.

        A scope that is as it was ``before`` is that very object. Raises ``Unavailable`` too, where no process can be started, or
        it does not come to its end.
        """
        self._seen = self._digest()
        words = [sys.executable, "-I", _MAIN, self._main]
        try:
            # Whatever else it may say is no line of a log of ours, and why it cannot do it is told by its command.
            done = subprocess.run(
                words, env=self._environ, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            told = f"no process can be started to read the configuration: {os.strerror(error.errno or 0)}"
            raise Unavailable(told, mend="see the limits of this host and user") from None
        if done.returncode:
            told = f"the process that reads the configuration ended with status {done.returncode}"
            raise Unavailable(told, mend="try prism-vault config check")
        first, *lines = done.stdout.splitlines()
        found = json.loads(first)
        if "error" in found:
            raise error_of(found["error"])
        known, scopes = before or {}, {}
        for line in lines:
            scope = scope_of(json.loads(line))
            scopes[scope.name] = known[scope.name] if known.get(scope.name) == scope else scope
        return replace(from_plain(found["settings"]), scopes=scopes)

    def unchanged(self, scopes: Mapping[ScopeName, Scope]) -> bool:
        """Tell whether every file says what it said when ``scopes`` were loaded; names of users may mean others by now."""
        files = [file for scope in scopes.values() for file in (*scope.files, *(each.file for each in scope.credentials)) if file]
        digests = {file.template: file.digest for file in files if file.template}
        try:
            same = all(_sha256(sources.read_one(path, set()).content) == digest for path, digest in digests.items())
        except ConfigError:
            return False
        return same and self._seen != "" and self._digest() == self._seen

    def _digest(self) -> str:
        """Return what stands for the bytes of all files; empty where they cannot be read, which a load tells."""
        try:
            return _sha256(repr([(file.path, file.content) for file in sources.read(self._main)]).encode())
        except ConfigError:
            return ""


def answer(path: str, environ: Mapping[str, str]) -> int:
    """Be the process that reads it: print the settings, or what is wrong, and return the exit status."""
    from prism_vault_agent.config.load import load  # noqa: PLC0415 - what the others are to be spared

    try:
        plain = to_plain(load(path, environ), texts=True)
    except PrismVaultError as error:
        print(json.dumps({"error": plain_error(error)}))
        return 0
    scopes = plain.pop("scopes")
    print(json.dumps({"settings": {**plain, "scopes": {}}}))
    for scope in scopes.values():
        print(json.dumps(scope))
    return 0


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
