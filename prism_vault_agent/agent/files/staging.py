"""The agent's two adapters of a render to files: a provider whose worker writes them unseen, a sink that makes them visible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prism_vault_agent.agent.files import rendered
from prism_vault_agent.agent.plain import flat
from prism_vault_agent.agent.release import ask, logged_in, wants
from prism_vault_agent.model import Lease, Receipt, Render, Reservation, Resolution
from prism_vault_agent.sink.generation import Staged, hidden
from prism_vault_agent.sink.record import Written

if TYPE_CHECKING:
    from prism_vault_agent.agent.files.files import Files
    from prism_vault_agent.agent.files.together import Together
    from prism_vault_agent.agent.release import Reading
    from prism_vault_agent.worker.messages import Message


@dataclass(slots=True)
class FileProvider:
    """Reads the secrets of one scope in a worker, which writes its files where nobody sees them; ``together`` with others."""

    reading: Reading
    files: Files
    together: Together | None
    number: int
    deadline: float

    async def resolve(self, reservation: Reservation) -> Resolution:
        """Read every binding and stage every file, all or nothing: what a worker has staged that was killed is removed, too."""
        unseen = hidden(reservation.grant.scopes[0].name, reservation.id)
        try:
            return await logged_in(self.reading.session, self.deadline, lambda token: self._stage(reservation, token, unseen))
        except BaseException:
            self.files.discard(unseen)
            raise

    async def _stage(self, reservation: Reservation, token: str, unseen: str) -> Resolution:
        grant = reservation.grant
        scope = grant.scopes[0]
        job = {
            "scope": scope.name,
            "unseen": unseen,
            "files": [flat(file) for file in scope.files],
            "told": rendered.told(reservation, self.number),
        }
        answer = await self.together.stage({**job, **wants(grant)}, token, self.deadline) if self.together else None
        if answer is None:
            answer = await self._alone(reservation, job, token)
        leases = tuple(Lease(**lease) for lease in answer["leases"])
        self.reading.mounts.known.update(answer["mounts"])
        self.reading.mounts.advance(grant, leases)
        staged = Staged(unseen, [Written(**file) for file in answer["staged"]["files"]])
        return Resolution(reservation, tuple(answer["names"]), leases, staged)

    async def _alone(self, reservation: Reservation, job: Message, token: str) -> Message:
        place = self.files.place()
        job = {**job, "do": "stage", "place": place.path, "helper": self.files.helper}
        worker, answer, _ = await ask(self.reading, reservation, job, token, deadline=self.deadline, passed=place.descriptor)
        worker.end()
        return answer

    def drop(self, resolution: Resolution) -> None:
        """Remove what was staged."""
        self.files.discard(held(resolution).name)


@dataclass(slots=True)
class FileSink:
    """Makes the staged generation visible, unless a revocation or a clear came that means it; ``quiet``: nobody is told of it."""

    files: Files
    host: str
    begun: tuple[int, int, int]
    quiet: bool = False

    def check(self) -> None:
        """Raise where the directory is another one by now."""
        self.files.place()

    async def deliver(self, receipt: Receipt) -> Render:
        """Switch."""
        resolution = receipt.resolution
        render = Render(resolution.reservation, resolution.names, resolution.leases)
        self.files.under_way.allowed(self.host, render, self.begun)
        return self.files.publish(receipt, held(resolution), self.begun[0], quiet=self.quiet).render


def held(resolution: Resolution) -> Staged:
    """Return what a resolution of ours has staged."""
    assert isinstance(resolution.held, Staged)
    return resolution.held
