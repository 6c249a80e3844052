"""Central: its real log on a database of its own, and what an agent reaches of it, with outages and lost answers."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.audit.answers import Answer, results
from prism_vault_agent.audit.event import new_id
from prism_vault_agent.audit.stream import Ahead, Heard
from prism_vault_agent.audit.target import Target
from prism_vault_agent.central.access.identity import Identity
from prism_vault_agent.central.access.policy import Policies, Policy, Rule
from prism_vault_agent.central.log import feed
from prism_vault_agent.central.log.append import abandon, append
from prism_vault_agent.central.log.incoming import read
from prism_vault_agent.central.log.orders import Order, place
from prism_vault_agent.central.log.store import Store
from prism_vault_agent.central.storage.engines import migrate, reading_engine, writing_engine
from prism_vault_agent.errors import AuditUnavailable
from tests.model.configuration import BINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.model.clock import Clock

HOST: Final = "server1"
EVERY: Final = frozenset(("*",))
LATENCY: Final = (0.002, 0.02)
HEARTBEAT: Final = 15.0
LIFETIME: Final = 60.0
ENDS: Final = ("success", "denied", "failure", "abandoned")


class Central:
    """The service. ``away``, ``losing`` (so many answers) and ``denied`` (scopes) are what goes wrong."""

    def __init__(self, directory: Path, template: Path, clock: Clock) -> None:
        self.clock = clock
        self.away = False
        self.losing = 0
        self.denied: frozenset[str] = frozenset()
        self.rows: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.news = asyncio.Event()
        path = directory / "central" / "audit.db"
        path.parent.mkdir(mode=0o700)
        with closing(sqlite3.connect(template)) as source, closing(sqlite3.connect(path)) as copy:
            source.backup(copy)
        path.chmod(0o600)
        self.store = Store(writing_engine(str(path)))
        self.readers = reading_engine(str(path))
        self._identity = Identity(HOST, "agent", HOST, EVERY)

    def close(self) -> None:
        """Close the database."""
        self.store.close()
        self.readers.dispose()

    def append(self, bodies: Sequence[bytes]) -> list[dict[str, Any]]:
        """Append a batch of the agent's."""
        allowed = frozenset(BINDS.keys() - self.denied)
        policies = Policies(0, (Policy("model", 0, Rule("*", "*", allowed, EVERY, EVERY, EVERY)),))
        events = [read(body) for body in bodies]
        work = partial(append, identity=self._identity, policies=policies, events=events)
        (answers,) = self.store.run([work], [event.reservation for event in events])
        self._look()
        return [answer.plain() for answer in answers]  # type: ignore[attr-defined]  # what ``append`` returns

    def order(self, kind: Any, target: dict[str, Any], *, emergency: bool = False) -> None:
        """Order a rotation or a revocation of all projects."""
        order = Order(new_id(), kind, "ops", Target.parse(target, ["*"]), emergency, "model")
        self.store.run([partial(place, order=order)])
        self._look()
        self._wake()

    def lose(self) -> None:
        """Be away from now on: who follows the signals is cut off."""
        self.away = True
        self._wake()

    def forget(self) -> None:
        """Take note that who followed the signals has gone."""
        self.news = asyncio.Event()

    def _wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def sweep(self) -> None:
        """End the reservations whose outcome has not come in their time."""
        late = (self.clock.wall - LIFETIME) * 1000
        if open_ := [name for name, row in self.open().items() if row["at"] < late]:
            self.store.run([partial(abandon, reservations=open_)], open_)
            self._look()

    def open(self) -> dict[str, dict[str, Any]]:
        """Return the rows of the reservations that have not ended."""
        found = {row["reservation"]: row for row in self.rows if row["kind"] == "reserved"}
        for row in self.rows:
            if row["kind"] in ENDS:
                found.pop(row["reservation"], None)
        return found

    def reserved(self) -> list[dict[str, Any]]:
        """Return the rows of the reservations that their agent has not ended; central may have, whose agent does not know it."""
        over = {row["reservation"] for row in self.rows if row["kind"] in ("success", "denied", "failure")}
        return [row for row in self.rows if row["kind"] == "reserved" and row["reservation"] not in over]

    def of(self, reservation: str) -> list[str]:
        """Return the kinds of a reservation's rows, in order."""
        return [row["kind"] for row in self.rows if row["reservation"] == reservation]

    def _look(self) -> None:
        with self.readers.connect() as connection:
            found = connection.exec_driver_sql("SELECT n, body FROM event ORDER BY n").all()
        for _, body in found[len(self.rows) :]:
            self.texts.append(bytes(body).decode())
            self.rows.append(json.loads(body))


class CentralHttp:
    """What the agent sends through."""

    def __init__(self, central: Central) -> None:
        self._central = central

    async def post(self, bodies: Sequence[bytes]) -> list[Answer]:
        """Append a batch, whose answer may be lost."""
        await asyncio.sleep(random.uniform(*LATENCY))
        if self._central.away:
            raise AuditUnavailable("central is away", mend="wait")
        content = json.dumps({"results": self._central.append(bodies)}).encode()
        await asyncio.sleep(random.uniform(*LATENCY))
        if self._central.losing:
            self._central.losing -= 1
            raise AuditUnavailable("the answer was lost", mend="wait")
        return results(200, content, bodies)

    async def get(self, _path: str) -> tuple[int, bytes]:
        """Answer nothing: the agent believes central."""
        raise AuditUnavailable("there is nothing", mend="wait")

    async def close(self) -> None:
        """Do nothing."""


class SignalStream:
    """What the agent hears signals through. ``connected`` is told whether it does."""

    def __init__(self, central: Central) -> None:
        self._central = central

    async def follow(self, position: int | None, epoch: str, heard: Callable[[Heard], None]) -> None:
        """Tell what is behind ``position``, and then what comes, as ``central/http/signals.py`` does."""
        await asyncio.sleep(random.uniform(*LATENCY))
        self._reach()
        newest = feed._newest(self._central.readers)
        if position is None:
            start = feed._start_of(self._central.readers, HOST, bytes.fromhex(epoch))
            position = newest if start is None else start
        elif position > newest:
            raise Ahead(newest)
        heard(Heard(position, "", {}))
        while True:
            self._reach()
            news = self._central.news
            for signal in feed._read(self._central.readers, position):
                position = signal.id
                heard(Heard(signal.id, signal.kind, {**signal.body}))
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await news.wait()
            except TimeoutError:
                continue

    def _reach(self) -> None:
        if self._central.away:
            raise AuditUnavailable("central is away", mend="wait")


def template(directory: Path) -> Path:
    """Return a database without rows, to copy: migrating takes longer."""
    path = directory / "empty" / "audit.db"
    migrate(str(path))
    return path
