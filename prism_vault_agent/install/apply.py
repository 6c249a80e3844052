"""``install systemd`` and its ``--undo``: all of it or nothing, and never over a file that somebody else wrote."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prism_vault_agent.errors import CannotCreate, Unavailable
from prism_vault_agent.install import manifest
from prism_vault_agent.install.relays import Relays, of
from prism_vault_agent.install.system import System
from prism_vault_agent.install.units import directories, part_of, users

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from prism_vault_agent.install.manifest import Manifest
    from prism_vault_agent.install.units import Part, Shipped

SYSUSERS: Final = "/etc/sysusers.d/"


@dataclass(frozen=True, slots=True)
class Installer:
    """Works on a system and tells each thing that it does; with ``dry`` it tells what it would do."""

    system: System
    tell: Callable[[str], None]
    dry: bool = False

    def install(self, files: list[Shipped], parts: Collection[Part]) -> bool:
        """Put files of ``parts`` in place that are not there yet; what was put there before and is not of them is taken away.

        Those that somebody changed are named and left. Returns whether something changes. Raises ``CannotCreate`` where
        something fails, with everything as it was before.
        """
        known = manifest.read(self.system.root)
        gone = [path for path in known.files if part_of(path) in parts and path not in {file.path for file in files}]
        wanted = []
        for file in files:
            there = self.system.content(file.path)
            if there is None or (there != file.content and known.ours(file.path, there)):
                wanted.append(file)
            elif there != file.content:
                self.tell(f"kept {file.path}: it is not as it was installed")
        if self.dry:
            for file in wanted:
                self.tell(f"would write {file.path}")
            for path in gone:
                self._take(path, known)
        elif wanted or gone:
            self._write(wanted, gone, known)
        return bool(wanted or gone)

    def _write(self, wanted: list[Shipped], gone: list[str], known: Manifest) -> None:
        root = self.system.root
        before = {path: self.system.content(path) for path in (*(file.path for file in wanted), *gone)}
        earlier = manifest.read(root)
        made = [path for file in wanted for path in self.system.missing(os.path.dirname(file.path))]
        made += [path for file in wanted if file.kind == ".tmpfiles" for path in directories(file.content)]
        made = [path for path in dict.fromkeys(made) if not os.path.exists(root + path)]
        try:
            # First, so that whatever ends us leaves word of it.
            for file in wanted:
                known.add(file.path, file.content)
            known.directories += made
            manifest.write(root, known)
            for file in wanted:
                os.makedirs(os.path.dirname(root + file.path), 0o755, exist_ok=True)
                manifest.put(root + file.path, file.content)
                self.tell(f"wrote {file.path}")
            for path in gone:
                self._take(path, known)
            for words in self.system.commands(wanted):
                self.system.run(*words)
                self.tell(f"ran {' '.join(words)}")
            for file in wanted:
                known.settle(file.path, file.content)
            manifest.write(root, known)
        except BaseException as error:
            self._back(before, made, earlier)
            if isinstance(error, OSError):
                told = f"cannot write {error.filename or root}: {error.strerror}"
                raise CannotCreate(told, mend="mend that, and install again; nothing was changed") from None
            raise

    def _back(self, before: dict[str, bytes | None], made: list[str], earlier: Manifest) -> None:
        """Have everything as it was; what cannot be is still in the manifest."""
        with contextlib.suppress(OSError, CannotCreate):
            for path, content in before.items():
                if content is not None:
                    manifest.put(self.system.root + path, content)
                elif self.system.content(path) is not None:
                    os.unlink(self.system.root + path)
            self._remove_empty(made)
            manifest.write(self.system.root, earlier)
            self.system.reload()

    def undo(self, parts: Collection[Part]) -> None:
        """Take away what was put in place for these parts, relays too; what somebody changed since is named and left.

        Raises ``Unavailable`` while a unit of them is in use, and ``CannotCreate`` where something fails.
        """
        root, known = self.system.root, manifest.read(self.system.root)
        paths = [path for path in known.files if part_of(path) in parts]
        relays = Relays(self.system, self.tell, self.dry)
        enabled = known.relays if "agent" in parts else []
        if not paths and not enabled:
            self.tell("nothing to do")
            return
        if used := [unit for unit in self.system.in_use(paths) if not of(unit, enabled)]:
            raise Unavailable(f"{used[0]} is in use", mend=f"systemctl disable --now {' '.join(used)}", reason="in_use")
        if enabled:
            relays.undo()
            known.relays = []
        made = [name for path in paths for name in users(self.system.content(path) or b"") if path.startswith(SYSUSERS)]
        try:
            for path in paths:
                self._take(path, known)
            if not known.files and not self.dry:
                self._remove_empty(known.directories)
                known.directories = []
        except OSError as error:
            raise CannotCreate(f"cannot remove {error.filename}: {error.strerror}", mend="mend that, and undo again") from None
        finally:
            if not self.dry:
                manifest.write(root, known)
        if not self.dry:
            self.system.reload()
        if made:
            self.tell(f"kept the users and groups {', '.join(made)}: files may be theirs")

    def _take(self, path: str, known: Manifest) -> None:
        """Take away what we put at a path, and forget it."""
        there = self.system.content(path)
        if there is not None and not known.ours(path, there):
            self.tell(f"kept {path}: it is not as it was installed")
        elif there is not None:
            self._unlink(path)
        if not self.dry:
            del known.files[path]

    def _unlink(self, path: str) -> None:
        if not self.dry:
            os.unlink(self.system.root + path)
        self.tell(f"would remove {path}" if self.dry else f"removed {path}")

    def _remove_empty(self, made: Collection[str]) -> None:
        """Remove directories that we made, unless something is in them."""
        for path in sorted(made, key=len, reverse=True):
            with contextlib.suppress(OSError):
                os.rmdir(self.system.root + path)
                self.tell(f"removed {path}")
