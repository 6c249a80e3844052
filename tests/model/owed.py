"""What is to be taken back, by when, and while whose service that time runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.model.configuration import GRACE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.model.seen import Out
    from tests.model.world import World

# In which, of uninterrupted service, a poll notices, and what nobody holds is given back.
NOTICED: Final = 200.0
# In which files are gone, and processes have ended.
SOON: Final = GRACE + 3.0


@dataclass(eq=False)
class Owed:
    """Something that is to be taken back within ``limit`` seconds in which all that ``needs`` served without a break.

    ``meant`` tells whether it is that. ``lasting``: a crash of the agent does not let it be forgotten.
    """

    what: str
    meant: Callable[[Out], bool]
    needs: Callable[[World], bool]
    limit: float
    lasting: bool = True
    served: float = 0.0
    ready: bool = False


def running(world: World) -> bool:
    """Tell whether an agent runs."""
    return world.loop is not None


def connected(world: World) -> bool:
    """Tell whether it hears central."""
    return world.parts is not None and not world.central.away and world.parts.signals.connected


def serving(world: World) -> bool:
    """Tell whether it is logged in at a provider that answers."""
    provider = world.provider
    troubled = provider.away or provider.refusing or provider.losing
    return world.parts is not None and not troubled and world.parts.session.state == "logged_in"
