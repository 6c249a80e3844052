"""Scopes that are rendered at one moment, staged together: one worker for several, which reads each path once for all of them.

Every scope has its own reservation, which is on the log before the worker is asked, its own answer, and its own success.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prism_vault_agent.errors import PrismVaultError, ProviderUnavailable, from_plain, to_plain

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from typing import Self

    from prism_vault_agent.agent.files.files import Files
    from prism_vault_agent.agent.release import Reading
    from prism_vault_agent.worker.messages import Message

# So many scopes' values are in one process at the most, for well under a second.
MOST: Final = 32
# And so many variables and files of them: a worker's message is bounded, and what is much is better shared by several.
LARGEST: Final = 2_000


@dataclass(slots=True, eq=False)
class _Waiting:
    """One scope: what is to be staged, and who waits for the answer; None where it is to be staged by itself."""

    job: Message
    token: str
    deadline: float
    answer: asyncio.Future[Message | None]


class Together:
    """Takes what is to be staged, and has it done with whatever else was asked for in the same turn of the loop."""

    def __init__(self, reading: Reading, files: Files) -> None:
        """Stage files of ``files`` by the workers of ``reading``."""
        self._reading = reading
        self._files = files
        self._waiting: list[_Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stage(self, job: Message, token: str, deadline: float) -> Message | None:
        """Return the answer for one scope's ``job``, or None where that is to be staged by itself. Raises its error."""
        waiting = _Waiting(job, token, deadline, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            self._begin(self._soon())
        return await waiting.answer

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _soon(self) -> None:
        """Begin with all that waits once this turn of the loop is over, which central's answer to many reservations began."""
        await asyncio.sleep(0)
        waiting, self._waiting = self._waiting, []
        for token in {each.token for each in waiting}:
            same = [each for each in waiting if each.token == token]
            for several in _portions(same):
                self._begin(self._stage(several))

    async def _stage(self, several: list[_Waiting]) -> None:
        """Have several staged, and tell each what became of it; what nobody waits for any more is removed."""
        try:
            answers = await self._ask(several) if len(several) > 1 else [None]
        except Exception as error:  # noqa: BLE001 - whatever it is, each that waits has to know
            for each in several:
                if not each.answer.done():
                    each.answer.set_exception(from_plain(to_plain(error)) if isinstance(error, PrismVaultError) else error)
            return
        except asyncio.CancelledError:
            for each in several:
                each.answer.cancel()
            raise
        for each, answer in zip(several, answers, strict=True):
            if each.answer.done():
                if answer is not None and "staged" in answer:
                    self._files.discard(answer["staged"]["name"])
            elif answer is not None and "error" in answer:
                each.answer.set_exception(from_plain(answer["error"]))
            else:
                each.answer.set_result(answer)

    async def _ask(self, several: list[_Waiting]) -> list[Message | None]:
        deadline = min(each.deadline for each in several)
        place = self._files.place()
        worker = await self._reading.workers.take(deadline)
        try:
            answer = await worker.ask(
                {
                    "do": "stage_each",
                    "each": [each.job for each in several],
                    "token": several[0].token,
                    "mounts": self._reading.mounts.known,
                    "place": place.path,
                    "helper": self._files.helper,
                    "deadline": deadline,
                },
                place.descriptor,
            )
        except ProviderUnavailable as error:
            if error.reason != "worker_lost":
                self._reading.session.lost(error)
            raise
        finally:
            worker.end()
        each: list[Message | None] = [None] * len(several) if answer.get("alone") else answer["each"]
        return each


def _portions(waiting: list[_Waiting]) -> Iterator[list[_Waiting]]:
    """Yield them in portions that one worker takes."""
    portion: list[_Waiting] = []
    size = 0
    for each in waiting:
        its = len(each.job["bindings"]) + len(each.job["files"])
        if portion and (len(portion) == MOST or size + its > LARGEST):
            yield portion
            portion, size = [], 0
        portion.append(each)
        size += its
    yield portion
