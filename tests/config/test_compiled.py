"""The compiled configuration is current, ours alone, or not used; and it is cheap to load."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.config import compiled, load
from prism_vault_agent.config.compiled import load_fast
from prism_vault_agent.errors import ConfigError
from tests.config.test_load import WHOLE
from tests.config.written import BASE, SCOPE, private, write
from tests.support.as_user import in_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.config.settings import Settings

NOBODY = 65534


class Host:
    """One configuration and one cache, counting how often the sources were parsed."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.path = write(directory)
        self.environ = {"XDG_CACHE_HOME": str(directory / "cache"), "HOME": str(directory), "XDG_RUNTIME_DIR": str(directory)}
        self.parsed = 0
        original = load.parse

        def parse(*given: Any, **options: Any) -> Settings:
            self.parsed += 1
            return original(*given, **options)

        monkeypatch.setattr(load, "parse", parse)

    def load(self) -> Settings:
        """Load as a start of ``exec --direct`` does."""
        return load_fast(self.path, self.environ)

    @property
    def cache(self) -> Path:
        """The one compiled file."""
        (found,) = (self.directory / "cache" / "prism-vault").iterdir()
        return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_the_second_load_is_answered_from_the_cache(host: Host):
    """A hit gives equal settings without parsing, from a file that is ours alone."""
    first = host.load()
    assert host.load() == first
    assert host.parsed == 1
    assert host.cache.stat().st_mode & 0o777 == 0o600
    assert host.cache.parent.stat().st_mode & 0o777 == 0o700


def test_all_settings_survive_the_cache(host: Host):
    """Everything that a configuration can say is the same from the cache as from the file."""
    write(host.directory, WHOLE, more=SCOPE.replace("web", "more"))
    first = host.load()
    assert host.load() == first
    assert host.parsed == 1
    assert first == load.load(host.path, host.environ)


def changed_file(host: Host) -> None:
    write(host.directory, BASE + SCOPE.replace("uid = 1000", "uid = 1001"))


def new_scope_file(host: Host) -> None:
    write(host.directory, more=SCOPE.replace("web", "more"))


def changed_variable(host: Host) -> None:
    host.environ["VAULT_NAMESPACE"] = "team"


def removed_runtime_directory(host: Host) -> None:
    host.environ["XDG_RUNTIME_DIR"] = "/run/user/0"


@pytest.mark.parametrize("change", [changed_file, new_scope_file, changed_variable, removed_runtime_directory])
def test_a_stale_cache_is_not_used(host: Host, change: Callable[[Host], None]):
    """A change of any source, or of a variable that a load looks at, is seen at the next load."""
    host.load()
    change(host)
    assert host.load() == load.load(host.path, host.environ)
    assert host.parsed == 3  # the first, the one after the change, and the one that it is compared with
    host.load()
    assert host.parsed == 3


def test_a_cache_of_another_version_is_not_used(host: Host, monkeypatch: pytest.MonkeyPatch):
    """An update of the product compiles anew."""
    host.load()
    monkeypatch.setattr(compiled, "__version__", "99")
    host.load()
    assert host.parsed == 2


