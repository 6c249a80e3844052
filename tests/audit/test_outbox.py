"""The one way to central: in order, chained, at most once on the log, whatever is lost on the way."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from prism_vault_agent.audit import batch
from prism_vault_agent.audit import outbox as module
from prism_vault_agent.audit.event import Chain, Fields
from prism_vault_agent.audit.outbox import Outbox
from prism_vault_agent.errors import AuditUnavailable
from tests.audit.log_in_memory import Kept, LogInMemory, event, play_with

if TYPE_CHECKING:
    pass

FAULTS = ("taken", "lost", "answer-lost")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LINGER", "PAUSE_FIRST", "PAUSE_AWAITED", "PAUSE_LONGEST"):
        monkeypatch.setattr(module, name, 0.0)


@given(st.lists(st.sampled_from(FAULTS), max_size=25), st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_f20_to_f24_every_event_is_on_the_log_once_and_in_order(faults: list[str], bursts: list[int]) -> None:
    """Whatever requests and answers are lost, each event is on the log once, in order, in one chain without gaps."""
    log = LogInMemory(iter(faults))
    events = [[event() for _ in range(burst)] for burst in bursts]

    async def work(outbox: Outbox) -> None:
        for burst in events:
            for fields in burst:
                outbox.tell(fields)
            await asyncio.sleep(0)

    journal = Kept()
    play_with(log, work, journal)
    assert [each["event_id"] for each in log.fields] == [each["event_id"] for burst in events for each in burst]
    assert [each["seq"] for each in log.fields] == list(range(1, len(log.fields) + 1))
    assert not journal.events
    if "lost" in faults[:1] or "answer-lost" in faults[:1]:
        assert journal.ever, "what nobody waits for is kept at the first attempt that fails"


@given(st.lists(st.sampled_from(FAULTS), max_size=20), st.integers(1, 12), st.randoms(use_true_random=False))
def test_f23_f24_an_answer_means_that_the_event_is_on_the_log(faults: list[str], count: int, random: Any) -> None:
    """Whoever is answered finds its event on the log; whoever gave up may find it there once or not at all."""
    log = LogInMemory(iter(faults))
    answered: list[object] = []
    asked: list[object] = []

    async def one(outbox: Outbox) -> None:
        fields = event("reserved")
        asked.append(fields["event_id"])
        try:
            answer = await outbox.send(fields, random.choice([0.0, 0.0001, 20]))
        except AuditUnavailable:
            return
        assert answer["appended"]
        answered.append(fields["event_id"])

    async def work(outbox: Outbox) -> None:
        await asyncio.gather(*(one(outbox) for _ in range(count)))

    play_with(log, work)
    on_the_log = [each["event_id"] for each in log.fields]
    assert set(answered) <= set(on_the_log) <= set(asked)
    assert len(on_the_log) == len(set(on_the_log))


def test_who_gave_up_before_its_event_was_sent_leaves_no_row() -> None:
    """An intent whose render was cancelled before it left the host never becomes a reservation."""
    log = LogInMemory(itertools.chain(["lost"] * 3))
    told = event()

    async def work(outbox: Outbox) -> None:
        outbox.tell(told)  # is in doubt when the next one comes
        await asyncio.sleep(0)
        with pytest.raises(AuditUnavailable, match="central did not take the audit record in 0 s"):
            await outbox.send(event("reserved"), 0)

    play_with(log, work)
    assert [each["event_id"] for each in log.fields] == [told["event_id"]]


def test_a_refused_event_does_not_hold_up_those_behind_it() -> None:
    """Central looks at nothing behind a refused event; the rest is sent again, in order, and the chain goes on without it."""
    log = LogInMemory()
    again = event("failure", "1" * 32)
    events = [event("success", "1" * 32), again, event(), event()]

    async def work(outbox: Outbox) -> None:
        for fields in events:
            outbox.tell(fields)

    play_with(log, work)
    assert [each["event_id"] for each in log.fields] == [each["event_id"] for each in events if each is not again]
    assert [each["seq"] for each in log.fields] == [1, 2, 3]


def test_a_broken_chain_releases_nothing_and_keeps_what_was_not_taken() -> None:
    """Where central's log does not continue ours, whoever waits is refused, and events that nobody waits for stay kept."""
    log, journal = LogInMemory(), Kept()

    async def work(outbox: Outbox) -> None:
        await outbox.send(event("reserved"), 5)
        log.bodies.clear()  # a rolled back database
        answer = await outbox.send(event("reserved"), 5)
        assert (answer["status"], answer["reason"]) == (409, "chain")
        outbox.tell(event())

    play_with(log, work, journal)
    assert not log.bodies
    assert len(journal.events) == 1


