"""How new files are judged, in the configuration: what is written is what is done, and what could judge nothing is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.config.load import load
from prism_vault_agent.config.plain import from_plain, to_plain
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.scope import Health, ScopeName
from tests.config.written import BASE, ENV, ENVIRON, SCOPE, write

if TYPE_CHECKING:
    from pathlib import Path

BOUND = BASE + SCOPE + ENV + 'KEY = "vault://secret/web#key"\n'
FILE = '[[scopes.web.files]]\npath = "f"\nformat = "json"\n'
TOLD = FILE + 'notify = { unit = "web.service" }\n'


def health(directory: Path, files: str, written: str) -> Health | None:
    """Return what such a table says, which plain JSON keeps."""
    settings = load(write(directory, f"{BOUND}{files}[scopes.web.health]\n{written}"), ENVIRON)
    assert from_plain(json.loads(json.dumps(to_plain(settings)))) == settings
    return settings.scopes[ScopeName("web")].health


@pytest.mark.parametrize(
    ("files", "written", "expected"),
    [
        (FILE, 'command = ["/bin/judge", "it is"]\n', Health(10.0, ("/bin/judge", "it is"))),
        (FILE, 'unit = "db.service"\nwithin = "1m"\n', Health(60.0, (), ("db.service",))),
        (TOLD, "", Health(10.0, (), ("web.service",))),
        (TOLD, 'command = ["/bin/judge"]\n', Health(10.0, ("/bin/judge",))),
        (TOLD, 'command = ["/bin/judge"]\nunit = "db.service"\n', Health(10.0, ("/bin/judge",), ("db.service",))),
    ],
)
def test_a_command_a_unit_or_the_units_that_are_told(tmp_path, files, written, expected):
    """What is named judges; where nothing is, the units that are told of the files do."""
    assert health(tmp_path, files, written) == expected


@pytest.mark.parametrize(
    ("files", "written", "told"),
    [
        (FILE, "", "scopes.web.health: says nothing to judge by"),
        ("", 'unit = "web.service"\n', "scopes.web.health: judges files, and the scope has none"),
        (FILE, 'command = ["judge"]\n', "scopes.web.health.command: does not begin with an absolute path"),
        (FILE, 'command = ["/bin/judge"]\nwithin = "0s"\n', "scopes.web.health.within: leaves no time at all"),
        (FILE, 'unit = "web"\n', "scopes.web.health.unit"),
    ],
)
def test_what_judges_nothing_is_refused(tmp_path, files, written, told):
    """No file, nobody to ask, no time: told with its key."""
    with pytest.raises(ConfigError) as refused:
        health(tmp_path, files, written)
    assert told in str(refused.value)
