"""The templates that scopes name, read as safely as the configuration: who writes one decides where values go."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from typing import TYPE_CHECKING, Final

from prism_vault_agent.config.problems import Problem
from prism_vault_agent.config.sources import read_one
from prism_vault_agent.errors import ConfigError

if TYPE_CHECKING:
    from prism_vault_agent.config import entries
    from prism_vault_agent.config.credentials import CredentialEntry
    from prism_vault_agent.config.lines import KeyPath

LARGEST_TEMPLATE: Final = 64 * 1024
_MISSING: Final = ("template", "write it, or name another")


class Templates:
    """Reads templates below ``directory``, that of the main configuration file: it is watched, so a changed one is noticed."""

    def __init__(self, directory: str, *, read: bool) -> None:
        """Without ``read`` every template is taken to be empty: who renders no files needs none."""
        self._below = directory.rstrip("/") + "/"
        self._read = read
        self._known: set[str] = set()
        self._checked: set[str] = set()

    def text(self, path: str) -> str:
        """Return the text of the template at ``path``.

        Raises ``ConfigError`` where it cannot be used: elsewhere, not there, another's or writable by others (see
        ``sources.read``), larger than 64 KiB, not UTF-8, not in the language of templates (with its line, see
        ``dialects.template.check``), or where Jinja2 is not installed.
        """
        if not self._read:
            return ""
        if not path.startswith(self._below) or os.path.normpath(path) != path:
            raise ConfigError(f"is not below {self._below}", mend="move it there; elsewhere a change goes unnoticed")
        if importlib.util.find_spec("jinja2") is None:
            raise ConfigError("needs Jinja2, which is not installed", mend="pip install 'prism-vault-agent[template]'")
        content = read_one(path, self._known, _MISSING).content
        if len(content) > LARGEST_TEMPLATE:
            raise ConfigError(f"{path}: is larger than 64 KiB", mend="shorten it, or split the file")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: is not UTF-8", mend="save the file as UTF-8") from None
        if text not in self._checked:
            from prism_vault_agent.dialects.template import check  # noqa: PLC0415 - only who has a template has Jinja2 in memory

            check(path, text)
            self._checked.add(text)
        return text


def template_of(
    entry: entries.FileEntry | CredentialEntry, here: KeyPath, templates: Templates, problems: list[Problem]
) -> tuple[str, str, str]:
    """Return the path of an entry's template, the digest of its text and the text; empty for all formats but one."""
    if (entry.format == "template") != (entry.template is not None):
        what = "is missing" if entry.template is None else "is for format template, and this file has another"
        problems.append(Problem(here, what, 'set both format = "template" and template, or neither'))
    if entry.format != "template" or entry.template is None:
        return "", "", ""
    try:
        text = templates.text(entry.template)
    except ConfigError as error:
        problems.append(Problem(here, error.message, error.mend))
        return "", "", ""
    return entry.template, hashlib.sha256(text.encode()).hexdigest(), text
