"""User and group names of this host as numbers, remembering which were asked for."""

from __future__ import annotations

import grp
import os
import pwd
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST_ID: Final = 2**32 - 2  # 2**32 - 1 means "leave as it is" to chown(2)
LONGEST_NUMBER: Final = len(str(LARGEST_ID))


class Accounts:
    """Looks names up. ``found`` is kept with a compiled configuration, which holds while it is :func:`still` true."""

    def __init__(self, own: tuple[int, int] | None = None) -> None:
        """``own`` are the user and group whose files they are where none is named; default: ours."""
        self.own = own or (os.geteuid(), os.getegid())
        self.found: dict[str, int] = {}

    def uid(self, name: str) -> int | None:
        """Return the number of a user, given by name or as digits; None where there is none."""
        return self._look("user", name)

    def gid(self, name: str) -> int | None:
        """Return the number of a group, given by name or as digits; None where there is none."""
        return self._look("group", name)

    def _look(self, kind: str, name: str) -> int | None:
        if name.isascii() and name.isdigit():
            return int(name) if len(name) <= LONGEST_NUMBER and int(name) <= LARGEST_ID else None
        number = _number(kind, name)
        if number is not None:
            self.found[f"{kind}:{name}"] = number
        return number


def home_group(user: str) -> int | None:
    """Return the number of a user's own group, for a user by name or as digits; None where there is none."""
    try:
        return (pwd.getpwuid(int(user)) if user.isascii() and user.isdigit() else pwd.getpwnam(user)).pw_gid
    except (KeyError, ValueError, OverflowError):
        return None


def still(found: Mapping[str, int]) -> bool:
    """Tell whether all names mean the numbers that they meant."""
    return all(_number(*key.split(":", 1)) == number for key, number in found.items())


def _number(kind: str, name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return None
