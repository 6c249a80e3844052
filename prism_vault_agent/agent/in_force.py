"""The settings in force: whoever acts by them asks each time, since a reload replaces them as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prism_vault_agent.config.settings import Settings


@dataclass(slots=True)
class InForce:
    """Called, it returns ``settings``, which is set to replace them."""

    settings: Settings

    def __call__(self) -> Settings:
        """Return them as they are now."""
        return self.settings
