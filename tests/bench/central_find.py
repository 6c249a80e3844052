"""What a question costs over a large log: ``python -m tests.bench.central_find [ROWS [DIRECTORY [DATABASE...]]]``.

Without words: 10,000,000 rows, in the place of temporary files, in sqlite and then in postgresql. Each filter is asked for what
many rows have, its first page and one from the middle of the log on, for the newest rows, and for what only the last row has;
pages of 100 rows, in milliseconds, median and slowest of nine, in this process. The floor is a look for one row by its primary
key in the same run. Behind each question stands what the database's plan goes by. The log is made once for each database and
removed; 10,000,000 rows take about 12 GB.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.audit.target import Target
from prism_vault_agent.central.log.find import find, head
from prism_vault_agent.central.log.follow import follow, newest
from prism_vault_agent.central.log.orders import Order, place
from prism_vault_agent.central.log.purge import Selection
from prism_vault_agent.central.log.purge import find as doomed
from prism_vault_agent.central.log.question import FILTERS, Question
from prism_vault_agent.central.log.releases import Revocations
from prism_vault_agent.central.log.standing import standing
from prism_vault_agent.central.log.sweep import Sweeper
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.engines import migrate, reading_engine
from tests.bench.stand import percentile
from tests.central.asked import append_rare, common
from tests.central.own_log import KEY, OwnLog, operator
from tests.support.bulk import BEGAN, double, fill
from tests.support.plans import explaining, in_words, recorded
from tests.support.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

ROUNDS = 9
MADE_ROW_BY_ROW = 400_000
PLACES = (12, 11, 10, 9, 7)
# The log is made, not kept: the server need not write twice what it is given.
IN_A_HURRY = {
    **dict.fromkeys(("fsync", "full_page_writes", "autovacuum", "synchronous_commit"), "off"),
    "shared_buffers": "512MB",
    "max_wal_size": "512MB",
    "maintenance_work_mem": "128MB",
}


def main(rows: str = "10000000", directory: str | None = None, *kinds: str) -> None:
    """Make the log in each database, and ask it."""
    for kind in kinds or ("sqlite", "postgresql"):
        with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as path, contextlib.ExitStack() as stack:
            database, owner = str(Path(path) / "log" / "audit.db"), ""
            if kind == "postgresql":
                server = PostgresServer(Path(path))
                server.settings = IN_A_HURRY
                stack.enter_context(server)
                database, owner = server.url(), server.owner_url
            migrate(database, owner)
            _made(database, owner, int(rows))


def _made(database: str, owner: str, rows: int) -> None:
    begun = time.perf_counter()
    making = multiprocessing.get_context("spawn").Process(target=make, args=(database, owner, rows))
    making.start()
    making.join()
    assert making.exitcode == 0
    engine = reading_engine(database)
    with engine.connect() as connection:
        count = connection.execute(select(schema.event.c.n).order_by(schema.event.c.n.desc()).limit(1)).scalar_one()
    engine.dispose()
    print(f"{database.partition(':')[0] if owner else 'sqlite'}: {count:,} rows, made in {time.perf_counter() - begun:,.0f} s")
    ask(database, count)


def make(database: str, owner: str, rows: int) -> None:
    """Put at least so many rows into a migrated database, row by row as far as a few, and copies of them."""
    count = rows
    places: list[int] = []
    while count > MADE_ROW_BY_ROW and len(places) < len(PLACES):
        places.append(PLACES[len(places)])
        count = -(-count // 2)
    fill(database, owner, count, KEY)
    for at in places:
        double(database, owner, count, at)
        count *= 2


def ask(database: str, rows: int) -> None:
    """Ask, and print what it costs."""
    engine = reading_engine(database, 1)
    with OwnLog(database) as log:
        rare = append_rare(log)
        order = Order(new_id(), "revocation", "ops", Target(frozenset({"project1"}), scope="scope7"), emergency=False, reason="")
        (placed,) = log.store.run([partial(place, order=order)])
    many, everything, one = common(rows), operator("*"), operator("project3")

    def page(who: Any = everything, **asked: Any) -> Callable[[Engine], object]:
        return lambda engine: find(engine, who, Question(**asked))

    def row(engine: Engine) -> object:
        with engine.connect() as connection:
            return connection.execute(select(schema.event.c.n).where(schema.event.c.n == rows // 3)).scalar_one()

    floor = percentile(_took(engine, row), 0.5)
    print(f"a row by its primary key: {floor:.2f} ms")
    print(f"{'question':34}{'median':>10}{'slowest':>10}{'floors':>8}  by")
    asked = {f"nothing, {how}": page(**given) for how, given in _forms(rows).items()}
    for name in FILTERS:
        if name in many:
            asked |= {f"{name}, {how}": page(**{name: many[name]}, **given) for how, given in _forms(rows).items()}
        asked[f"{name}, the last row"] = page(**{name: rare[name]})
    asked |= {f"one project, {how}": page(one, **given) for how, given in _forms(rows).items()}
    asked |= {f"project and scope, {how}": page(one, scope="scope7", **given) for how, given in _forms(rows).items()}
    asked |= {
        "host and purpose": page(host="server7", purpose="purpose2"),
        "scope in a time": page(scope="scope7", since=many["since"], until=many["until"]),
        "audit/log, first": lambda engine: follow(engine, everything, 0, 100),
        "audit/log, deep": lambda engine: follow(engine, one, rows // 2, 100),
        "audit/log, newest": lambda engine: newest(engine, one, 100),
        "audit/head": lambda engine: head(engine, "server7"),
        "readiness": standing,
        "what a revocation left": lambda engine: Revocations(engine, lambda _: []).evidence(everything, placed.signal),  # type: ignore[attr-defined]
        "sweep, at first": lambda engine: Sweeper(engine, None, 60, print)._expired(),  # type: ignore[arg-type]
        "retention, a look": lambda engine: doomed(engine, Selection(before=BEGAN), 0),
        "purge of a run, a look": lambda engine: doomed(engine, Selection(run_ref="run-7"), 0),
    }
    for what, question in asked.items():
        took = _took(engine, question)
        median = percentile(took, 0.5)
        print(f"{what:34}{median:10.2f}{max(took):10.2f}{median / floor:8.1f}  {_by(database, engine, question)}", flush=True)
    engine.dispose()


def _forms(rows: int) -> dict[str, dict[str, int]]:
    return {"first": {}, "deep": {"after": rows // 2}, "newest": {"last": 100}}


def _took(engine: Engine, question: Callable[[Engine], object]) -> list[float]:
    """Return the milliseconds of each round; a question of seconds has fewer."""
    took: list[float] = []
    while len(took) < ROUNDS and sum(took) < 1e4:
        begun = time.perf_counter()
        question(engine)
        took.append(1e3 * (time.perf_counter() - begun))
    return took


def _by(database: str, engine: Engine, question: Callable[[Engine], object]) -> str:
    with recorded(engine) as statements:
        question(engine)
    with explaining(database) as explain:
        return in_words([step for statement in statements for step in explain(statement)])


if __name__ == "__main__":
    main(*sys.argv[1:])
