"""Which scopes a run has that names none."""

from __future__ import annotations

import os

import pytest

from prism_vault_agent.exec import Failure, project


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory two levels down."""
    directory = tmp_path / "project" / "src"
    directory.mkdir(parents=True)
    monkeypatch.chdir(directory)
    return directory


def write(directory, text: str, mode: int = 0o644):
    path = directory / project.FILE
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('scope = "web"', ["web"]),
        ("scope='web' # why", ["web"]),
        ('# a project\n\nscopes = ["web", "db-1"]\n', ["web", "db-1"]),
        ("scopes = ['a.b',]", ["a.b"]),
    ],
)
def test_forms(here, text, names):
    """The file names one scope or several, in one line."""
    write(here, text)
    assert project.scopes({}) == names


def test_nearest_file_first(here):
    """The file of the nearest directory upwards counts, and goes before PRISM_VAULT_SCOPE."""
    write(here.parent.parent, 'scope = "far"')
    assert project.scopes({b"PRISM_VAULT_SCOPE": b"variable"}) == ["far"]
    write(here.parent, 'scope = "near"')
    assert project.scopes({}) == ["near"]


def test_variable(here):
    """Without a file PRISM_VAULT_SCOPE counts, several separated by commas."""
    assert project.scopes({b"PRISM_VAULT_SCOPE": b"web, db,"}) == ["web", "db"]


def test_nothing(here):
    """Where nothing names a scope it is a usage error that says the three ways."""
    for own in ({}, {b"PRISM_VAULT_SCOPE": b" ,"}):
        with pytest.raises(Failure) as caught:
            project.scopes(own)
        assert caught.value.exit_status == 64
        assert all(way in caught.value.line for way in ("--scope", ".prism-vault.toml", "PRISM_VAULT_SCOPE"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "scope = web",
        'scope = ""',
        'scope = "a" "b"',
        'scope = "we\\u0062"',
        "scopes = []",
        'scopes = ["a" "b"]',
        'scopes = "a"',
        'scope = ["a"]',
        'scope = "a"\nscope = "b"',
        '[table]\nscope = "a"',
        'colour = "red"',
        "\0",
    ],
)
def test_bad_files(here, text):
    """Anything but the two forms is refused by its name, not guessed at."""
    path = write(here, text)
    with pytest.raises(Failure) as caught:
        project.scopes({b"PRISM_VAULT_SCOPE": b"web"})
    assert caught.value.exit_status == 78
    assert str(path) in caught.value.line


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_writable_by_others(here, mode):
    """A file that others can write does not decide which secrets we get."""
    write(here, 'scope = "web"', mode)
    with pytest.raises(Failure, match="chmod go-w"):
        project.scopes({})


@pytest.mark.root
def test_owned_by_someone_else(here):
    """A file of another user, such as one planted in /tmp, is refused."""
    os.chown(write(here, 'scope = "web"'), 12345, -1)
    with pytest.raises(Failure, match="belongs to user 12345"):
        project.scopes({})


def test_not_a_file(here):
    """A directory or a dangling link of that name is refused, not passed over."""
    (here / project.FILE).symlink_to("nowhere")
    with pytest.raises(Failure, match="cannot read"):
        project.scopes({})
