"""What verification accepts and what it refuses, rule by rule, on logs that no database would hold."""

from __future__ import annotations

import functools
import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_vault_agent.audit.event import Chain, canonical, new_id, parse
from prism_vault_agent.central.verification.chains import MOST_WAITING, Chains
from prism_vault_agent.central.verification.elsewhere import Elsewhere
from prism_vault_agent.central.verification.export import look_at_plain
from prism_vault_agent.central.verification.fault import Fault, Findings
from prism_vault_agent.central.verification.processes import Processes
from prism_vault_agent.central.verification.quick_json import canonical_fields
from prism_vault_agent.central.verification.row import Row, look
from prism_vault_agent.central.verification.tree import Sealed
from prism_vault_agent.central.verification.verify import verify
from prism_vault_agent.errors import Unavailable
from prism_vault_agent.proof.leaf import leaf_data
from prism_vault_agent.proof.merkle import Frontier, leaf_hash
from prism_vault_agent.proof.note import Checkpoint, seal
from tests.central.host import fields
from tests.central.own_log import KEY
from tests.central.owner import columns
from tests.support.bulk import events
from tests.support.soak import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class InMemory:
    """A log of rows that a test made, with the checkpoints that it says."""

    look = staticmethod(look)

    def __init__(
        self, rows: list[Row], sizes: tuple[int, ...] = (), nodes: Mapping[int, list[tuple[int, bytes]]] | None = None
    ) -> None:
        self.damage: Fault | None = None
        self.rows = rows
        self.sealed = [_sealed(rows[:size]) for size in sizes]
        self._nodes = nodes or {}

    def expected(self) -> int:
        """Return how many there are."""
        return len(self.rows)

    def parts(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows, a few at once."""
        rows = iter(self.rows)
        while some := list(islice(rows, 7)):
            yield [tuple(row) for row in some]

    def checkpoints(self) -> Iterator[Sealed]:
        """Yield the checkpoints."""
        return iter(self.sealed)

    def nodes(self) -> Mapping[int, Iterator[tuple[int, bytes]]]:
        """Return the nodes."""
        return {level: iter(nodes) for level, nodes in self._nodes.items()}

    def unguarded(self) -> list[str]:
        """Return nothing."""
        return []

    def seal(self) -> Sealed | None:
        """Return nothing."""
        return None


def _sealed(rows: list[Row]) -> Sealed:
    tree = Frontier()
    tree.extend([row.leaf or b"" for row in rows])
    text = Checkpoint(KEY.verifying_key.name, len(rows), tree.root()).text()
    return Sealed(len(rows), tree.root(), seal(text, KEY.verifying_key, KEY.sign(text.encode())))


def log_of(size: int, of: int = 2) -> list[Row]:
    """Return rows of ``of`` hosts in turn, each host's rows being reservations, successes and ends, without gaps."""
    return [*_log_of(size, of)]


@functools.cache
def _log_of(size: int, of: int) -> list[Row]:
    made: list[Row] = []
    hosts: dict[str, int] = {}
    for (_, event_id, host, epoch, seq, prev, reservation, kind, at, body), _ in events(100_000):
        if len(made) == size:
            break
        if len(hosts) < of or host in hosts:
            hosts[host] = seq
            number = len(made) + 1
            leaf = leaf_hash(leaf_data(number, at, body))
            made.append(
                Row(number - 1, number, leaf, event_id, host.encode(), epoch, seq, prev, reservation, kind.encode(), at, body)
            )
    return made


def indexed(rows: list[Row]) -> list[Row]:
    """Return rows with leaves in the order in which they are."""
    return [row._replace(idx=idx) for idx, row in enumerate(rows)]


def fault_of(rows: list[Row], *sizes: int, **more: Any) -> Fault | None:
    """Return what is wrong."""
    return verify(InMemory(rows, sizes), keys=[KEY.verifying_key], **more).fault


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Return thirty rows of two hosts."""
    return log_of(30)


def made(*steps: tuple[str, str]) -> list[Row]:
    """Return one host's rows of these kinds and reservations, as its agent makes them."""
    chain = Chain("server1", new_id())
    found: list[Row] = []
    for kind, reservation in steps:
        body = chain.seal(fields(kind, reservation))
        chain.accept(body)
        said = json.loads(body)
        n = len(found) + 1
        found.append(Row._make((n - 1, n, leaf_hash(leaf_data(n, 5, body)), *columns_of(said), 5, body, None, None)))
    return found


def columns_of(said: dict[str, Any]) -> tuple[Any, ...]:
    """Return the columns of an event as a database gives them."""
    event_id, host, epoch, seq, prev, reservation, kind = columns(said)
    return event_id, host.encode(), epoch, seq, prev, reservation, kind.encode()


A, B, C = (f"{number:032x}" for number in (1, 2, 3))


def test_a_whole_log_has_no_fault(rows):
    """Rows, chains, leaves and checkpoints are counted, and nothing is wrong with them."""
    verdict = verify(InMemory(rows, (10, 20, 30)), keys=[KEY.verifying_key])

    assert (verdict.rows, verdict.chains, verdict.leaves, verdict.checkpoints) == (30, 2, 30, 3)
    assert verdict.fault is None
    assert verdict.signers == {KEY.verifying_key.name}


@settings(max_examples=count(50, 2000), deadline=None)
@given(order=st.permutations(range(12)))
def test_late_rows_are_no_fault(order):
    """Where replicas took their numbers early, a row may come before those that it follows: chains and reservations hold."""
    rows = log_of(30)
    late = indexed([*rows[:9], *(rows[9 + at] for at in order), *rows[21:]])

    assert fault_of(late, 9, 30) is None


@pytest.mark.parametrize("missing", [0, 1, 7, 16])
def test_a_missing_event_is_named_by_the_next_of_its_host(rows, missing):
    """Where an event is missing and even the tree was made anew, the next event of its host is the first that shows it."""
    left = indexed([row for row in rows if row.n != rows[missing].n])
    fault = fault_of(left, 29)

    assert fault is not None
    assert (fault.n, "missing" in fault.what) == (rows[missing + 2].n, True)


def test_a_missing_newest_event_is_no_fault_by_itself(rows):
    """That a chain's end is missing cannot be seen in what is left, but in the head that its host holds."""
    left = indexed(rows[:-1])
    last = rows[-1]
    held = Elsewhere(heads={("server1", last.host_epoch.hex()): {last.host_seq: ("0" * 64, "the agent")}})

    assert fault_of(left, 29) is None
    assert fault_of(left, 29, elsewhere=held) == Fault(30, "event 15 of host server1, which the agent holds, is not on the log")


def test_an_event_that_is_there_twice_is_named(rows):
    """A copy of an event, with a number and a leaf of its own, stands in a place of its chain that is taken."""
    copy = rows[4]._replace(n=31, leaf=leaf_hash(leaf_data(31, rows[4].received_at, rows[4].body)))
    fault = fault_of(indexed([*rows, copy]), 31)

    assert fault is not None
    assert (fault.n, "once more" in fault.what) == (31, True)


def test_a_chain_that_lost_its_beginning_is_not_kept_in_memory():
    """Rows that wait for one that never comes are let go once they are more than a transaction can be."""
    rows = made(*[("admin", A)] * (MOST_WAITING + 20))
    findings = Findings()
    chains = Chains(findings)
    for _, n, _, chain, seq, prev, hashed, *_ in look(rows[1:]):
        chains.add(n, chain, seq, prev, hashed)
        assert sum(map(len, chains._waiting.values())) <= MOST_WAITING
    chains.end()

    assert findings.first() == Fault(2, "events 1 to 1 of host server1 before it are missing")
    assert not any(chains._waiting.values())


@pytest.mark.parametrize(
    ("steps", "n"),
    [
        ((("reserved", A), ("success", A), ("reserved", B), ("failure", B), ("denied", C)), None),
        ((("reserved", A), ("abandoned", A), ("cleared", A), ("reserved", B)), None),
        ((("reserved", A), ("reserved", A)), 2),
        ((("reserved", A), ("success", A), ("reserved", A)), 3),
        ((("reserved", A), ("success", A), ("failure", A)), 3),
        ((("reserved", A), ("success", A), ("denied", A)), 3),
        ((("denied", A), ("reserved", B), ("denied", A)), 3),
        ((("reserved", A), ("success", B)), 2),
        ((("failure", A), ("reserved", B)), 1),
    ],
)
def test_reservations_open_and_end_once(steps, n):
    """A second opening, a second ending and an outcome without an opening are named; one that stays open is no fault."""
    rows = made(*steps)
    fault = fault_of(rows, len(rows))

    assert (fault and fault.n) == n, fault


NUMBERS = st.one_of(st.integers(), st.floats(), st.integers(-(2**70), 2**70))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=count(300, 20_000), deadline=None)
@given(
    fields=st.dictionaries(st.text(max_size=6), JSON, max_size=6),
    ascii_only=st.booleans(),
    tight=st.booleans(),
    ordered=st.booleans(),
)
def test_the_quick_reading_is_the_one_of_the_agents(fields, ascii_only, tight, ordered):
    """Whatever JSON it is, the quick reader takes exactly the bytes that ``audit.event.parse`` takes, as the same fields."""
    body = json.dumps(fields, ensure_ascii=ascii_only, separators=(",", ":") if tight else None, sort_keys=ordered).encode(
        "utf-8", "surrogatepass"
    )
    try:
        expected: object = parse(body)
    except (ValueError, RecursionError):
        expected = None
    try:
        found: object = canonical_fields(body)
    except (ValueError, RecursionError):
        found = None

    assert found == expected
    assert repr(found) == repr(expected)


