"""When consumers and processes learn of rotations that never stop, in simulated time: spread, rarely enough, and in windows."""

from __future__ import annotations

import signal
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.agent.runs import rotation, switching
from tests.model import central, configuration
from tests.model.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prism_vault_agent.notify.occasion import Occasion
    from prism_vault_agent.scope import Notify

# What a look, a render and an answer take, at most, from an order on.
TAKES = 10.0


class Limited(World):
    """A host whose files have a consumer that notes when it is told, and that has a process which is signalled."""

    def __init__(self, template) -> None:
        super().__init__(template)
        self.told: list[float] = []

    async def _tell(self, notify: Notify, occasion: Occasion) -> str:
        self.told.append(self.clock.wall)
        return await super()._tell(notify, occasion)

    @property
    def signalled(self) -> list[float]:
        """When the process was, on the wall clock."""
        return [at for each in self.processes.all for number, at in each.signals if number == signal.SIGHUP]

    def files_of(self, name: str) -> list[int]:
        """Return the numbers of the generations of a scope that are out there."""
        assert self.parts is not None
        return [each.number for each in self.parts.files if each.scope.name == name]

    def rotate(self) -> float:
        """Write a new version, and have it noticed; return when."""
        self.provider.write("secret/web")
        self.order("rotation", {"scope": "web"})
        return self.clock.wall


@pytest.fixture
def limited(tmp_path, monkeypatch) -> Iterator[Callable[..., Limited]]:
    """Make a host whose consumer and processes have the same limits."""
    made: list[Limited] = []

    def make(**limits: Any) -> Limited:
        scope = {
            "env": {"WEB_KEY": "vault://secret/web#key"},
            "files": [{"path": "web.env", "format": "systemd", "notify": {"command": ["/consumer"], **limits}}],
            "on_rotate": "signal:HUP",
            "rotate_limits": limits,
        }
        monkeypatch.setitem(configuration.CONFIGURATIONS, "limited", {"web": scope})
        world = Limited(central.template(tmp_path))
        made.append(world)
        world.configuration.change("limited")
        world.start()
        world.render("web")
        world.exec(("web",), "run", stubborn=False, seconds=30.0)
        world.run(5.0)
        return world

    yield make
    for each in made:
        each.close()


def test_a_defect_with_one_process_is_told_and_tried_again(limited, monkeypatch):
    """A defect of ours with one of two processes holds up neither the other nor the next attempt, and is on the record."""
    world = limited(min_interval="0s", max_per_hour=100)
    world.exec(("web",), "run", stubborn=False, seconds=30.0)
    world.run(5.0)
    defects = iter([RuntimeError("holds a value")])

    async def signal_or_fail(*about: Any) -> str:
        for defect in defects:
            raise defect
        return await switching.signal_main(*about)

    monkeypatch.setattr(rotation, "signal_main", signal_or_fail)
    world.rotate()
    world.run(120.0)
    assert [[number for number, _ in each.signals] for each in world.processes.all] == [[signal.SIGHUP], [signal.SIGHUP]]
    (failed,) = [row for row in world.central.rows if row.get("reason") == "run_rotation_failed"]
    assert failed["message"].endswith("secret/web: RuntimeError")


def test_splay_is_another_wait_each_time(limited):
    """Who has a splay is told, and signalled, within that of when a new version is noticed, and hosts hardly at one moment."""
    world = limited(splay="5m", min_interval="0s", max_per_hour=100)
    written = []
    for _ in range(6):
        written.append(world.rotate())
        world.run(300.0 + 2 * TAKES)
    for times in (world.told, world.signalled):
        waits = [at - begun for at, begun in zip(times, written, strict=True)]
        assert all(0 < wait <= 300.0 + TAKES for wait in waits)
        assert max(waits) - min(waits) > TAKES


def test_neither_too_often_nor_too_soon(limited):
    """Of a version each two minutes they learn so far apart, and so many times an hour, as is said; the last is told, too."""
    world = limited(min_interval="5m", max_per_hour=3)
    last = 0.0
    for _ in range(10):
        last = world.rotate()
        world.run(120.0)
    world.run(2700.0)
    for times in (world.told, world.signalled):
        assert len(times) == 4
        assert all(later - first >= 300.0 for first, later in pairwise(times))
        assert times[3] - times[0] >= 3600.0
        assert times[-1] >= last


def test_in_a_window_alone(limited):
    """What comes outside of the window is one notice in it, of the newest; none comes before or after it."""
    now = datetime.fromtimestamp(1_704_067_200.0).replace(second=0)  # noqa: DTZ006 - windows are of the host's own time
    begins, ends = now + timedelta(minutes=5), now + timedelta(minutes=10)
    world = limited(window=[f"{begins:%H:%M}-{ends:%H:%M}"], min_interval="0s")
    for _ in range(3):
        world.rotate()
        world.run(60.0)
    assert (world.told, world.signalled) == ([], [])
    world.run((ends - now).total_seconds())
    for times in (world.told, world.signalled):
        (at,) = times
        assert begins.timestamp() <= at < ends.timestamp()
    world.rotate()
    world.run(900.0)
    assert (len(world.told), len(world.signalled)) == (1, 1)


def test_events_at_one_moment_are_one_render(limited):
    """Whoever notices a rotation, and however often, its files are rendered once and its consumer and process told once."""
    world = limited(min_interval="0s")
    (before,) = world.files_of("web")
    for _ in range(5):
        world.rotate()
        world.order("rotation", {"reference": "vault://secret/web#key"})
    world.run(90.0)
    (after,) = world.files_of("web")
    assert (after - before, len(world.told), len(world.signalled)) == (1, 1, 1)