def test_a_full_disk_does_not_stop_the_shipping() -> None:
    """An event that cannot be kept is sent all the same, and a journal that cannot be emptied stops nothing."""
    log, journal = LogInMemory(iter(["lost"])), Kept()

    async def work(outbox: Outbox) -> None:
        outbox.tell(event(), durable=True)
        await outbox.flush(5)
        journal.full = True
        outbox.tell(event(), durable=True)
        await outbox.flush(5)

    play_with(log, work, journal)
    assert len(log.bodies) == 2


def test_a_batch_is_bounded_in_events_and_bytes() -> None:
    """A backlog of any size leaves in batches that central takes: at most 128 events, and few where they are large."""
    log = LogInMemory(iter(["lost"]))

    async def work(outbox: Outbox) -> None:
        for _ in range(200):
            outbox.tell(event())
        for _ in range(9):
            outbox.tell(event(padding="x" * 500_000))

    play_with(log, work)
    assert len(log.bodies) == 209
    assert max(log.batches) <= batch.LARGEST_BATCH
    first = 0
    for size in log.batches[1:]:
        assert sum(map(len, log.bodies[first : first + size])) < batch.LARGEST_CONTENT + 600_000
        first += size


@pytest.mark.parametrize(("limit", "most"), [("MOST_WAITING", 3), ("LARGEST_WAITING", 300)])
def test_beyond_the_bound_nothing_is_reserved_and_ends_are_still_taken(
    monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    """With too many records waiting, or too many bytes of them, nothing more is reserved, while every end is kept."""
    monkeypatch.setattr(batch, limit, most)
    log, journal = LogInMemory(iter(["lost"])), Kept()

    async def work(outbox: Outbox) -> None:
        for _ in range(5):
            outbox.tell(event())
        with pytest.raises(AuditUnavailable, match="too many audit records"):
            await outbox.send(event("reserved"), 5)
        assert outbox.queued == 5
        await outbox.flush(20)
        assert (await outbox.send(event("reserved"), 5))["appended"]

    play_with(log, work, journal)
    assert [each["kind"] for each in log.fields] == [*["cleared"] * 5, "reserved"]
    assert len(journal.ever) == 5


@given(st.integers(1, 6), st.lists(st.sampled_from(["denied", "admin", "cleared"]), max_size=20))
def test_beyond_the_bound_what_has_no_end_is_counted_and_the_count_is_recorded(most: int, kinds: list[str]) -> None:
    """Of a flood of denials while central is away as many are kept as fit, and the log says how many more there were."""
    log = LogInMemory(iter(["lost"]))

    async def work(outbox: Outbox) -> int:
        for kind in kinds:
            outbox.tell(event(kind))
        assert outbox.queued <= max(most, kinds.count("cleared") + min(most, len(kinds)))
        return outbox.lost

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "MOST_WAITING", most)
        lost = play_with(log, work)
    told = [each for each in log.fields if each.get("reason") == "records_lost"]
    assert [each["message"].split()[0] for each in told] == ([str(lost)] if lost else [])
    assert len(log.fields) - len(told) == len(kinds) - lost
    assert sum(each["kind"] == "cleared" for each in log.fields) == kinds.count("cleared")


