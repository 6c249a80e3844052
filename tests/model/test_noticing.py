"""How often each secret is asked for, by the hour, in simulated time: jittered, and a bad one ever less often than the others."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.errors import ProviderUnavailable
from prism_vault_agent.vault.transport import Answer
from tests.model.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

POLL = 60.0
LONGEST = 300.0


class Asked(World):
    """A host that notes when each path's metadata is asked for. ``bad`` says of paths how they are answered, None: not at all."""

    def __init__(self, template) -> None:
        super().__init__(template)
        self.times: dict[str, list[float]] = {}
        self.bad: dict[str, Answer | None] = {}
        answer = self.provider.request

        def request(method, path, *rest) -> Answer:
            if path.startswith("secret/metadata/"):
                self.times.setdefault(path.removeprefix("secret/metadata/"), []).append(self.clock.monotonic)
                if path in self.bad:
                    if (given := self.bad[path]) is None:
                        raise ProviderUnavailable("500", mend="wait")
                    return given
            return answer(method, path, *rest)

        self.provider.request = request  # type: ignore[method-assign, assignment]  # it is looked at here

    @property
    def pauses(self) -> list[float]:
        """How long the agent said that it waits after each render of files that failed, in seconds."""
        told = [json.loads(line) for line in self.log.read_text().splitlines() if '"files.stale"' in line]
        return [line["retry_in"] for line in told if line["scope"] == "web"]

    def failing(self) -> None:
        """Have files that cannot be rendered be due, until they have failed so often that they are tried every five minutes."""
        self.central.denied = frozenset(("web",))
        self.provider.write("secret/web")
        before = len(self.pauses)
        while self.pauses[before:][-1:] != [LONGEST]:
            self.run(5.0)

    def gaps(self, name: str) -> list[float]:
        """Return the seconds between the questions about a path."""
        return [later - first for first, later in pairwise(self.times.get(name, []))]


@pytest.fixture
def world(template) -> Iterator[Asked]:
    """A host whose files are of two secrets."""
    made = Asked(template)
    made.start()
    made.render("web")
    made.run(1.0)
    yield made
    made.close()


def test_looks_are_jittered_and_never_later_than_the_interval(world):
    """Each path is asked for within its interval from when it was given out, at times that hosts do not share."""
    given = world.clock.monotonic
    world.run(3600.0)
    assert all(0.5 * POLL < world.times[name][0] - given <= POLL + 1.0 for name in ("web", "other"))
    for name in ("web", "other"):
        gaps = world.gaps(name)
        assert len(gaps) >= 3600 / POLL - 1
        assert all(0.75 * POLL <= gap <= POLL + 1.0 for gap in gaps)
        assert max(gaps) - min(gaps) > 0.1 * POLL and len({round(gap, 3) for gap in gaps}) > len(gaps) / 2


@pytest.mark.parametrize("answer", [Answer(200, {"data": {"versions": 7}}), None], ids=["nonsense", "nothing"])
def test_a_bad_secret_is_asked_for_ever_less_often_and_the_others_as_ever(world, answer):
    """The pauses of a path that cannot be asked for double up to five minutes; another one's changes are found within a poll."""
    world.run(5 * POLL)
    world.bad["secret/metadata/other"] = answer
    begun = world.clock.monotonic
    world.run(2 * POLL)
    for _ in range(5):
        world.provider.write("secret/web")
        world.run(POLL + 2.0)
        assert not world.outdated()
    world.run(1800.0)
    bad = [gap for at, gap in zip(world.times["other"], world.gaps("other"), strict=False) if at > begun]
    assert bad == sorted(bad, key=lambda gap: min(gap, 0.79 * LONGEST))
    assert bad[1] > POLL and bad[-1] > 0.79 * LONGEST and all(gap <= LONGEST + 1.0 for gap in bad)
    assert all(gap <= POLL + 1.0 for gap in world.gaps("web"))
    del world.bad["secret/metadata/other"]
    world.run(LONGEST + 3 * POLL)
    assert world.gaps("other")[-1] <= POLL + 1.0


def test_files_that_fail_are_tried_ever_less_often(world):
    """The pauses between two attempts double up to five minutes, and what becomes newer meanwhile is tried within its poll."""
    world.failing()
    assert world.pauses == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0]
    world.central.denied = frozenset()
    world.provider.write("secret/web")
    world.run(POLL + 5.0)
    assert not world.outdated()


def test_files_that_fail_are_tried_at_once_when_central_orders_it(world):
    """A rotation that central orders is tried at once, though nothing is newer than what failed."""
    world.failing()
    world.central.denied = frozenset()
    world.central.order("rotation", {"scope": "web"})
    world.run(10.0)
    assert not world.outdated()


def test_an_order_has_only_that_asked_for_which_it_means(world):
    """What central rotates is asked for at once, and nothing else is: what a host has beside it waits for its own time."""
    world.render("left")
    world.run(POLL)
    asked = len(world.times["web"])
    while len(world.times["web"]) == asked:
        world.run(1.0)
    web, other = len(world.times["web"]), len(world.times["other"])
    world.central.order("rotation", {"scope": "left"})
    world.run(5.0)
    assert len(world.times["other"]) > other and len(world.times["web"]) == web
