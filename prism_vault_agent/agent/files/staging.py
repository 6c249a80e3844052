"""The agent's two adapters of a render to files: a provider whose worker writes them unseen, a sink that makes them visible."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prism_vault_agent.agent.files import rendered
from prism_vault_agent.agent.release import ask, logged_in
from prism_vault_agent.model import Receipt, Render, Reservation, Resolution
from prism_vault_agent.sink.generation import Staged
from prism_vault_agent.sink.record import Written

if TYPE_CHECKING:
    from prism_vault_agent.agent.files.files import Files
    from prism_vault_agent.agent.release import Reading
    from prism_vault_agent.agent.shared_workers import Taking


@dataclass(slots=True)
class FileProvider:
    """Reads the secrets of one scope in one of ``workers``, which writes its files where nobody sees them."""

    reading: Reading
    files: Files
    workers: Taking
    number: int
    deadline: float

    async def resolve(self, reservation: Reservation) -> Resolution:
        """Read every binding and stage every file, all or nothing."""
        return await logged_in(self.reading.session, self.deadline, lambda token: self._stage(reservation, token))

    async def _stage(self, reservation: Reservation, token: str) -> Resolution:
        grant = reservation.grant
        scope = grant.scopes[0]
        place = self.files.place()
        job = {
            "do": "stage",
            "scope": scope.name,
            "files": [dataclasses.asdict(file) for file in scope.files],
            "told": rendered.told(reservation, self.number),
            "place": place.path,
            "helper": self.files.helper,
        }
        worker, answer, leases = await ask(
            self.reading, reservation, job, token, deadline=self.deadline, passed=place.descriptor, workers=self.workers
        )
        self.workers.done(worker)
        plain = answer["staged"]
        staged = Staged(plain["name"], [Written(**file) for file in plain["files"]], plain["changed"])
        try:
            self.reading.mounts.advance(grant, leases)
        except BaseException:
            self.files.discard(staged)
            raise
        return Resolution(reservation, tuple(answer["names"]), leases, staged)

    def drop(self, resolution: Resolution) -> None:
        """Remove what was staged."""
        self.files.discard(staged_of(resolution))


@dataclass(slots=True)
class FileSink:
    """Makes the staged generation visible, unless a revocation or a clear came that means it."""

    files: Files
    host: str
    begun: tuple[int, int, int]

    def check(self) -> None:
        """Raise where the directory is another one by now."""
        self.files.place()

    async def deliver(self, receipt: Receipt) -> Render:
        """Switch."""
        resolution = receipt.resolution
        render = Render(resolution.reservation, resolution.names, resolution.leases)
        self.files.allowed(self.host, render, self.begun)
        return self.files.publish(receipt, staged_of(resolution), self.begun[0]).render


def staged_of(resolution: Resolution) -> Staged:
    """Return what a resolution of ours has staged."""
    assert isinstance(resolution.held, Staged)
    return resolution.held
