"""Descriptors of processes that were found by their numbers, which may be other processes' by then (pidfd_open(2))."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def opened(pids: Iterable[int], still: Callable[[int], bool]) -> Iterator[int]:
    """Iterate over descriptors of those of ``pids`` that live and are ``still`` what was looked for, each good until the next."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if still(pid):  # else the number was another process's by the time it was opened
                yield descriptor
        finally:
            os.close(descriptor)
