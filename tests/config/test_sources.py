"""Files and directories that somebody else could have written are refused, and named."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from prism_vault_agent.config import sources
from prism_vault_agent.config.load import load
from prism_vault_agent.config.places import places
from prism_vault_agent.errors import ConfigError
from tests.config.written import BASE, ENVIRON, SCOPE, private, write
from tests.support.as_user import in_child

NOBODY = 65534


def refusal(path: str) -> str:
    """Return the line with which loading ``path`` is refused."""
    with pytest.raises(ConfigError) as caught:
        load(path, ENVIRON)
    return caught.value.line()


@pytest.mark.parametrize("what", ["agent.toml", "", "scopes.d", "scopes.d/jobs.toml"])
@pytest.mark.parametrize("bit", [stat.S_IWGRP, stat.S_IWOTH])
def test_what_others_may_write_is_refused(tmp_path: Path, what: str, bit: int):
    """A file or directory that group or world may write is refused, named, with the command that mends it (F59)."""
    path = write(tmp_path, jobs=SCOPE.replace("web", "jobs"))
    wrong = tmp_path / what
    wrong.chmod(stat.S_IMODE(wrong.stat().st_mode) | bit)
    assert refusal(path).startswith(f"{wrong}: may be written by others (mode 0")
    assert refusal(path).endswith(f"chmod go-w {wrong}")


@pytest.mark.root
@pytest.mark.parametrize("what", ["agent.toml", "", "scopes.d", "scopes.d/jobs.toml"])
def test_what_somebody_else_owns_is_refused(tmp_path: Path, what: str):
    """A file or directory of somebody who is neither root nor us is refused and named (F59)."""
    path = write(tmp_path, jobs=SCOPE.replace("web", "jobs"))
    os.chown(tmp_path / what, NOBODY, -1)
    assert refusal(path).startswith(f"{tmp_path / what}: belongs to uid {NOBODY}, not to root or to you")


@pytest.mark.parametrize("bit", [stat.S_IWGRP, stat.S_IWOTH])
def test_every_directory_above_is_checked(tmp_path: Path, bit: int):
    """Who may write any directory on the way to the file could put another in its place, so that is refused and named (F59)."""
    above = tmp_path / "above"
    below = above / "b" / "c"
    below.mkdir(parents=True, mode=0o700)
    path = write(below)
    assert load(path, ENVIRON).files == (path,)
    above.chmod(0o700 | bit)
    assert refusal(path).startswith(f"{above}: may be written by others (mode 0")
    above.chmod(0o700 | bit | stat.S_ISVTX)
    assert load(path, ENVIRON).files == (path,)


@pytest.mark.root
def test_every_directory_above_is_roots_or_ours(tmp_path: Path):
    """A directory above that somebody else owns is refused and named, sticky bit or not: its owner may replace all in it."""
    above = tmp_path / "above"
    below = above / "b"
    below.mkdir(parents=True, mode=0o700)
    path = write(below)
    os.chown(above, NOBODY, -1)
    for mode in (0o755, 0o1777):
        above.chmod(mode)
        assert refusal(path).startswith(f"{above}: belongs to uid {NOBODY}, not to root or to you")


@pytest.mark.root
def test_a_link_on_the_way_is_roots_or_ours(tmp_path: Path):
    """Where all may make names, somebody else's link to a file of ours could be led elsewhere later: it is refused (F59)."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (tmp_path / "ours").mkdir(mode=0o700)
    write(tmp_path / "ours")
    for link, target in ((shared / "conf", tmp_path / "ours"), (tmp_path / "ours" / "link.toml", Path("agent.toml"))):
        link.symlink_to(target)
        path = str(link / "agent.toml" if target.is_absolute() else link)
        assert load(path, ENVIRON).files == (path,)
        os.lchown(link, NOBODY, -1)
        assert refusal(path).startswith(f"{link}: belongs to uid {NOBODY}")


@pytest.mark.parametrize("place", ["first", "second"])
def test_every_link_of_a_chain_is_followed_by_hand(tmp_path: Path, place: str):
    """Of links that lead to links, relative or not, each one's directory is checked, not only the first and the last (F59)."""
    for name in ("first", "second", "real"):
        (tmp_path / name).mkdir(mode=0o700)
    write(tmp_path / "real")
    (tmp_path / "second" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "first" / "link").symlink_to("../second/./link")
    path = str(tmp_path / "first" / "link" / "agent.toml")
    assert load(path, ENVIRON).files == (path,)
    (tmp_path / place).chmod(0o777)
    assert refusal(path).startswith(f"{tmp_path / place}: may be written by others (mode 0777)")


