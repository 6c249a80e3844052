"""Looking for a secret value where it must not be: in texts, files and command lines, in every form that tools write it in."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shlex
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# What makes each way of quoting visible: all of these are written differently in JSON, in URLs or for a shell.
_AWKWARD: Final = " é\"'$&\\"


@dataclass(frozen=True)
class Canary:
    """A value that is nowhere else. ``core`` is its longest part that no quoting changes."""

    core: str = field(default_factory=lambda: "canary" + secrets.token_hex(16))

    @property
    def value(self) -> str:
        """The secret value to put into the provider."""
        return f"{self.core}{_AWKWARD}{self.core[::-1]}"

    def forms(self) -> dict[str, bytes]:
        """Return what to look for, by name; the value is found in a text exactly when one of these is in it."""
        raw = self.value.encode()
        forms = {
            "raw": raw,
            "core": self.core.encode(),
            "hex": self.core.encode().hex().encode(),
            "HEX": self.core.encode().hex().upper().encode(),
            "URL": urllib.parse.quote(self.value).encode(),
            "URL of a form": urllib.parse.quote_plus(self.value).encode(),
            "JSON": json.dumps(self.value)[1:-1].encode(),
            "JSON, not ASCII": json.dumps(self.value, ensure_ascii=False)[1:-1].encode(),
            "shell": shlex.quote(self.value).encode(),
            "repr": repr(self.value)[1:-1].encode(),
            "UTF-16": self.core.encode("utf-16-le"),
        }
        return forms | self._base64()

    def _base64(self) -> dict[str, bytes]:
        """Return the middle of the base64 text, which depends on how many bytes stand before the value."""
        forms = {}
        for before in range(3):
            encoded = base64.b64encode(b"x" * before + self.core.encode())
            middle = encoded[4:-4]
            forms[f"base64 +{before}"] = middle
            forms[f"base64url +{before}"] = middle.translate(bytes.maketrans(b"+/", b"-_"))
        return forms

    def found_in(self, content: bytes) -> list[str]:
        """Return the names of the forms that ``content`` holds."""
        return [name for name, form in self.forms().items() if form in content]


def leaks(canary: Canary, places: Mapping[str, bytes | str]) -> list[str]:
    """Return ``place: form`` for each find in these texts, in every file below ``files`` and in all command lines."""
    found = []
    for place, content in places.items():
        raw = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        found += [f"{place}: {form}" for form in canary.found_in(raw)]
    return found


def files(*directories: Path, but: Iterable[Path] = ()) -> dict[str, bytes]:
    """Return the content of every regular file below ``directories``, by its path, and the names themselves."""
    left_out = set(but)
    contents: dict[str, bytes] = {}
    for directory in directories:
        for path in directory.rglob("*"):
            if path in left_out or path.is_symlink() or not path.is_file():
                continue
            try:
                contents[f"file {path}"] = path.read_bytes()
            except FileNotFoundError:  # a journal of a database comes and goes
                continue
        contents[f"names below {directory}"] = b"\n".join(os.fsencode(path) for path in directory.rglob("*"))
    return contents


def command_lines() -> dict[str, bytes]:
    """Return the command line of every process of the host."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found[f"arguments of {name}"] = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
    return found
