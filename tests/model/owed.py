"""What is to be taken back, by when, and while whose service that time runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.model.configuration import GRACE, leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tests.model.host import Client
    from tests.model.seen import Out
    from tests.model.world import World

# In which, of uninterrupted service, a poll notices, and in which what nobody holds is given back, which may have failed before.
NOTICED: Final = 200.0
GIVEN_BACK: Final = 85.0
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


def left(out: Out, paths: Collection[str] | None) -> bool:
    """Tell whether it is a process that is left alone when these paths are taken back (None: all that it has)."""
    return out.is_process and leaves(out.scopes, paths)


@dataclass
class Debts:
    """What is to be taken back in one world. ``spared`` are processes that nothing ends but what their scopes say."""

    world: World
    owed: list[Owed] = field(default_factory=list)
    spared: set[Client] = field(default_factory=set)

    def waited(self, seconds: float) -> None:
        """Take note that time has passed as the world is now."""
        for owed in self.owed:
            ready = owed.needs(self.world)
            owed.served = owed.served + seconds if ready and owed.ready else 0.0
            owed.ready = ready

    def crashed(self) -> None:
        """Take note that the agent has ended."""
        self.owed = [owed for owed in self.owed if owed.lasting]

    def revoked(
        self, meant: Callable[[Out], bool], paths: Collection[str] | None, *, central: bool, emergency: bool = False
    ) -> None:
        """Take note of a revocation of what is on central's log by now."""
        known = {row["reservation"] for row in self.world.central.rows}

        def ends(out: Out) -> bool:
            return out.reservation in known and meant(out) and (emergency or not left(out, paths))

        if emergency:
            self.spared.clear()
        needs: Callable[[World], bool] = connected if central else running
        self._owe(Owed("revoked", ends, needs, SOON, lasting=central))

    def withdrawn(self, path: str) -> None:
        """Take note that the newest version does not stand any more."""
        number = len(self.world.provider.kv[path])
        version = self.world.provider.kv[path][number - 1]

        def meant(out: Out) -> bool:
            return not version.stands and out.versions.get(path) == number and not left(out, {path})

        self._owe(Owed("withdrawn", meant, serving, NOTICED))

    def reloaded(self) -> None:
        """Take note of another configuration: what it does not give any more is taken back."""
        configuration = self.world.configuration
        self.owed = [owed for owed in self.owed if owed.what not in ("removed", "narrowed")]

        def removed(out: Out) -> bool:
            return any(map(configuration.lacks, out.scopes))

        def narrowed(out: Out) -> bool:
            names = configuration.names(out.scopes)
            return names is not None and not out.names <= names and not left(out, None)

        self._owe(Owed("removed", removed, running, SOON))
        self._owe(Owed("narrowed", lambda out: out.is_process and narrowed(out), running, SOON))
        self._owe(Owed("narrowed", narrowed, serving, NOTICED))
        self.spared -= {each for each in self.spared if any(map(configuration.lacks, each.scopes))}

    def _owe(self, owed: Owed) -> None:
        owed.ready = owed.needs(self.world)
        self.owed.append(owed)

    def taken_back(self, out: list[Out]) -> None:
        """G6: what was to be taken back is."""
        for owed in [each for each in self.owed if each.served > each.limit]:
            left = [each for each in out if owed.meant(each)]
            assert not left, f"G6: {owed.what}, {owed.served:.0f} s ago, and still there: {left}"
            self.owed.remove(owed)
