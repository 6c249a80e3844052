"""The files of a scope in the configuration: whole and with numbers in the settings, or refused with line and key."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.config.load import load
from prism_vault_agent.config.plain import from_plain, to_plain
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.scope import File, ScopeName
from tests.config.written import BASE, ENV, ENVIRON, SCOPE, write

if TYPE_CHECKING:
    from pathlib import Path

BOUND = BASE + SCOPE + ENV + 'KEY = "vault://secret/web#key"\n'
FILE = '[[scopes.web.files]]\npath = "web.env"\nformat = "systemd"\n'


def test_a_file_is_in_the_settings(tmp_path: Path):
    """A file has its numbers and its mode; what is not said is the agent's own and 0400; the place has a default."""
    other = '[[scopes.web.files]]\npath = "keys"\nformat = "dir"\nowner = "root"\ngroup = "0"\nmode = "0440"\n'
    settings = load(write(tmp_path, BOUND + FILE + other), ENVIRON)
    assert settings.scopes[ScopeName("web")].files == (
        File("web.env", "systemd", os.geteuid(), os.getegid(), 0o400),
        File("keys", "dir", 0, 0, 0o440),
    )
    root = os.geteuid() == 0
    assert settings.agent.files == ("/run/prism-vault/files" if root else "/run/user/1000/prism-vault/files")
    assert from_plain(to_plain(settings)) == settings


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (FILE + FILE, "scopes.web.files[1].path: is the path of another file of this scope"),
        (FILE + 'owner = "nobody-here"\n', "scopes.web.files[0].owner: names a user that this host does not have"),
        (FILE + 'group = "nobody-here"\n', "scopes.web.files[0].group: names a group that this host does not have"),
        *((FILE + f'mode = "{mode}"\n', "is not the mode of a file") for mode in ("0444", "0660", "0420", "400 ", "0200")),
        *((FILE.replace("web.env", path), "is not a file's name") for path in ("../x", "a/b", ".generation", "", "/etc/passwd")),
        (FILE.replace("systemd", "yaml"), "format"),
        (FILE + 'content = "x"\n', "content"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, lines: str, told: str):
    """A path that is none or taken, a mode that others could use, an unknown owner, format or key are refused, telling which."""
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, BOUND + lines), ENVIRON)
    assert told in caught.value.line()


def test_a_file_without_values_is_refused(tmp_path: Path):
    """A scope that binds nothing has nothing to put into a file."""
    with pytest.raises(ConfigError, match="would be empty"):
        load(write(tmp_path, BASE + SCOPE + FILE), ENVIRON)


def test_a_risk_has_a_name(tmp_path: Path):
    """Only the risks that there are can be taken."""
    taken = '[agent]\nfiles = "/srv/files"\nfiles_risks = ["disk", "swap"]\n'
    settings = load(write(tmp_path, taken + BOUND), ENVIRON)
    assert (settings.agent.files, settings.agent.files_risks) == ("/srv/files", ("disk", "swap"))
    with pytest.raises(ConfigError, match="files_risks"):
        load(write(tmp_path, taken.replace("swap", "anything") + BOUND), ENVIRON)