@settings(max_examples=count(300, 20_000), deadline=None)
@given(at=st.integers(0, 500), bit=st.integers(0, 7), n=st.integers(0, 29))
def test_every_flipped_bit_of_an_event_is_named(at, bit, n):
    """Whichever bit of a row's bytes is flipped, that row is named."""
    rows = log_of(30)
    body = bytearray(rows[n].body)
    body[at % len(body)] ^= 1 << bit
    rows[n] = rows[n]._replace(body=bytes(body))
    fault = fault_of(rows, 10, 20, 30)

    assert fault is not None
    assert fault.n == n + 1


STRANGE: tuple[Any, ...] = (None, "text", b"", b"\xff", -1, 2**70, True, 1.5, [])


@pytest.mark.parametrize("column", Row._fields[:12])
@pytest.mark.parametrize("value", STRANGE, ids=repr)
def test_columns_of_any_kind_are_told(rows, column, value):
    """Where a table's types were undone, a column that holds anything is a fault of its row, and never an error."""
    log = InMemory([*rows], (10, 20, 30))
    log.rows[4] = rows[4]._replace(**{column: value})
    fault = verify(log, keys=[KEY.verifying_key]).fault

    assert fault is not None
    assert fault.n == 5, fault


def test_stored_nodes_are_compared():
    """Each stored node is one that the leaves make: one that is not, is missing or is too many is told."""
    rows = made(*[("admin", A)] * 600)
    tree = Frontier()
    good = [(node.position, node.hash) for node in tree.extend([row.leaf or b"" for row in rows])]

    def told(nodes: list[tuple[int, bytes]]) -> str:
        fault = verify(InMemory(rows, (256, 600), {8: nodes})).fault
        return fault.what if fault else ""

    assert [position for position, _ in good] == [0, 1]
    assert told(good) == ""
    assert "node 1 of level 8" in told([good[0], (1, bytes(32))])
    assert "node 1 of level 8" in told(good[:1])
    assert "node 0 of level 8" in told([(0, bytes(32)), good[1]])
    assert "node 1 of level 8" in told([*good, (1, bytes(32))])


