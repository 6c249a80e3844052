"""T12 and T13: what somebody planted at a target is replaced and never followed, and no link leads a render elsewhere."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.attackers import INSIDE, SWAPPER, beside
from tests.support.files import SYSTEMD, Filed
from tests.support.soak import count
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def bound(target: Path) -> None:
    """Make a socket that somebody listens at."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(target))


# What can be planted: each is told the target, and a victim elsewhere on the same file system.
PLANTED: dict[str, Callable[[Path, Path], Any]] = {
    "symlink": lambda target, victim: target.symlink_to(victim),
    "symlink to a directory": lambda target, victim: target.symlink_to(victim.parent),
    "dangling symlink": lambda target, victim: target.symlink_to(victim.parent / "nothing"),
    "hard link": lambda target, victim: os.link(victim, target),
    "FIFO": lambda target, _: os.mkfifo(target, 0o666),
    "socket": lambda target, _: bound(target),
    "directory": lambda target, _: (target / "of-theirs").mkdir(parents=True),
    "file": lambda target, _: target.write_text("theirs"),
}


def device(target: Path, _victim: Path) -> None:
    """Make a character device, /dev/null's, which is root's to do; an ordinary user has one fewer thing to plant."""
    os.mknod(target, stat.S_IFCHR | 0o666, os.makedev(1, 3))


@pytest.mark.parametrize("where", ["scope", "file"])
def test_t12_what_is_planted_is_replaced(made, where):
    """Whatever has the name of a scope's directory or of its file is replaced; the victim is as it was, and nothing waits."""
    kinds = PLANTED if os.geteuid() else {**PLANTED, "device": device}
    scopes = made.scopes(*(f"planted-{where}-{kind.replace(' ', '-').lower()}" for kind in kinds))
    names = dict(zip(kinds, scopes, strict=True))
    victims = {kind: made.top / f"victim-of-{name}" for kind, name in names.items()}
    for kind, name in names.items():
        target = made.top / name / "web.env" if where == "file" else made.top / name
        victims[kind].write_text("victim")
        if where == "file":
            target.parent.mkdir()
        kinds[kind](target, victims[kind])
        made.give(victims[kind], *(path for path in (made.top / name, *(made.top / name).rglob("*")) if os.path.lexists(path)))
    made.render(*names.values())

    for kind, name in names.items():
        assert made.file(name) == made.whole(name, 1), kind
        assert sorted(each.name for each in (made.top / name).iterdir()) == [".generation", "web.env"], kind
        assert (victims[kind].read_text(), victims[kind].stat().st_nlink) == ("victim", 1), kind
    assert not (made.top / "nothing").exists()
    assert made.residue() == []


@contextlib.contextmanager
def unmounted(made: Filed, above: Path) -> Iterator[Filed]:
    """Run one more agent of the same user, whose directory is no mount, so that it can be renamed."""
    top = above / "files"
    (top / "not-empty").mkdir(parents=True)
    made.give(top, top / "not-empty")
    lines = f'files = "{top}"\nfiles_risks = ["swap"]'
    with made.stack.second(agent=lines, user=made.stack.agent.user or None) as agent:
        there = Filed(replace(made.stack, agent=agent), top)
        wait_until(lambda: agent.status()["ready"])
        there.scope("web", files=[SYSTEMD])
        there.render("web")
        assert not top.is_mount()
        yield there


@pytest.mark.soak
@pytest.mark.parametrize("swapper", [SWAPPER, INSIDE], ids=["above", "inside"])
def test_t13_a_link_swapped_in_leads_a_real_agent_nowhere(made, above, swapper):
    """While its directory, or a scope's, is exchanged for a link in a loop, the agent renders there or refuses: 0 outside."""
    elsewhere = above / "elsewhere"
    elsewhere.mkdir()
    made.give(elsewhere)
    with unmounted(made, above) as there:
        with beside(above, swapper, str(there.top), str(elsewhere)) as told:
            for number in range(count(5, 300)):
                there.stack.openbao.kv_put("secret/web", {"key": there.value("web", number)})
                done = there.command("render", "web")
                assert done.returncode in (0, 73), done
        assert told[0] > 50
        assert list(elsewhere.iterdir()) == []
        there.render("web")
        assert there.file("web") == there.whole("web", number)
