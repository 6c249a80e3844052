"""What ``prism-vault dev`` refuses, before anything is started; and parts that do not start."""

from __future__ import annotations

import os
import subprocess

import pytest

from prism_vault_agent.dev import seed, texts
from prism_vault_agent.dev.place import hold
from prism_vault_agent.errors import ConfigError, Unavailable
from tests.dev.started import dev, processes_in


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("GOOD=1\nthis line says nothing\n", "example.env:2: "),
        ("GOOD=1\n\nBAD='open\n", "example.env:3: "),
        ("LD_PRELOAD=/x.so\n", "LD_PRELOAD changes how programs load or run"),
        ("PATH=/bin\n", "PATH changes how programs load or run"),
        ("Twin=1\nTWIN=2\n", "TWIN and Twin differ only by case"),
        (b"LATIN=caf\xe9\n", "the value of LATIN is not UTF-8"),
    ],
)
def test_a_bad_env_file_is_refused_by_line_or_name(content, told, tmp_path):
    """An env file that cannot become a scope is refused with its line or its variable, never a value."""
    path = tmp_path / "example.env"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as refused:
        seed.read(str(path))
    assert told in refused.value.line()
    assert "/x.so" not in refused.value.line()


def test_a_bad_env_file_starts_nothing(tmp_path):
    """A refused env file costs one line and the status 78; no directory is made."""
    (tmp_path / "e").write_text("PATH=/bin\n")
    status, _, errors = dev("--state", str(tmp_path / "s"), "--env-file", str(tmp_path / "e"), "--", "true")
    assert (status, len(errors)) == (78, 1)
    assert not (tmp_path / "s").exists()


def test_a_seed_is_as_large_as_openbao_takes(tmp_path):
    """As many variables as one request to OpenBao can carry are taken, and one more is refused before anything starts."""
    names = [f"KEY_{number}=value" for number in range(seed.MOST + 1)]
    (tmp_path / "most").write_text("\n".join(names[: seed.MOST]))
    (tmp_path / "over").write_text("\n".join(names))
    status, out, errors = dev("--env-file", str(tmp_path / "most"), "--", "sh", "-c", "env | grep -c ^KEY_")
    assert (status, out) == (0, f"{seed.MOST}\n"), errors
    with pytest.raises(ConfigError, match="has 491 variables"):
        seed.read(str(tmp_path / "over"))


def test_a_missing_env_file_is_named(tmp_path):
    """An env file that is not there is named."""
    with pytest.raises(ConfigError, match="nowhere"):
        seed.read(str(tmp_path / "nowhere"))


def test_a_directory_that_holds_something_else_is_refused(tmp_path):
    """A directory with the user's files in it is not taken for a stack's."""
    (tmp_path / "env").mkdir()
    with pytest.raises(ConfigError, match="holds something else"), hold(str(tmp_path)):
        pass


def test_a_directory_that_others_may_write_is_refused(tmp_path):
    """A directory that the group may write is refused with its mend, and so is one below such a directory."""
    tmp_path.chmod(0o770)
    with pytest.raises(ConfigError, match="others may write") as refused, hold(str(tmp_path)):
        pass
    assert refused.value.mend == f"chmod go-w {tmp_path}"
    tmp_path.chmod(0o700)
    (tmp_path / "above" / "s").mkdir(parents=True)
    (tmp_path / "above").chmod(0o777)
    with pytest.raises(ConfigError, match=f"{tmp_path}/above: may be written by others"), hold(str(tmp_path / "above" / "s")):
        pass


def test_one_directory_has_one_stack(tmp_path):
    """A second dev on the same directory is refused while the first lives, and accepted afterwards."""
    with hold(str(tmp_path / "s")), pytest.raises(Unavailable, match="another prism-vault dev"), hold(str(tmp_path / "s")):
        pass
    with hold(str(tmp_path / "s")) as place:
        assert place.kept


def test_scopes_that_were_there_before_the_first_start_are_kept(tmp_path):
    """A new state directory may hold scopes.d already."""
    (tmp_path / "scopes.d").mkdir(mode=0o700)
    (tmp_path / "scopes.d" / "mine.toml").write_text("")
    with hold(str(tmp_path)):
        pass
    assert (tmp_path / "scopes.d" / "mine.toml").exists()


def test_a_part_that_does_not_start_is_named_with_its_last_line(tmp_path):
    """A scope file that the agent refuses ends dev with 75, the agent's own line, and nothing running."""
    (tmp_path / "s" / "scopes.d").mkdir(mode=0o700, parents=True)
    (tmp_path / "s").chmod(0o700)
    (tmp_path / "s" / "scopes.d" / "mine.toml").write_text("[scopes.web]\nprojekt = 'x'\n")
    status, _, errors = dev("--state", str(tmp_path / "s"), "--", "true")
    assert status == 75
    assert errors[-1].startswith("prism-vault: agent did not start: ")
    assert "mine.toml:" in errors[-1]
    assert errors[-1].endswith(f"; see {tmp_path}/s/log/agent.log")
    assert processes_in(tmp_path / "s") == []


def test_the_file_for_a_shell_survives_any_path(tmp_path):
    """A shell that reads the env file gets each value exactly, whatever characters are in it."""
    value = 'it\'s "a" $(path) `with` \\ all'
    (tmp_path / "env").write_text(texts.env({"VALUE": value}))
    shown = subprocess.run(
        ["/bin/sh", "-c", f'. {tmp_path}/env && printf %s "$VALUE"'],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )
    assert shown.stdout == value
