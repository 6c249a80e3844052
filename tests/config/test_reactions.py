"""What is done at a rotation and a revocation, in the configuration: kept as it is written, or refused with its key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.config.load import load
from prism_vault_agent.config.plain import from_plain, to_plain
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.scope import KeyReaction, Limits, Reaction, ScopeName
from tests.config.written import BASE, ENV, ENVIRON, SCOPE, write

if TYPE_CHECKING:
    from pathlib import Path

    from prism_vault_agent.scope import Scope

BOUND = ENV + 'URL = "vault://secret/web#url"\nKEY = "vault://secret/web#key"\n'


def scope(directory: Path, more: str = "", tables: str = "") -> Scope:
    """Return the scope with these keys, which plain JSON keeps."""
    settings = load(write(directory, BASE + SCOPE + more + BOUND + tables), ENVIRON)
    assert from_plain(json.loads(json.dumps(to_plain(settings)))) == settings
    return settings.scopes[ScopeName("web")]


def test_files_and_their_readers_follow_and_processes_stay_where_nothing_is_said(tmp_path):
    """Without a word a rotation is for files and who is told of them, and a revocation ends processes."""
    found = scope(tmp_path)
    assert (found.on_rotate, found.on_revoke, found.keys) == (Reaction("notify"), Reaction("terminate"), ())
    assert found.rotate_limits == Limits(0.0, 10.0, (), 12)


@pytest.mark.parametrize("word", ["restart", "signal:HUP", "signal:TERM", "notify", "rewrite", "terminate", "none"])
def test_every_reaction_to_a_rotation_is_kept_as_it_is_written(tmp_path, word):
    """What stands in the file is what the scope says, spelled the same."""
    assert str(scope(tmp_path, f'on_rotate = "{word}"\n').on_rotate) == word


@pytest.mark.parametrize("word", ["terminate", "signal:USR1", "clear"])
def test_every_reaction_to_a_revocation_is_kept_as_it_is_written(tmp_path, word):
    """What stands in the file is what the scope says, spelled the same."""
    assert str(scope(tmp_path, f'on_revoke = "{word}"\n').on_revoke) == word


def test_one_variable_and_the_limits_say_their_own(tmp_path):
    """A table for a variable goes beside the scope's word, and the limits are read as those of ``notify`` are."""
    tables = '[scopes.web.keys.URL]\non_rotate = "none"\n[scopes.web.keys.KEY]\non_revoke = "signal:INT"\n'
    tables += (
        '[scopes.web.rotate_limits]\nsplay = "2m"\nmin_interval = "1h"\nmax_per_hour = 1\nwindow = ["Sat,Sun 02:00-04:00"]\n'
    )
    found = scope(tmp_path, 'on_rotate = "restart"\n', tables)
    assert found.keys == (KeyReaction("URL", Reaction("none")), KeyReaction("KEY", None, Reaction("signal", "INT")))
    assert found.rotate_limits == Limits(120.0, 3600.0, ("Sat,Sun 02:00-04:00",), 1)


@pytest.mark.parametrize(
    ("more", "tables", "told"),
    [
        ('on_rotate = "reload"\n', "", "scopes.web.on_rotate"),
        ('on_rotate = "signal"\n', "", "scopes.web.on_rotate"),
        ('on_rotate = "signal:QUIT"\n', "", "scopes.web.on_rotate"),
        ('on_rotate = "restart:HUP"\n', "", "scopes.web.on_rotate"),
        ('on_rotate = "clear"\n', "", "scopes.web.on_rotate"),
        ('on_revoke = "none"\n', "", "scopes.web.on_revoke"),
        ('on_revoke = "restart"\n', "", "scopes.web.on_revoke"),
        ("", '[scopes.web.keys.OTHER]\non_rotate = "none"\n', "names no variable of the scope"),
        ("", '[scopes.web.keys.URL]\non_change = "none"\n', "scopes.web.keys.URL.on_change"),
        ("", '[scopes.web.rotate_limits]\nwindow = ["25:00-26:00"]\n', "scopes.web.rotate_limits.window"),
    ],
)
def test_what_means_nothing_is_refused_with_its_key(tmp_path, more, tables, told):
    """No word stands for another by accident: what a scope cannot do at that moment is an error with its place."""
    with pytest.raises(ConfigError) as refused:
        scope(tmp_path, more, tables)
    assert told in str(refused.value)
