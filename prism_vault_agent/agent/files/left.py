"""The files that an agent left which is to leave none: cleared by whoever comes after it, and their ends noted for the log."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import structlog

from prism_vault_agent.agent import reservations
from prism_vault_agent.agent.files.ends import Ends
from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.helper.client import asking
from prism_vault_agent.sink import generation, record
from prism_vault_agent.sink.place import STAGED, left_place

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger()


def clear_left(path: str, helper: str, why: str) -> bool:
    """Clear everything below ``path``, and leave to the next agent's log that it was, and why. Tell whether nothing is left."""
    if not path:
        return True
    try:
        with left_place(path) as place, asking(helper) as owners:
            if place < 0:
                return True
            ends = Ends()
            ends.place = place
            for name in _generations(place):
                # Of what is no generation of ours there is nothing on the log.
                with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
                    if (found := record.read(place, name)) is not None:
                        ends.note(reservations.recall(found[0]), why)
            names = generation.sweep(place, (), owners)
    except (OSError, CannotCreate) as error:
        told = error.line() if isinstance(error, CannotCreate) else os.strerror(error.errno or 0)
        log.critical("files.not_cleared", path=path, why=told)
        return False
    if names:
        log.warning("files.cleared", path=path, scopes=names, reason=why)
    return True


def _generations(place: int) -> Iterator[str]:
    """Iterate over what may be a generation: the visible ones, and those that are staged or kept."""
    yield from (name for name in os.listdir(place) if not name.startswith("."))
    yield from (f"{STAGED}/{name}" for name in os.listdir(f"/proc/self/fd/{place}/{STAGED}"))
