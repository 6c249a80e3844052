"""The ends of rendered files, noted beside them before they go: an agent that is killed just then leaves them to the next one.

A note is a file of its own, ``.ended/`` and the reservation's id, in the directory of the files, with which it would be gone.
JSON without values, mode 0600. It stays until the end can no longer be lost. Where a generation is replaced by the next one, its
note is its own record (see ``sink/record.py``) under this name: nothing has to be written.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, Final

import structlog

from prism_vault_agent.agent import reservations
from prism_vault_agent.sink import linux, record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prism_vault_agent.model import Render, Reservation

log = structlog.get_logger()

ENDED: Final = ".ended"
# Why a generation ends whose place the next one takes.
REPLACED: Final = "rotated"
LARGEST: Final = 1024 * 1024


class Ends:
    """The notes in the directory ``place``, once there is one."""

    def __init__(self) -> None:
        self.place = -1

    @contextlib.contextmanager
    def coming(self, render: Render | None, reason: str, signal: int | None = None) -> Iterator[None]:
        """Note that a release, if it is one, ends within the ``with``; where that raises, it has not ended."""
        if render is not None:
            self.note(render.reservation, reason, signal)
        with self._unless_it_fails(render):
            yield

    @contextlib.contextmanager
    def replacing(self, render: Render | None) -> Iterator[None]:
        """Note, as :meth:`coming` does, that the next generation takes the place of the visible one, if that is one."""
        if render is not None and not self._has_its_record(render.reservation):
            self.note(render.reservation, REPLACED)
        with self._unless_it_fails(render):
            yield

    @contextlib.contextmanager
    def _unless_it_fails(self, render: Render | None) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if render is not None:
                self.forget(render.reservation.id)
            raise

    def _has_its_record(self, reservation: Reservation) -> bool:
        """Give the record of the visible generation the name of a note; tell whether it has that now."""
        scope, at = reservation.grant.scopes[0].name, self.place
        try:
            os.link(f"{scope}/{record.NAME}", f"{ENDED}/{reservation.id}", src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
        except OSError:
            return False
        return True

    def note(self, reservation: Reservation, reason: str, signal: int | None = None) -> None:
        """Note that a release is about to end. Where that fails it ends all the same: clearing waits for nothing."""
        told = {"reason": reason, "signal": signal, **reservations.plain(reservation)}
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(ENDED, 0o700, dir_fd=self.place)
            descriptor = linux.open_below(self.place, f"{ENDED}/{reservation.id}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(told).encode())
        except OSError as error:
            log.error("files.end_not_noted", errno=error.errno, audit_id=reservation.audit_id)

    def forget(self, reservation: str) -> None:
        """Forget an end that can no longer be lost, or that did not come."""
        if self.place >= 0:
            with contextlib.suppress(OSError):
                os.unlink(f"{ENDED}/{reservation}", dir_fd=self.place)

    def left(self) -> Iterator[tuple[Reservation, str, int | None]]:
        """Iterate over what an earlier agent noted: of what, why, and for which signal. What is not whole is forgotten."""
        try:
            names = os.listdir(f"/proc/self/fd/{self.place}/{ENDED}")
        except OSError:
            return
        for name in names:
            try:
                with os.fdopen(linux.open_below(self.place, f"{ENDED}/{name}", os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                    told: dict[str, Any] = json.loads(file.read(LARGEST))
                if "told" in told:
                    told = {"reason": REPLACED, "signal": None, **told["told"]}
                yield reservations.recall(told), str(told["reason"]), told["signal"]
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                self.forget(name)