def test_links_that_lead_in_a_circle_are_an_error(tmp_path: Path):
    """A circle of links is told as the kernel tells it, and never followed for ever."""
    (tmp_path / "agent.toml").symlink_to("other.toml")
    (tmp_path / "other.toml").symlink_to("agent.toml")
    assert refusal(str(tmp_path / "agent.toml")).startswith(f"{tmp_path}/agent.toml: cannot be read (Too many levels")


def test_a_file_of_ours_that_all_may_read_is_fine(tmp_path: Path):
    """Reading is harmless: the configuration holds no secret."""
    path = write(tmp_path)
    (tmp_path / "agent.toml").chmod(0o644)
    tmp_path.chmod(0o755)
    assert load(path, ENVIRON).files == (path,)


def test_a_link_is_followed_and_its_target_is_checked(tmp_path: Path):
    """A symbolic link, as configuration tools make them, works; what it leads to must be as safe as a file in its place."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    target = tmp_path / "elsewhere" / "real.toml"
    private(target, BASE)
    tmp_path.chmod(0o700)
    (tmp_path / "agent.toml").symlink_to(target)
    path = str(tmp_path / "agent.toml")
    assert load(path, ENVIRON).files == (path,)
    target.chmod(0o666)
    assert refusal(path).startswith(f"{path}: may be written by others (mode 0666)")
    target.chmod(0o600)
    (tmp_path / "elsewhere").chmod(0o777)
    assert refusal(path).startswith(f"{tmp_path}/elsewhere: may be written by others (mode 0777)")


def test_a_file_without_end_is_refused_unread(tmp_path: Path):
    """More than 1 MiB is no configuration: refused without reading it all (F59)."""
    path = write(tmp_path)
    os.truncate(path, 100 * 1024 * 1024)
    assert refusal(path).startswith(f"{path}: is larger than 1 MiB")


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str):
    """A directory or a FIFO in the place of the file is refused, and never waited for (F59)."""
    tmp_path.chmod(0o700)
    path = tmp_path / "agent.toml"
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    else:
        path.mkdir(mode=0o700)
    assert refusal(str(path)).startswith(f"{path}: ")


def test_a_file_in_the_place_of_scopes_d_is_refused(tmp_path: Path):
    """scopes.d that is no directory is told, since its scopes would silently be missing."""
    path = write(tmp_path)
    private(tmp_path / "scopes.d", "")
    assert refusal(path).startswith(f"{tmp_path}/scopes.d: cannot be read (Not a directory)")


def test_a_name_that_is_no_path_is_refused():
    """A NUL in the file's name is an error like any other."""
    assert "cannot be read" in refusal("/etc/\0")


def test_the_places_of_a_user_follow_the_xdg_base_directories():
    """A user's own agent has its files where the XDG variables say, and ignores relative ones."""
    environ = {
        "HOME": "/home/u",
        "XDG_CONFIG_HOME": "/c",
        "XDG_STATE_HOME": "/s",
        "XDG_CACHE_HOME": "/k",
        "XDG_RUNTIME_DIR": "/run/user/1000",
    }
    found = places(environ, 1000)
    assert found.config == "/c/prism-vault/agent.toml"
    assert found.socket == "/run/user/1000/prism-vault/agent.sock"
    assert (found.state, found.cache) == ("/s/prism-vault", "/k/prism-vault")
    found = places({"HOME": "/home/u", "XDG_STATE_HOME": "relative"}, 1000)
    assert found.config == "/home/u/.config/prism-vault/agent.toml"
    assert (found.state, found.cache) == ("/home/u/.local/state/prism-vault", "/home/u/.cache/prism-vault")


def test_without_a_runtime_directory_a_user_must_name_the_socket():
    """The socket never falls back to /tmp, where anybody could take its place."""
    assert places({"HOME": "/home/u"}, 1000).socket == ""


def test_a_user_without_a_runtime_directory_is_told_to_set_the_socket():
    """The error for a user without XDG_RUNTIME_DIR names the key to set."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = write(directory)
        for public, mode in ((directory, 0o755), (directory / "agent.toml", 0o644)):
            public.chmod(mode)
        with pytest.raises(ConfigError) as caught:
            in_child(lambda: load(path, {"HOME": "/"}).files, NOBODY if os.geteuid() == 0 else None)
    assert f"{path}:1: agent.socket: has no default here, since XDG_RUNTIME_DIR is not set; set it" in caught.value.line()


def test_the_places_of_root_are_the_hosts():
    """Root's agent is the host's: /etc, /run, /var."""
    found = places({}, 0)
    assert (found.config, found.socket) == ("/etc/prism-vault/agent.toml", "/run/prism-vault/agent.sock")
    assert (found.state, found.cache) == ("/var/lib/prism-vault", "/var/cache/prism-vault")


def test_find_makes_the_path_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A relative name means the same file after a change of directory."""
    monkeypatch.chdir(tmp_path)
    assert sources.find("agent.toml", {}) == str(tmp_path / "agent.toml")
