"""The relays of an agent without a network: those to the servers of its configuration are enabled, and no others of ours."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prism_vault_agent.errors import CannotCreate, ConfigError
from prism_vault_agent.install import manifest
from prism_vault_agent.relay import DIRECTORY, name_of, unit_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from prism_vault_agent.install.system import System

LONGEST: Final = 107  # unix(7)


def wanted(directory: str | None, urls: Collection[str]) -> list[str]:
    """Return the names of the relays that lead to servers; none where the agent's ``directory`` of them is another one.

    Raises ``ConfigError`` for a server whose relay could have no socket.
    """
    names = list(dict.fromkeys(map(name_of, urls))) if directory in (None, DIRECTORY) else []
    for name in names:
        if len(f"{DIRECTORY}/{name}") > LONGEST:
            raise ConfigError(f"{name} is too long for the name of a socket", mend="give the server a shorter name, or --network")
    return names


def of(unit: str, names: Collection[str]) -> bool:
    """Tell whether a unit is one of the relays of these names: its socket, or its service."""
    return unit in {unit_of(name, kind) for name in names for kind in ("socket", "service")}


@dataclass(frozen=True, slots=True)
class Relays:
    """Enables and disables on a system, and tells each; with ``dry`` it tells what it would do."""

    system: System
    tell: Callable[[str], None]
    dry: bool = False

    def settle(self, names: Collection[str]) -> bool:
        """Have relays of these names enabled, and those disabled that were enabled here before and are not among them.

        One that somebody else enabled stays as it is. Returns whether something changes. Raises ``CannotCreate`` where that
        fails; the same again goes on from there.
        """
        known = manifest.read(self.system.root)
        old = [name for name in known.relays if name not in names]
        new = [name for name in names if not self.system.enabled(unit_of(name))]
        for name in old:
            self._disable(name)
        for name in new:
            self._enable(name)
        return bool(old or new)

    def undo(self) -> None:
        """Disable those that were enabled here. Raises like :meth:`settle`."""
        self.settle(())

    def _enable(self, name: str) -> None:
        if not self.dry:
            self._keep(name, there=True)  # first, so that whatever ends us leaves word of it
            try:
                self.system.enable(unit_of(name))
            except CannotCreate as error:
                with contextlib.suppress(CannotCreate):
                    self.system.disable(unit_of(name), unit_of(name, "service"))
                self._keep(name, there=False)
                raise CannotCreate(error.message, mend="mend that, and install again; the units are in place") from None
        self.tell(f"{'would enable' if self.dry else 'enabled'} {unit_of(name)}")

    def _disable(self, name: str) -> None:
        if not self.dry:
            self.system.disable(unit_of(name), unit_of(name, "service"))
            self._keep(name, there=False)
        self.tell(f"{'would disable' if self.dry else 'disabled'} {unit_of(name)}")

    def _keep(self, name: str, *, there: bool) -> None:
        known = manifest.read(self.system.root)
        known.relays = [each for each in known.relays if each != name] + [name] * there
        try:
            manifest.write(self.system.root, known)
        except OSError as error:
            raise CannotCreate(f"cannot write {error.filename}: {error.strerror}", mend="mend that, and try again") from None
