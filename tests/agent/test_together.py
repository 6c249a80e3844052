"""Scopes that are rendered anew at one moment: one worker reads once for several, and each has its own rows, answer and error."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from prism_vault_agent.agent.files.together import LARGEST, MOST, Together
from prism_vault_agent.errors import CannotCreate, Denied, ProviderUnavailable, to_plain
from tests.support.agent import POLICY
from tests.support.fault_proxy import Fault, always, with_kind
from tests.support.files import Filed, filed
from tests.support.stack import is_read
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SCOPES = 40
OUTAGES = ["reserved", "success"]


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack with 40 scopes of one secret, rendered; one of them has another secret too."""
    with filed() as running:
        running.stack.openbao.kv_put("secret/shared", {"key": running.value("shared", 1)})
        running.stack.openbao.kv_put("secret/closed/own", {"key": "x"})
        env = {"KEY": "vault://secret/shared#key"}
        for name in names():
            more = {"OTHER": "vault://secret/closed/own#key"} if name == "all-7" else {}
            running.stack.agent.scope(name, env | more, files=[{"path": "web.env", "format": "systemd"}])
        running.reload()
        wait_until(lambda: {*names()} <= {scope["name"] for scope in running.stack.agent.status()["scopes"]})
        running.render(*names())
        yield running


def names(*, but: str = "") -> list[str]:
    return [name for name in (f"all-{number}" for number in range(SCOPES)) if name != but]


def rotated(made: Filed, number: int) -> None:
    made.stack.openbao.kv_put("secret/shared", {"key": made.value("shared", number)})


def holding(made: Filed, number: int, *, but: str = "") -> bool:
    """Tell whether every scope's file has a value and nothing but whole ones are there."""
    line = f'KEY="{made.value("shared", number)}"\n'
    return all((made.file(name) or "").startswith(line) for name in names(but=but))


def reads_of(made: Filed) -> int:
    return sum(is_read(seen) and "secret/data/shared" in seen.path for seen in made.stack.to_openbao.seen)


def test_a_secret_of_many_scopes_is_read_a_few_times_and_each_has_its_rows(made):
    """Forty scopes of one secret are rotated with a few reads, each after the reservations that it serves, and rows for each."""
    before, rows = reads_of(made), len(made.stack.central.events())
    rotated(made, 2)
    wait_until(lambda: holding(made, 2), 60)
    assert 1 <= reads_of(made) - before <= SCOPES // 4
    events = [event["fields"] for event in made.stack.settle()[rows:]]
    for name in names():
        mine = made.told(name)["id"].removeprefix("pva_")
        assert [row["kind"] for row in events if row.get("reservation") == mine] == ["reserved", "success"]
    assert made.residue() == []


@pytest.mark.parametrize("kind", OUTAGES)
def test_g7_without_the_log_none_is_read_and_none_becomes_visible(made, kind):
    """While central takes no reservation nothing is read; while it takes no success every old file stays, and nothing is left."""
    number = 3 + OUTAGES.index(kind)
    with made.stack.to_central.failing(always(Fault("reset"), with_kind(kind))):
        before, files = reads_of(made), [made.file(name) for name in names()]
        rotated(made, number)
        wait_until(lambda: all(made.told(name)["error"] for name in names()), 90)
        assert [made.file(name) for name in names()] == files
        assert kind != "reserved" or reads_of(made) == before
        wait_until(lambda: made.residue() == [], 30)
    wait_until(lambda: holding(made, number), 90)
    made.stack.settle()


def test_one_that_may_not_be_read_holds_up_no_other(made):
    """Where one scope has a secret that the provider refuses, the others are rotated all the same, and that one tells why."""
    before = made.file("all-7")
    made.stack.openbao.policy("prism-vault", POLICY + 'path "secret/data/closed/*" { capabilities = ["deny"] }\n')
    rotated(made, 5)
    wait_until(lambda: holding(made, 5, but="all-7"), 60)
    wait_until(lambda: made.told("all-7")["error"], 60)
    assert made.file("all-7") == before
    made.stack.openbao.policy("prism-vault", POLICY)
    wait_until(lambda: holding(made, 5), 60)
    assert made.residue() == []


