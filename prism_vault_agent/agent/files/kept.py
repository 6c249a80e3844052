"""Generations that a newer one has replaced, and that are kept out of sight until it is known that all is well with that."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import structlog

from prism_vault_agent.agent.files.rendered import recalled
from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.helper.client import asking
from prism_vault_agent.sink import generation, record
from prism_vault_agent.sink.place import STAGED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prism_vault_agent.agent.files.ends import Ends
    from prism_vault_agent.agent.files.rendered import Rendered
    from prism_vault_agent.model import Reservation
    from prism_vault_agent.scope import Scope, ScopeName

log = structlog.get_logger()


def place_of(name: ScopeName) -> str:
    """Return where the kept generation of a scope is, below the place of files."""
    return f"{STAGED}/{name}.previous"


class Kept:
    """The kept generations. They are still out there, as the log says: ``cleared`` is told of their ends."""

    def __init__(self, cleared: Callable[[Reservation, str, int | None], None], ends: Ends, helper: str) -> None:
        self._cleared = cleared
        self._ends = ends
        self._helper = helper
        self._kept: dict[ScopeName, Rendered] = {}
        self.any = asyncio.Event()  # set while one is kept

    def __iter__(self) -> Iterator[Rendered]:
        """Iterate over them."""
        return iter(list(self._kept.values()))

    def __contains__(self, name: ScopeName) -> bool:
        """Tell whether one of a scope is kept."""
        return name in self._kept

    def adopt(
        self, place: int, visible: Rendered | None, name: ScopeName, scopes: Mapping[ScopeName, Scope]
    ) -> tuple[Reservation, str, int | None] | None:
        """Keep what an earlier agent has kept, where it is older than what is ``visible`` of the scope; else return its end."""
        if (found := record.read(place, place_of(name))) is None:
            return None
        kept = recalled(*found)
        if visible is not None and kept.scope.name == name and kept.number < visible.number and not kept.no_longer(scopes):
            self.add(kept)
            return None
        return kept.render.reservation, "rolled_back" if visible and kept.number > visible.number else "rotated", None

    def has(self, rendered: Rendered) -> bool:
        """Tell whether this generation is kept."""
        return self._kept.get(rendered.scope.name) is rendered

    def add(self, rendered: Rendered) -> None:
        """Note that it is kept."""
        self._kept[rendered.scope.name] = rendered
        self.any.set()

    def take(self, name: ScopeName) -> Rendered:
        """Return the one of a scope, which is kept no longer."""
        kept = self._kept.pop(name)
        if not self._kept:
            self.any.clear()
        return kept

    def drop(self, place: int, name: ScopeName, why: str, signal: int | None = None) -> str:
        """Take it away, and record that; return why it could not be, else nothing."""
        if name not in self._kept:
            return ""
        try:
            with self._ends.coming(self._kept[name].render, why, signal), asking(self._helper) as owners:
                generation.discard(place, place_of(name), owners)
        except (OSError, CannotCreate) as error:
            told = error.message if isinstance(error, CannotCreate) else os.strerror(error.errno or 0)
            log.critical("files.not_cleared", scope=name, why=told, message="of the generation before")
            return told
        self._cleared(self.take(name).render.reservation, why, signal)
        return ""
