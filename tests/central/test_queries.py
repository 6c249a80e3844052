"""Every question that central asks of its database goes by an index, and looks at a bounded number of rows."""

from __future__ import annotations

import ast
import asyncio
import itertools
import json
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest

from prism_vault_agent.audit.event import Chain, new_id
from prism_vault_agent.audit.target import Target
from prism_vault_agent.central.access import policy_rows, token_rows
from prism_vault_agent.central.access.live import Live
from prism_vault_agent.central.access.permission import SCOPES
from prism_vault_agent.central.access.policy import Rule
from prism_vault_agent.central.log.drop import Doomed, drop
from prism_vault_agent.central.log.feed import Feed
from prism_vault_agent.central.log.find import MOST_LOOKED_AT, find, head
from prism_vault_agent.central.log.follow import follow, newest
from prism_vault_agent.central.log.holding import Sender, leave, renew, take
from prism_vault_agent.central.log.incoming import read
from prism_vault_agent.central.log.orders import Order, Placed, place
from prism_vault_agent.central.log.proofs import NoSuchEvent, Proofs
from prism_vault_agent.central.log.purge import Selection, purge
from prism_vault_agent.central.log.question import FILTERS, Question
from prism_vault_agent.central.log.releases import Revocations
from prism_vault_agent.central.log.retention import Retention
from prism_vault_agent.central.log.standing import standing
from prism_vault_agent.central.log.store import Store
from prism_vault_agent.central.log.sweep import Sweeper
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.engines import writing_engine
from tests.central.asked import append_rare, common
from tests.central.host import fields
from tests.central.own_log import EVERY, KEY, Databases, Direct, OwnLog, operator
from tests.central.owner import Owner
from tests.support.bulk import BEGAN, EVERY_MS, fill
from tests.support.plans import PACKAGE, Statement, explaining, recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prism_vault_agent.central.log.transaction import Transaction

