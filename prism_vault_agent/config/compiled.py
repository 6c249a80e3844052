"""A validated configuration kept as JSON, so that ``exec --direct`` starts without pydantic and without a TOML parser.

It is trusted only where nobody else could have written it, and only for the very bytes, variables, user, host and
version that it was made from. The sources are read and their permissions checked every time. A file of it:

* line 1: SHA-256 (hex) of everything behind it, so that a damaged file is noticed;
* then one JSON object: ``key``, what it was made from; ``accounts``, names of users and groups with their numbers;
  ``settings`` (see ``plain.py``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent import __version__
from prism_vault_agent.config import sources
from prism_vault_agent.config.accounts import Accounts, still
from prism_vault_agent.config.places import places
from prism_vault_agent.config.plain import from_plain, to_plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prism_vault_agent.config.settings import Settings
    from prism_vault_agent.config.sources import Source

# Every variable that a load may look at.
VARIABLES: Final = (
    *("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "HOME"),
    *(
        f"{product}_{name}"
        for product in ("BAO", "VAULT")
        for name in ("ADDR", "NAMESPACE", "CACERT", "CLIENT_CERT", "CLIENT_KEY")
    ),
)
_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


def load_fast(path: str | None, environ: Mapping[str, str], own: tuple[int, int] | None = None) -> Settings:
    """Return the settings of the configuration at ``path``, from its compiled form where that is current.

    Else loads and compiles it; a cache that cannot be written is no error. Raises like ``load.load``, but for the socket: who
    has no place for one gets an empty path, since who asks for these settings asks no agent. ``own``: see ``Accounts``.
    """
    main = sources.find(path, environ)
    files = sources.read(main)
    accounts = Accounts(own)
    key = _key(files, environ, accounts.own)
    cache = _cache_file(main, environ)
    settings = _recall(cache, key) if cache else None
    if settings is not None:
        return settings
    from prism_vault_agent.config.load import parse  # noqa: PLC0415 - pydantic is what this file is here to avoid

    settings = parse(files, environ, accounts, serving=False)
    if cache:
        with contextlib.suppress(OSError):
            _keep(cache, {"key": key, "accounts": accounts.found, "settings": to_plain(settings)})
    return settings


def _key(files: tuple[Source, ...], environ: Mapping[str, str], own: tuple[int, int]) -> str:
    """Return what the settings depend on, as one hash; each part follows its length, so parts cannot run together."""
    parts = [__version__, os.uname().nodename, str(os.geteuid()), str(os.getegid()), f"{own[0]}:{own[1]}"]
    parts += [f"{name}={environ[name]}" for name in VARIABLES if name in environ]
    made_from = hashlib.sha256()
    for part in (
        *map(os.fsencode, parts),
        *(part for file in files for part in (os.fsencode(file.path), file.content)),
    ):
        made_from.update(b"%d:" % len(part) + part)
    return made_from.hexdigest()


def _cache_file(main: str, environ: Mapping[str, str]) -> str:
    """Return where the compiled form of the main file ``main`` is kept; empty where this user has no such place."""
    directory = places(environ, os.geteuid()).cache
    return os.path.join(directory, hashlib.sha256(os.fsencode(main)).hexdigest()[:32] + ".json") if directory else ""


def _recall(cache: str, key: str) -> Settings | None:
    """Return the kept settings; None where there are none, not of this key, or where others could have written them."""
    try:
        if not _ours(os.lstat(os.path.dirname(cache))):
            return None
        descriptor = os.open(cache, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not (stat.S_ISREG(found.st_mode) and _ours(found)):
                return None
            digest, _, body = file.read().partition(b"\n")
        if digest != hashlib.sha256(body).hexdigest().encode():
            return None
        kept = json.loads(body)
        return from_plain(kept["settings"]) if kept["key"] == key and still(kept["accounts"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _keep(cache: str, kept: dict[str, Any]) -> None:
    """Write the cache file whole or not at all; only into a directory that is ours alone."""
    directory = os.path.dirname(cache)
    os.makedirs(directory, _DIRECTORY_MODE, exist_ok=True)
    if not _ours(os.lstat(directory)):
        return
    body = json.dumps(kept, separators=(",", ":")).encode()
    draft = f"{cache}.{os.getpid()}.{os.urandom(4).hex()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        os.replace(draft, cache)
    except BaseException:
        os.unlink(draft)
        raise


def _ours(found: os.stat_result) -> bool:
    """Tell whether something is ours and nobody else may write it."""
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