def test_a_checkpoint_of_another_log_is_no_checkpoint(rows):
    """A note that the right key signed, of a log with another name, is refused; without keys, signatures are not looked at."""
    log = InMemory(rows)
    text = Checkpoint("another/log", 30, _sealed(rows).root).text()
    log.sealed = [Sealed(30, _sealed(rows).root, seal(text, KEY.verifying_key, KEY.sign(text.encode())))]
    fault = verify(log, keys=[KEY.verifying_key]).fault

    assert fault is not None
    assert "of another log" in fault.what
    assert verify(log).fault is None
    assert verify(log).signers == {"another/log"}


def test_other_processes_find_the_same(rows):
    """Rows that are looked at in other processes give the same verdict, in the same order."""
    bad = [*rows]
    bad[20] = rows[20]._replace(body=canonical({**parse(rows[20].body), "scopes": ["db"]}))
    processes = Processes()
    try:
        for each in (rows, bad):
            spread = verify(InMemory(each, (10, 20, 30)), spread=processes.spread)
            assert spread == verify(InMemory(each, (10, 20, 30)))
    finally:
        processes.close()


def test_a_process_that_is_lost_is_told(rows):
    """Where a process that looks at rows is killed, the verification ends with an error that says so."""
    before = set(psutil.Process().children())  # servers that other tests have, too
    processes = Processes()
    others = set(psutil.Process().children()) - before
    assert len(others) >= 1
    for process in others:
        process.kill()
    psutil.wait_procs(others, 10)

    with pytest.raises(Unavailable, match="was lost"):
        verify(InMemory(rows), spread=processes.spread)
    processes.close()


def test_what_is_not_a_row_is_told(rows):
    """A line of an export that is nothing is told behind the row before it; one without its event by its own number."""
    looked = look_at_plain([{}, {"n": 7, "index": 6, "leaf": "00" * 32}, {"n": "x", "event_id": 5}])

    assert [(row[0], row[1], bool(row[9])) for row in looked] == [(None, 0, True), (6, 7, True), (None, 0, True)]