ROWS, SIGNALS = 50_000, 3_000
FORMS: list[dict[str, int]] = [{}, {"after": ROWS // 2}, {"last": 100}]
ALONE_AND_PAIRS = [names for many in (1, 2) for names in itertools.combinations(FILTERS, many)]
# Tables of what operators set, which each replica holds in memory as a whole.
IN_MEMORY = ("policy", "token")
# Statements that look at a table as a whole all the same, and why they may.
KNOWN = {
    "SELECT signal.id \nFROM signal \nWHERE signal.made_at <": ("signal",),  # as many as the reader will be given
    "SELECT id FROM signal WHERE n =": ("signal",),  # an order that is sent again: one person's retry
}


class Large(NamedTuple):
    """A log of many rows, with statistics; ``rare`` has for each filter what only its last row has."""

    database: str
    rare: dict[str, Any]


@pytest.fixture(scope="module", params=["sqlite", "sqlite without statistics", "postgresql"])
def large(request: pytest.FixtureRequest) -> Large:
    """Return one in each database; central's own files of SQLite have no statistics."""
    databases: Databases = request.getfixturevalue(f"{request.param.partition(' ')[0]}_databases")
    database = databases.new()
    fill(database, databases.owner(database), ROWS, KEY)
    with OwnLog(database) as log:
        log.store.run([_crowd, partial(drop, doomed=Doomed(range(1, 1001)), why={"reason": "purged"})])
        rare = append_rare(log)
    owner = Owner(databases, database)
    owner.run("VACUUM" if databases.kind == "sqlite" else "VACUUM ANALYZE")
    if databases.kind == "sqlite":
        owner.run("ANALYZE" if "without" not in request.param else "DELETE FROM sqlite_stat1")
    return Large(database, rare)


def _crowd(transaction: Transaction) -> None:
    """Tell hosts of many things, the first of them a revocation, and have each answered by many."""
    body = json.dumps({"target": {"everything": True}, "projects": ["*"], "by": "ops", "why": ""}).encode()
    for n in range(1, SIGNALS + 1):
        transaction.also(schema.signal, (n, *(("revocation", body, ROWS) if n == 1 else ("rotation", body, n)), n))
        transaction.also(schema.ack, (n // 10 + 1, n, f"server{n % 400}", n))


@pytest.fixture
def log(large: Large) -> Iterator[OwnLog]:
    """Return the log, to be appended to and read."""
    with OwnLog(large.database) as opened:
        yield opened


@pytest.fixture
def statements(log: OwnLog) -> Iterator[list[Statement]]:
    """Return what the database is asked during the test, by what reads and by what writes."""
    writer = writing_engine(log.database)
    log.store.close()
    log.store = Store(writer)
    with recorded(writer, log.readers) as found:
        yield found


def judge(database: str, statements: list[Statement]) -> None:
    """Fail where a statement looks at every row of a table, or at more than a page may."""
    assert statements
    with explaining(database) as explain:
        for statement in {(each.sql, repr(each.values)): each for each in statements}.values():
            known = next((KNOWN[start] for start in KNOWN if statement.sql.startswith(start)), ())
            for step in explain(statement):
                where = f"{step} ({step.rows} rows) in {statement.sql} of {statement.callers[0]}"
                assert not step.whole or step.table in (*IN_MEMORY, *known), where
                assert (step.rows or 0) <= 2 * MOST_LOOKED_AT or step.table in known, where


@pytest.mark.parametrize("names", ALONE_AND_PAIRS, ids="+".join)
def test_the_first_page_has_the_row_that_is_looked_for(large: Large, log: OwnLog, names: tuple[str, ...]):
    """Each filter, and each two, lead to the one row that has them, however many rows are before it."""
    asked = {name: large.rare[name] for name in names}
    found = find(log.readers, operator("*"), Question(**asked, last=1 if names == ("until",) else None)).events

    assert [event["reservation_id"] for event in found] == [large.rare["reservation"]]


@pytest.mark.parametrize("names", [(), *ALONE_AND_PAIRS], ids="+".join)
def test_a_page_goes_by_an_index(large: Large, log: OwnLog, statements: list[Statement], names: tuple[str, ...]):
    """Each filter, and each two, asked for what many rows have and for what one has, by callers of all, one and two projects."""
    many = {**large.rare, **common(ROWS)}
    callers = [operator("*"), operator("project3"), operator("project3", "project5")]
    for form, identity, values in itertools.product(FORMS, callers if len(names) < 2 else callers[:2], (many, large.rare)):
        find(log.readers, identity, Question(**{name: values[name] for name in names}, **form))

    judge(large.database, statements)


def test_everything_else_goes_by_an_index(large: Large, log: OwnLog, statements: list[Statement]):
    """So does whatever else the log and access to it are asked, by callers and by itself: no statement is left out."""
    find(log.readers, operator("project3"), Question(host="server7", since=BEGAN, until=BEGAN + ROWS))
    for identity, first in itertools.product((operator("*"), operator("project3")), (0, ROWS // 2)):
        follow(log.readers, identity, first, 100)
        newest(log.readers, identity, 100)
    head(log.readers, "server7")
    standing(log.readers)
    _append(log)
    _order(log)
    _name(log)
    asyncio.run(_by_itself(log))

    judge(large.database, statements)
    lines = {caller for statement in statements for caller in statement.callers}
    assert [site for site in _sites("log", "access") if not lines.intersection(site)] == []


def _sites(*places: str) -> Iterator[set[tuple[str, int]]]:
    """Yield the lines of each call in the package that gives the database a statement: of ``execute``, or of one prepared."""
    for path in itertools.chain.from_iterable((PACKAGE / "central" / where).glob("*.py") for where in places):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            called = ast.unparse(call.func)
            if called.endswith(".execute") or (".statements." in called and called.endswith(".run")):
                yield {(str(path.relative_to(PACKAGE)), line) for line in range(call.lineno, (call.end_lineno or 0) + 1)}


def _append(log: OwnLog) -> None:
    """Append, append again what is there, what leaves one out, what was dropped since, and what is about a signal."""
    body = log.make("reserved", new_id(), "host-a", run_ref="mine")
    assert log.send(body, "host-a").status == 201
    assert log.send(log.make("success", read(body).reservation, "host-a", run_ref="mine"), "host-a").appended
    assert log.send(log.make("admin", new_id(), "host-a", signal=SIGNALS), "host-a").appended
    log.store.close()
    assert log.send(body, "host-a").appended
    ahead = Chain("host-a", log.chains["host-a"].epoch, log.chains["host-a"].seq + 1)
    assert log.send(ahead.seal(fields("denied", new_id())), "host-a").reason == "chain"
    log.sequence()
    assert [done.count for done in purge(log.store, log.readers, Selection(run_ref="mine"), {"reason": "purged"})] == [2]
    assert log.send(body, "host-a").appended


def _order(log: OwnLog) -> None:
    """Order a revocation twice, set and remove a policy, make and revoke a token."""
    who = replace(operator("*"), scopes=SCOPES["operator"])
    order = Order(new_id(), "revocation", "ops", Target(frozenset({"project1"}), scope="scope7"), emergency=False, reason="")
    log.store.run([partial(place, order=order)])
    (placed,) = log.store.run([partial(place, order=order)])
    rule = Rule("prism", "lan", frozenset({"web"}), EVERY, EVERY, EVERY)
    for what in (rule, None):
        log.store.run([partial(policy_rows.change, who=who, name="rule", rule=what, expected=None)])
    grant = token_rows.Grant(f"token-{new_id()}", "operator", "", ("prism",), ("audit:read",), None)
    log.store.run([partial(token_rows.make, who=who, grant=grant, sha256=new_id(), lasts=None)])
    log.store.run([partial(token_rows.revoke, who=who, name=grant.name)])
    revocations = Revocations(log.readers, lambda _signal: [])
    assert revocations.newest(who, 2**62, 100)
    for number in (1, 1, cast("Placed", placed).signal):
        assert revocations.evidence(who, number)


def _name(log: OwnLog) -> None:
    """Give an installation its host's name, keep it with that, and let it go."""
    sender = Sender("host-c", new_id(), new_id())
    for step in (partial(take, sender=sender), partial(renew, senders=[sender]), partial(leave, sender=sender)):
        log.store.run([step])


async def _by_itself(log: OwnLog) -> None:
    """Do what central does in the background, and prove."""
    writer: Any = Direct(log)
    log.render("host-b", ending="")
    log.sequence()
    assert await Sweeper(log.readers, writer, 0.0, print).sweep() >= 1
    assert await Retention(log.readers, writer, time.time() - (BEGAN + 1_500 * EVERY_MS) / 1000).turn() > 0
    feed = Feed(log.readers, lambda: asyncio.sleep(0))
    assert await feed.read(SIGNALS // 2)
    assert await feed.newest() > SIGNALS
    assert await feed.start_of("host-b", bytes.fromhex(log.chains["host-b"].epoch))
    live = Live(log.readers, ())
    await live.look()
    proofs = Proofs(log.readers, 0.0)
    await proofs.newest()
    await proofs.growth(ROWS // 3, ROWS)
    await proofs.inclusion(ROWS // 2)
    await proofs.inclusion_in(ROWS, ROWS // 3)
    with pytest.raises(NoSuchEvent):
        await proofs.inclusion(2 * ROWS)