def test_a_user_that_got_another_number_is_seen(host: Host, monkeypatch: pytest.MonkeyPatch):
    """A rule by user name holds for the user who has that name now, not for who had it when it was compiled."""
    write(host.directory, BASE + SCOPE.replace("uid = 1000", 'user = "nobody"'))
    assert host.load().scopes["web"].callers[0].uid == NOBODY  # type: ignore[index]
    moved = pwd.struct_passwd(("nobody", "x", 4711, 4711, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: moved)
    assert host.load().scopes["web"].callers[0].uid == 4711  # type: ignore[index]


@pytest.mark.parametrize("damage", [b"", b"\n", b"{}", b"not JSON", b"\xff\xfe"])
def test_a_damaged_cache_is_replaced(host: Host, damage: bytes):
    """A file that is cut, empty or no JSON is as good as none."""
    host.load()
    host.cache.write_bytes(damage)
    host.load()
    assert host.parsed == 2
    host.load()
    assert host.parsed == 2


def test_a_changed_cache_is_not_believed(host: Host):
    """One other number in a file that is otherwise whole is noticed."""
    host.load()
    content = host.cache.read_bytes()
    assert content.count(b'"uid":1000') == 1
    host.cache.write_bytes(content.replace(b'"uid":1000', b'"uid":1001'))
    assert host.load().scopes["web"].callers[0].uid == 1000  # type: ignore[index]
    assert host.parsed == 2


@pytest.mark.parametrize("settings", [[], {}, None, {"agent": {}}, "text"])
def test_a_cache_of_another_shape_is_not_believed(host: Host, settings: object):
    """A whole file of the right key that holds no settings is as good as none."""
    host.load()
    kept = json.loads(host.cache.read_bytes().partition(b"\n")[2])
    compiled._keep(str(host.cache), {**kept, "settings": settings})
    host.load()
    assert host.parsed == 2


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_cache_that_others_may_write_is_not_believed(host: Host, mode: int):
    """A file, or a directory, that group or world may write is not used."""
    host.load()
    host.cache.chmod(mode)
    host.load()
    assert host.parsed == 2
    host.cache.parent.chmod(0o700 | mode & 0o077)
    host.load()
    assert host.parsed == 3


@pytest.mark.root
@pytest.mark.parametrize("whose", ["file", "directory"])
def test_a_cache_of_somebody_else_is_not_believed(host: Host, whose: str):
    """A file or directory that another user owns is not used, whatever its mode."""
    host.load()
    os.chown(host.cache if whose == "file" else host.cache.parent, NOBODY, -1)
    host.load()
    assert host.parsed == 2


def test_a_link_in_the_place_of_the_cache_is_not_followed(host: Host):
    """What a symbolic link in the cache directory leads to is neither read nor written."""
    host.load()
    victim = host.directory / "victim"
    victim.write_bytes(host.cache.read_bytes())
    victim.chmod(0o600)
    place = host.cache
    place.unlink()
    place.symlink_to(victim)
    before = victim.read_bytes()
    host.load()
    assert host.parsed == 2
    assert victim.read_bytes() == before


def test_a_cache_that_cannot_be_written_is_no_error(host: Host):
    """Without a place for the cache the configuration is loaded as ever."""
    (host.directory / "cache").write_text("a file is in the way")
    assert host.load() == host.load()
    assert host.parsed == 2


def test_unsafe_sources_are_refused_also_on_a_hit(host: Host):
    """The permissions of the sources are checked at every load."""
    host.load()
    Path(host.path).chmod(0o666)
    with pytest.raises(ConfigError, match="may be written by others"):
        host.load()


def test_a_wrong_configuration_is_not_kept(host: Host):
    """Only valid settings are compiled."""
    write(host.directory, "[vault]\n")
    with pytest.raises(ConfigError):
        host.load()
    assert not (host.directory / "cache").exists()


def test_no_draft_is_left_behind(host: Host):
    """The cache directory holds one file for each configuration and nothing else."""
    other = host.directory / "other.toml"
    private(other, BASE)
    host.load()
    load_fast(str(other), host.environ)
    write(host.directory, BASE)
    host.load()
    names = [found.name for found in (host.directory / "cache" / "prism-vault").iterdir()]
    assert len(names) == 2
    assert all(name.endswith(".json") for name in names)


def test_a_hit_imports_no_parser_and_no_framework(host: Host):
    """On a hit neither pydantic nor a TOML parser, asyncio, structlog, pathlib, socket or logging is imported."""
    host.load()
    code = (
        "import sys; from prism_vault_agent.config.compiled import load_fast; import os;"
        "load_fast(sys.argv[1], os.environ); print(' '.join(sys.modules))"
    )
    packages = [str(Path(compiled.__file__).parents[2]), *(place for place in sys.path if place.endswith("site-packages"))]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {packages!r}; {code}", host.path],
        env=host.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(done.stdout.split())
    heavy = {
        "pydantic",
        "tomllib",
        "asyncio",
        "structlog",
        "pathlib",
        "socket",
        "logging",
        "subprocess",
        "tempfile",
        "ssl",
        "urllib.parse",
    }
    assert imported & heavy == set()
    assert "prism_vault_agent.config.load" not in imported


def test_who_asks_no_agent_needs_no_socket():
    """Without XDG_RUNTIME_DIR, as in a cron job, a user's settings are loaded with an empty path for the socket."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = write(directory)
        for public, mode in ((directory, 0o755), (directory / "agent.toml", 0o644)):
            public.chmod(mode)
        uid = NOBODY if os.geteuid() == 0 else None
        assert in_child(lambda: load_fast(path, {"HOME": "/nonexistent"}).agent.socket, uid) == ""
