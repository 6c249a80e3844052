"""The configuration's files, read safely: what others could have written is refused, and named.

Every load goes through here, also one that is answered from the cache.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prism_vault_agent.config.places import places
from prism_vault_agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST_FILE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """One file as it was read: its absolute path and its bytes."""

    path: str
    content: bytes


def find(path: str | None, environ: Mapping[str, str]) -> str:
    """Return the absolute path of the main file: ``path``, else PRISM_VAULT_CONFIG, else the user's default place."""
    return os.path.abspath(path or environ.get("PRISM_VAULT_CONFIG") or places(environ, os.geteuid()).config)


def read(path: str) -> tuple[Source, ...]:
    """Return the main file and the ``scopes.d/*.toml`` beside it, sorted by name.

    Raises ``ConfigError`` naming the file or directory that is missing, unreadable, not a regular file, too large,
    writable by group or world, or owned by somebody other than root and us. Symbolic links are followed; the file that
    they lead to, and its directory, are what is checked.
    """
    main = _file(path)
    directory = os.path.join(os.path.dirname(path), "scopes.d")
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return (main,)
    except OSError as error:
        raise _unreadable(directory, error) from None
    wanted = sorted(name for name in names if name.endswith(".toml") and not name.startswith("."))
    _check(directory, os.stat(directory))
    return (main, *(_file(os.path.join(directory, name)) for name in wanted))


def _file(path: str) -> Source:
    """Read one file, after checking its directory and, on the open descriptor, the file itself."""
    try:
        for directory in dict.fromkeys((os.path.dirname(path), os.path.dirname(os.path.realpath(path)))):
            _check(directory, os.stat(directory))
        # O_NONBLOCK: a FIFO in this place must not hold us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"{path}: is not a regular file", mend="put a file there")
            _check(path, found)
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such configuration file", mend="write one, or name another with PRISM_VAULT_CONFIG"
        ) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"{path}: is larger than 1 MiB", mend="split it into files below scopes.d")
    return Source(path, content)


def _check(path: str, found: os.stat_result) -> None:
    """Refuse what somebody other than root and us owns or may write."""
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"{path}: belongs to uid {found.st_uid}, not to root or to you", mend=f"chown {os.geteuid()} {path}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigError(f"{path}: may be written by others (mode {mode:04o})", mend=f"chmod go-w {path}")


def _unreadable(path: str, error: OSError | ValueError) -> ConfigError:
    why = error.strerror if isinstance(error, OSError) else "its name cannot be a path"
    return ConfigError(f"{path}: cannot be read ({why})", mend="make it readable for the user that runs this")
