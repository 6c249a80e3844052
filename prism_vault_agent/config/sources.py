"""The configuration's files, read safely: what others could have written is refused, and named.

Every load goes through here, also one that is answered from the cache.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prism_vault_agent.config import way
from prism_vault_agent.config.places import places
from prism_vault_agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST_FILE: Final = 1024 * 1024
_MISSING: Final = ("configuration file", "write one, or name another with PRISM_VAULT_CONFIG")


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
    writable by group or world, or owned by somebody other than root and us. Symbolic links are followed; every directory
    and link up to ``/`` is checked (see ``way.check``).
    """
    known: set[str] = set()
    main = read_one(path, known)
    directory = os.path.join(os.path.dirname(path), "scopes.d")
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return (main,)
    except OSError as error:
        raise _unreadable(directory, error) from None
    wanted = sorted(name for name in names if name.endswith(".toml") and not name.startswith("."))
    way.check(directory, known)
    return (main, *(read_one(os.path.join(directory, name), known) for name in wanted))


def read_one(path: str, known: set[str], missing: tuple[str, str] = _MISSING) -> Source:
    """Return one file, after checking the way to it and, on the open descriptor, the file itself. Raises like :func:`read`.

    ``known`` holds the directories that have been found good, and takes more; ``missing`` says of what kind it would be, and
    what to do where it is not there.
    """
    try:
        way.check(path, known)
        # O_NONBLOCK: a FIFO in this place must not hold us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"{path}: is not a regular file", mend="put a file there")
            way.owned(path, found)
            way.unwritable(path, found)
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such {missing[0]}", mend=missing[1]) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"{path}: is larger than 1 MiB", mend="split it into files below scopes.d")
    return Source(path, content)


def _unreadable(path: str, error: OSError | ValueError) -> ConfigError:
    why = error.strerror if isinstance(error, OSError) else "its name cannot be a path"
    return ConfigError(f"{path}: cannot be read ({why})", mend="make it readable for the user that runs this")
