"""Whether central lets this installation of an agent have its host's name, and the identifier that it is known by."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from prism_vault_agent.audit.answers import nameless
from prism_vault_agent.audit.event import NAMELESS
from prism_vault_agent.audit.installation import FILE, known
from prism_vault_agent.audit.journal import private, sync_directory
from prism_vault_agent.errors import AuditUnavailable, CannotCreate

if TYPE_CHECKING:
    from prism_vault_agent.audit.answers import Answer

log = structlog.get_logger()


def own(state: str) -> str:
    """Return our identifier, which is made and kept durably where there is none. Raises ``CannotCreate``."""
    if found := known(state):
        return found
    path, made = os.path.join(state, FILE), os.urandom(16).hex()
    try:
        with open(f"{path}.new", "w", encoding="ascii", opener=private) as file:
            file.write(f"{made}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.new", path)
        sync_directory(path)
    except OSError as error:
        raise CannotCreate(
            f"cannot keep {path}: {os.strerror(error.errno or 0)}", mend="make room or mend its directory"
        ) from None
    return made


class Name:
    """Whether we have our host's name at central; ``refusal`` is why not, None while nothing was said against it."""

    def __init__(self, installation: str) -> None:
        """Be ``installation``."""
        self.installation = installation
        self.refusal: AuditUnavailable | None = None

    def heard(self, reason: str, message: str) -> None:
        """Take note of what central says: no reason is that we have it."""
        before, self.refusal = self.refusal, nameless(reason, message) if reason else None
        if self.refusal is not None and (before is None or before.reason != reason):
            log.critical("name.refused", reason=reason, message=self.refusal.line(), installation=self.installation)
        elif self.refusal is None and before is not None:
            log.warning("name.given", message="this installation has its host's name at central now")

    def answered(self, answer: Answer) -> None:
        """Take note of central's answer to a record that only who has the name may make."""
        if answer.get("reason") in NAMELESS:
            self.heard(str(answer["reason"]), str(answer.get("message")))
        elif answer.get("appended"):
            self.heard("", "")
