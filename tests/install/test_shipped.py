"""What ships for systemd: in the package as in the checkout, and where each file is put, with which launcher."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from prism_vault_agent.errors import CannotCreate, ConfigError
from prism_vault_agent.install import manifest
from prism_vault_agent.install.manifest import Manifest
from prism_vault_agent.install.units import LAUNCHER, PARTS, check_launcher, directories, shipped, users

SOURCE = Path(__file__).parents[2] / "systemd"
# Of the wheel that is installed, which may not be what the tests import.
PACKAGE = Path(sysconfig.get_path("purelib")) / "prism_vault_agent/systemd"


def test_the_package_has_what_the_checkout_has():
    """The wheel carries every file of ``systemd/`` as it is."""
    files = [path.relative_to(SOURCE) for path in SOURCE.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert {file: (PACKAGE / file).read_bytes() for file in files} == {file: (SOURCE / file).read_bytes() for file in files}


def test_every_file_has_its_place():
    """Units, users and directories are put where an administrator puts them, each for one part; the example stays where it is."""
    found = {file.path for file in shipped(PARTS, LAUNCHER)}
    assert len(found) == len([path for path in SOURCE.iterdir() if path.is_file()])
    assert {"/etc/sysusers.d/prism-vault-agent.conf", "/etc/tmpfiles.d/prism-vault-agent.conf"} <= found
    assert "/etc/systemd/system/run-prism\\x2dvault-files.mount" in found
    assert {file.path for file in shipped(["central"], LAUNCHER)} == {
        "/etc/systemd/system/prism-vault-central.service",
        "/etc/sysusers.d/prism-vault-central.conf",
    }


def test_units_start_the_launcher_that_is_there():
    """Whatever starts prism-vault starts the one that installs; nothing else of a unit changes."""
    other = {file.path: file.content for file in shipped(PARTS, "/usr/bin/prism-vault")}
    for file in shipped(PARTS, LAUNCHER):
        assert other[file.path] == file.content.replace(LAUNCHER.encode(), b"/usr/bin/prism-vault")
    assert b"ExecStart=/usr/bin/prism-vault agent\n" in other["/etc/systemd/system/prism-vault-agent.service"]
    assert not [path for path, content in other.items() if b"/opt/prism-vault" in content]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("prism-vault", "cannot stand in a unit"),
        ("/opt/a b/prism-vault", "cannot stand in a unit"),
        ("/opt/%n/prism-vault", "cannot stand in a unit"),
        ("/opt/../prism-vault", "cannot stand in a unit"),
        ("/home/me/.venv/bin/prism-vault", "is where units see nothing"),
        ("/tmp/prism-vault", "is where units see nothing"),
        ("/nonexistent/prism-vault", "there is no launcher /nonexistent/prism-vault"),
    ],
)
def test_a_launcher_that_would_not_start_is_refused(path: str, told: str):
    """A path that a unit would read otherwise, or that units do not see, is refused before anything is written."""
    with pytest.raises(ConfigError) as refused:
        check_launcher(path, "")
    assert told in refused.value.message


def test_what_is_made_is_known_by_name():
    """Users, groups and directories are read from the files that make them."""
    assert users(b'u one - "One" / /bin/false\ng two -\n# u three\n') == ["one", "two"]
    assert directories(b"d /etc/one 0755 root root -\nf /etc/two\n") == ["/etc/one"]


def test_a_manifest_comes_back_as_it_was(tmp_path: Path):
    """It is kept and read again; while a file is replaced it knows both; an empty one leaves nothing."""
    kept = Manifest(directories=["/etc/x"])
    kept.add("/a", b"old")
    kept.add("/a", b"new")
    manifest.write(str(tmp_path), kept)
    found = manifest.read(str(tmp_path))
    assert found == kept
    assert [found.ours("/a", content) for content in (b"old", b"new", b"other")] == [True, True, False]
    found.settle("/a", b"new")
    assert [found.ours("/a", content) for content in (b"old", b"new")] == [False, True]
    manifest.write(str(tmp_path), Manifest())
    assert not (tmp_path / manifest.DIRECTORY[1:]).exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": [], "directories": []}', "\0"])
def test_a_damaged_manifest_is_told(tmp_path: Path, text: str):
    """Nothing is done by a manifest that cannot be read; it is named, with what to do."""
    manifest.write(str(tmp_path), Manifest({"/a": ["0"]}, []))
    (tmp_path / manifest.DIRECTORY[1:] / "systemd.json").write_text(text)
    with pytest.raises(CannotCreate) as refused:
        manifest.read(str(tmp_path))
    assert "systemd.json cannot be read" in refused.value.message
