"""The directory of the rendered files: made, checked and locked at the first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from prism_vault_agent.agent.files.ends import Ends
from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.helper.client import asking
from prism_vault_agent.sink.place import Place, open_place

if TYPE_CHECKING:
    from prism_vault_agent.config.settings import AgentSettings

log = structlog.get_logger()


class Directory:
    """The directory that ``settings`` name, with the notes of ends in it."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self.ends = Ends()
        self._place: Place | None = None

    @property
    def memory(self) -> str:
        """How sure it is that no value reaches a disk; empty while there is no place yet."""
        return self._place.memory if self._place else ""

    @property
    def helper(self) -> str:
        """Where the helper is asked that gives files to other users; empty where none is."""
        return self._settings.helper

    def place(self) -> Place:
        """Return the place, made, checked and locked at the first use. Raises ``CannotCreate``."""
        if self._place is None:
            if not self._settings.files:
                raise CannotCreate("there is no directory for files, since XDG_RUNTIME_DIR is not set", mend="set [agent] files")
            with asking(self.helper) as helper:
                self._place = open_place(self._settings.files, self._settings.files_risks, helper.mount if helper else None)
            self.ends.place = self._place.descriptor
            told = log.info if self._place.memory == "noswap" else log.warning
            told("files.place", path=self._place.path, memory=self._place.memory)
        else:
            self._place.still()
        return self._place