def test_where_the_disk_keeps_nothing_more_nothing_more_is_reserved() -> None:
    """An end that waits and cannot be kept is told loudly, and holds up every release until central has it."""
    log, journal = LogInMemory(iter(["lost"] * 3)), Kept(full=True)

    async def work(outbox: Outbox) -> None:
        outbox.tell(event())
        while outbox.reachable:  # noqa: ASYNC110 - the outbox has no event for it
            await asyncio.sleep(0)
        with pytest.raises(AuditUnavailable, match="cannot be kept on this host"):
            await outbox.send(event("reserved"), 5)
        await outbox.flush(20)
        assert (await outbox.send(event("reserved"), 5))["appended"]

    with capture_logs() as logged:
        play_with(log, work, journal)
    assert [each["kind"] for each in log.fields] == ["cleared", "reserved"]
    failed = [each for each in logged if each["event"] == "journal.failed"]
    assert failed[0]["log_level"] == "critical"
    assert failed[0]["kind"] == "cleared"
    assert failed[0]["reservation"] == log.fields[0]["reservation"]


def test_what_is_left_at_the_end_is_kept() -> None:
    """An agent that stops while central does not answer keeps durably what nobody waits for, and nothing else."""
    journal = Kept()

    async def never(bodies: object) -> list[Any]:
        await asyncio.sleep(3600)
        return []

    async def play() -> list[Fields]:
        outbox = Outbox(Chain("h", "e"), never, journal)
        running = asyncio.create_task(outbox.run())
        waiter = asyncio.create_task(outbox.send(event("reserved"), 20))
        in_doubt, behind = event(), event()
        outbox.tell(in_doubt)
        await asyncio.sleep(0.01)
        outbox.tell(behind)
        await outbox.flush(0.01)
        waiter.cancel()
        running.cancel()
        return [in_doubt, behind]

    told = asyncio.run(play())
    assert list(journal.events.values()) == told


def test_whoever_waits_is_answered_soon_after_central_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long an outage has made the pauses between attempts, one who comes to wait causes an attempt at once."""
    monkeypatch.setattr(module, "PAUSE_FIRST", 3600.0)
    monkeypatch.setattr(module, "PAUSE_LONGEST", 3600.0)
    log = LogInMemory(iter(["lost"]))

    async def work(outbox: Outbox) -> Any:
        outbox.tell(event())
        while outbox.reachable:  # noqa: ASYNC110 - the outbox has no event for it
            await asyncio.sleep(0)
        return await outbox.send(event("reserved"), 10)

    assert play_with(log, work)["appended"]


def test_ends_that_come_together_are_one_write_of_the_journal() -> None:
    """What must be kept before it is sent is kept at once and dropped at once: 100 ends cost two writes, as one does."""
    log, journal = LogInMemory(iter([])), Kept()
    events = [event() for _ in range(100)]

    async def work(outbox: Outbox) -> None:
        for fields in events:
            outbox.tell(fields, durable=True)

    play_with(log, work, journal)
    assert [each["event_id"] for each in log.fields] == journal.ever == [each["event_id"] for each in events]
    assert (journal.writes, journal.events) == (2, {})


@pytest.mark.parametrize("room", [0, 1, 7, 99])
def test_what_there_is_room_for_is_kept(room: int) -> None:
    """Where the disk takes some of many events it has the first ones, and the agent knows that it does not have all."""
    journal = Kept(room=room)
    events = [event() for _ in range(100)]

    async def play() -> None:
        outbox = Outbox(Chain("h", "e"), LogInMemory(iter([])), journal)
        for fields in events:
            outbox.tell(fields)
        await outbox.flush(0.0)
        assert outbox.refusal is not None

    asyncio.run(play())
    assert list(journal.events) == [each["event_id"] for each in events[:room]]