class Front:
    """What ``Together`` has of the agent: workers that answer what the test says, a place, and what was discarded."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers: list[asyncio.Future[dict[str, Any]]] = []
        self.came: asyncio.Queue[None] = asyncio.Queue()
        self.ended = 0
        self.discarded: list[str] = []
        self.away: list[BaseException] = []
        self.workers = self.mounts = self.session = cast("Any", self)
        self.known: dict[str, int] = {}
        self.path, self.descriptor, self.helper = "/place", 0, ""

    async def take(self, _deadline: float) -> Front:
        """Return the only worker."""
        return self

    async def ask(self, job: dict[str, Any], _passed: int) -> dict[str, Any]:
        """Return what the test answers."""
        self.asked.append(job)
        self.answers.append(asyncio.get_running_loop().create_future())
        self.came.put_nowait(None)
        return await self.answers[-1]

    def end(self) -> None:
        """Count a worker that was let go."""
        self.ended += 1

    def place(self) -> Front:
        """Return the place."""
        return self

    def lost(self, error: BaseException) -> None:
        """Keep what the session is told."""
        self.away.append(error)

    def discard(self, name: str) -> None:
        """Keep what is discarded."""
        self.discarded.append(name)

    def together(self) -> Together:
        """Return what is tested, with all of this."""
        return Together(cast("Any", self), cast("Any", self))

    async def until_asked(self, count: int = 1) -> None:
        """Wait until so many more jobs have been asked for."""
        for _ in range(count):
            await self.came.get()

    def answer(self, at: int, *each: dict[str, Any]) -> None:
        """Answer a job, each scope by itself."""
        self.answers[at].set_result({"each": list(each)})


def job(*, size: int = 2, **more: Any) -> dict[str, Any]:
    """Return a job of so many variables and files."""
    return {"bindings": [0] * (size - 1), "files": [0], **more}


def staged(name: str) -> dict[str, Any]:
    return {"staged": {"name": name, "files": []}}


def play(script: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await script()

    asyncio.run(bounded())


def test_as_many_as_one_worker_takes_and_no_more():
    """More than the bound are several jobs, scopes of another token are another one, and each gets its own answer."""

    async def script() -> None:
        front = Front()
        async with front.together() as together:
            tokens = ["a"] * (MOST + 2) + ["b"] * 2
            waiting = [asyncio.ensure_future(together.stage(job(n=n), token, 9.0)) for n, token in enumerate(tokens)]
            await front.until_asked(3)
            assert sorted(len(asked["each"]) for asked in front.asked) == [2, 2, MOST]
            for at, asked in enumerate(front.asked):
                front.answer(at, *(staged(str(each["n"])) for each in asked["each"]))
            found = await asyncio.gather(*waiting)
        assert [each["staged"]["name"] for each in found if each] == [str(n) for n in range(MOST + 4)]
        assert front.ended == 3

    play(script)


def test_what_is_large_is_shared_by_several_workers():
    """Scopes of many variables or files go by fewer to a worker, and one that is larger than the bound goes alone."""

    async def script() -> None:
        front = Front()
        async with front.together() as together:
            sizes = [LARGEST // 2, LARGEST // 2, 1, LARGEST + 1, 1, 1]
            waiting = [asyncio.ensure_future(together.stage(job(size=size), "a", 9.0)) for size in sizes]
            await front.until_asked(2)
            assert [len(asked["each"]) for asked in front.asked] == [2, 2]
            for at in range(2):
                front.answer(at, staged("x"), staged("y"))
            found = await asyncio.gather(*waiting)
        assert [each is None for each in found] == [False, False, True, True, False, False]

    play(script)


def test_a_defect_is_told_to_each_and_ends_nobody():
    """Where a worker answers what nobody understands each render fails; none is taken for cancelled."""

    async def script() -> None:
        front = Front()
        async with front.together() as together:
            waiting = [asyncio.ensure_future(together.stage(job(), "a", 9.0)) for _ in range(2)]
            await front.until_asked()
            front.answers[0].set_result({})
            assert all(isinstance(each, KeyError) for each in await asyncio.gather(*waiting, return_exceptions=True))

    play(script)


def test_one_by_itself_and_what_cannot_be_read_together_are_told_to_go_alone():
    """A single scope asks no shared worker; where the worker says so, each is to be staged by itself."""

    async def script() -> None:
        front = Front()
        async with front.together() as together:
            assert await together.stage(job(), "a", 9.0) is None
            assert front.asked == []
            waiting = [asyncio.ensure_future(together.stage(job(), "a", 9.0)) for _ in range(3)]
            await front.until_asked()
            front.answers[0].set_result({"alone": True})
            assert await asyncio.gather(*waiting) == [None] * 3

    play(script)


def test_an_error_is_its_scopes_own_and_one_of_all_is_another_object_for_each():
    """One scope's error reaches that one alone; a provider that is away reaches each as an error of its own, and is noted."""

    async def script() -> None:
        front = Front()
        async with front.together() as together:
            waiting = [asyncio.ensure_future(together.stage(job(), "a", 9.0)) for _ in range(2)]
            await front.until_asked()
            front.answer(0, {"error": to_plain(CannotCreate("no room"))}, staged("second"))
            first, second = await asyncio.gather(*waiting, return_exceptions=True)
            assert isinstance(first, CannotCreate) and second == staged("second")
            waiting = [asyncio.ensure_future(together.stage(job(), "a", 9.0)) for _ in range(2)]
            await front.until_asked()
            front.answers[1].set_exception(ProviderUnavailable("away"))
            errors = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(error, ProviderUnavailable) for error in errors) and errors[0] is not errors[1]
            assert len(front.away) == 1

    play(script)


def test_what_nobody_waits_for_any_more_is_removed():
    """The files of a render that gave up meanwhile are discarded; those of the others are theirs."""

    async def script() -> None:
        front = Front()
        async with front.together() as together:
            waiting = [asyncio.ensure_future(together.stage(job(), "a", 9.0)) for _ in range(2)]
            await front.until_asked()
            waiting[0].cancel()
            await asyncio.sleep(0)
            front.answer(0, staged("first"), staged("second"))
            assert await waiting[1] == staged("second")
        assert front.discarded == ["first"]

    play(script)


def test_the_end_lets_every_worker_go():
    """When the renders are cancelled the worker that works for them is let go, and so removes what it has staged."""

    async def script() -> None:
        front = Front()
        async with front.together() as together:
            waiting = [asyncio.ensure_future(together.stage(job(), "a", 9.0)) for _ in range(2)]
            await front.until_asked()
        assert front.ended == 1
        assert all(isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*waiting, return_exceptions=True))

    play(script)


def test_a_denial_is_no_matter_of_the_session():
    """An error that says nothing about the provider as a whole is not told to the session."""

    async def script() -> None:
        front = Front()
        async with front.together() as together:
            waiting = [asyncio.ensure_future(together.stage(job(), "a", 9.0)) for _ in range(2)]
            await front.until_asked()
            front.answers[0].set_exception(Denied("no"))
            assert all(isinstance(each, Denied) for each in await asyncio.gather(*waiting, return_exceptions=True))
        assert front.away == []

    play(script)
