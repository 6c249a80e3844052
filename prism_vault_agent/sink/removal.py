"""Removes what was rendered: emptied where somebody may have it open, and as much of it as can be, whatever fails."""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial
from typing import TYPE_CHECKING, Final

from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.sink import linux
from prism_vault_agent.sink.owner import empty

if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.sink.owner import Owners

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY


def remove(place: int, path: str, owners: Owners | None, *, truncate: bool, alone: bool = False) -> None:
    """Remove a file or directory; ``truncate`` files before, or only those that have no other name (``alone``).

    Raises ``OSError``, or what ``owners`` raises, of the first thing that failed, after everything else was done.
    """
    failed: list[Exception] = []
    try:
        directory = linux.open_below(place, path, _DIRECTORY)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        if truncate:
            attempt(failed, lambda: empty(place, path, owners, alone=alone))
        attempt(failed, lambda: os.unlink(path, dir_fd=place))
    else:
        try:
            attempt(failed, lambda: os.fchmod(directory, 0o700))
            for name in os.listdir(directory):
                below = f"{path}/{name}"
                if truncate or not _unlinked(directory, name):
                    attempt(failed, partial(remove, place, below, owners, truncate=truncate, alone=alone))
        finally:
            os.close(directory)
        attempt(failed, lambda: os.rmdir(path, dir_fd=place))
    if failed:
        raise failed[0]


def _unlinked(directory: int, name: str) -> bool:
    """Unlink what is no directory; tell whether it is gone."""
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=directory)
        return True
    return False


def attempt(failed: list[Exception], step: Callable[[], object]) -> None:
    """Do one step; keep its error, so that the others are done too."""
    try:
        step()
    except (OSError, CannotCreate) as error:
        failed.append(error)
