"""A unit as a tree, in a control group of the kernel's own: who is in it is told, and the kernel ends all of it at once."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.agent.front.cgroup import container_of, unit_of
from prism_vault_agent.agent.trees.unit import Holding, unit
from tests.supervise.supervised import PYTHON, Marked
from tests.supervise.test_tree import SLEEP, daemons
from tests.support.groups import place_of
from tests.support.soak import count
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root


@pytest.fixture
def places() -> Iterator[list[Path]]:
    """Directories of control groups (cgroup v2) that are made here, and gone at the end."""
    made: list[Path] = []
    yield made
    for each in reversed(made):
        wait_until(lambda each=each: "populated 0" in (each / "cgroup.events").read_text())  # type: ignore[misc]
        each.rmdir()


def make(places: list[Path], *names: str) -> Path:
    """Make a group below another one, as often as there are names, and below none that an agent has put these tests into."""
    here = place_of("self")
    place = next(each for each in (here, *here.parents) if not each.name.startswith("prism-vault-"))
    for name in names:
        place /= name
        place.mkdir()
        places.append(place)
    return place


def test_a_unit_is_ended_by_its_group(places):
    """All that is in a unit, in groups below it too, is told to be, and is killed by the kernel in one go."""
    name, number, marked = f"prism-test-{secrets.token_hex(8)}.service", count(20, 441), Marked()
    below = make(places, name, "below")
    code = "import sys; sys.stdin.read(1)\n" + daemons(SLEEP)
    with subprocess.Popen([*PYTHON, code, str(number)], env=marked.env, stdin=-1, stdout=-1) as child:
        (below / "cgroup.procs").write_text(str(child.pid))
        assert child.stdin is not None and child.stdout is not None
        child.stdin.close()
        assert len(child.stdout.read(number)) == number
        assert unit(child.pid) == name
        holding = Holding(name, "", child.pid)
        assert sum(1 for _ in holding.descriptors()) == number + 1
        assert holding.kill()
    marked.wait_gone()


@pytest.mark.parametrize(
    ("names", "unit", "container"),
    [
        (("system.slice", "web.service", "prism-vault-0"), "web.service", None),
        (("user.slice", "session-4.scope"), "session-4.scope", None),
        (("system.slice", f"docker-{'ab' * 32}.scope", "prism-vault-0"), f"docker-{'ab' * 32}.scope", "ab" * 32),
        (("plain", "prism-vault-0"), None, None),
    ],
)
def test_a_group_of_a_run_does_not_change_who_it_is(places, names, unit, container):
    """Attestation reads what the kernel tells of cgroup v2; a group of ours below a unit or container leaves both as they are."""
    top = f"prism-test-{secrets.token_hex(8)}.slice"
    group = make(places, top, *names)
    with subprocess.Popen(["sleep", "600"]) as child:
        (group / "cgroup.procs").write_text(str(child.pid))
        told = Path(f"/proc/{child.pid}/cgroup").read_text()
        assert f"0::/{top}/{'/'.join(names)}\n" in told
        assert (unit_of(told), container_of(told)) == (unit, container)
        child.kill()
