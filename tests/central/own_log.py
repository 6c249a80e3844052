"""A log without a process around it: a store on a database of the test's own, hosts that append to it, leaves and checkpoints."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from sqlalchemy import select

from prism_vault_agent.audit.event import Chain, new_id
from prism_vault_agent.central.access.identity import Identity
from prism_vault_agent.central.access.policy import Policies, Policy, Rule
from prism_vault_agent.central.log.append import append
from prism_vault_agent.central.log.incoming import read
from prism_vault_agent.central.log.sequencer import Tree, grow, publish
from prism_vault_agent.central.log.store import Store
from prism_vault_agent.central.storage.engines import migrate, reading_engine, writing_engine
from prism_vault_agent.proof.keys import SigningKey
from prism_vault_agent.proof.merkle import Frontier
from prism_vault_agent.proof.note import Checkpoint, seal
from tests.central.host import fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.central.log.answer import Answer
    from prism_vault_agent.central.log.transaction import Transaction
    from tests.support.postgres import PostgresServer

EVERY = frozenset({"*"})
ALLOW = [Rule("*", "*", EVERY, EVERY, EVERY, EVERY)]
KEY = SigningKey.from_seed("test/central", bytes(32))


def operator(*projects: str) -> Identity:
    """Return an operator of these projects."""
    return Identity("ops", "operator", "", frozenset(projects))


class Databases:
    """Makes databases that are migrated and without rows: each is a copy of one, since migrating takes longer."""

    def __init__(self, directory: Path, server: PostgresServer | None) -> None:
        self.server = server
        self.directory = directory
        self._made = 0
        if server is None:
            migrate(str(directory / "empty" / "audit.db"))
        else:
            server.create("empty")
            migrate(server.url(database="empty"), server.url("postgres", "empty"))

    @property
    def kind(self) -> str:
        """Say which kind they are."""
        return "sqlite" if self.server is None else "postgresql"

    def new(self) -> str:
        """Return the path or the service's URL of a new one."""
        self._made += 1
        if self.server is None:
            path = self.directory / f"log{self._made}" / "audit.db"
            path.parent.mkdir(mode=0o700)
            shutil.copy(self.directory / "empty" / "audit.db", path)
            return str(path)
        name = f"log{self._made}"
        self.server.create(name, template="empty")
        return self.server.url(database=name)

    def bare(self) -> str:
        """Return the service's URL of a new PostgreSQL database without tables."""
        assert self.server is not None
        self._made += 1
        self.server.create(f"log{self._made}")
        return self.server.url(database=f"log{self._made}")

    def copy(self, database: str) -> str:
        """Return the path or the service's URL of a copy of a database, to which nobody else may be connected."""
        self._made += 1
        name = f"log{self._made}"
        if self.server is None:
            path = self.directory / name / "audit.db"
            path.parent.mkdir(mode=0o700)
            with contextlib.closing(sqlite3.connect(database)) as source, contextlib.closing(sqlite3.connect(path)) as copy:
                source.backup(copy)
            path.chmod(0o600)
            return str(path)
        self.server.create(name, template=database.rpartition("/")[2])
        return self.server.url(database=name)

    def owner(self, database: str) -> str:
        """Return the URL of the administrator of a PostgreSQL database, else nothing."""
        return "" if self.server is None else self.server.url("postgres", database.rpartition("/")[2])


class OwnLog:
    """A store on ``database``, and the chains of hosts that append through it; :meth:`sequence` is central's sequencer."""

    def __init__(self, database: str, rules: list[Rule] | None = None) -> None:
        self.database = database
        self.store = Store(writing_engine(database))
        self.readers = reading_engine(database)
        self.chains: dict[str, Chain] = {}
        self.policies = Policies(0, tuple(Policy("test", 0, rule) for rule in (ALLOW if rules is None else rules)))
        self.tree = Tree(Frontier())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.store.close()
        self.readers.dispose()

    def make(self, kind: str, reservation: str, host: str = "server1", **more: Any) -> bytes:
        """Return the next event of a host's chain, which does not move."""
        chain = self.chains.setdefault(host, Chain(host, new_id()))
        return chain.seal(fields(kind, reservation, **more))

    def send(self, body: bytes, host: str = "server1") -> Answer:
        """Append an event as the agent of ``host``; its chain moves if the event is taken for the first time."""
        event = read(body)
        identity = Identity(host, "agent", host, EVERY)
        results: list[Any] = self.store.run([partial(append, identity=identity, policies=self.policies, events=[event])])
        answer = cast("Answer", results[0][0])
        if answer.appended and event.seq == self.chains[host].seq + 1:
            self.chains[host].accept(body)
        return answer

    def render(self, host: str = "server1", *, ending: str = "success", **more: Any) -> str:
        """Append a reservation and what ended it, and return its id."""
        reservation = new_id()
        for kind in ("reserved", ending) if ending else ("reserved",):
            assert self.send(self.make(kind, reservation, host, **more), host).appended
        return reservation

    def sequence(self) -> None:
        """Give every event its leaf, and publish a checkpoint."""
        (tree,) = self.store.run([partial(grow, tree=self.tree)])
        self.tree = cast("Tree", tree)
        checkpoint = Checkpoint(KEY.verifying_key.name, self.tree.frontier.size, self.tree.frontier.root())
        note = seal(checkpoint.text(), KEY.verifying_key, KEY.sign(checkpoint.text().encode()))
        self.store.run([partial(publish, checkpoint=checkpoint, note=note, floor=self.tree.floor)])

    def rows(self, *columns: Any) -> list[Any]:
        """Return the columns of every row, in the order of the first."""
        with self.readers.connect() as connection:
            return list(connection.execute(select(*columns).order_by(columns[0])).all())


class Direct:
    """A writer without a thread of its own: it does each work when it is asked to."""

    def __init__(self, log: OwnLog) -> None:
        self._log = log

    async def do(self, work: Callable[[Transaction], object]) -> Any:
        """Do it, and return what it returned."""
        return self._log.store.run([work])[0]
