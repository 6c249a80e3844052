"""A tree found by looking: descendants, groups and sessions that they have begun, never a number that is another's by now."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from prism_vault_agent.agent.runs.ending import kill
from prism_vault_agent.agent.runs.following import Following
from prism_vault_agent.agent.runs.run import Run
from prism_vault_agent.agent.trees import sweep
from prism_vault_agent.agent.trees.sweep import Place, Sweep
from tests.supervise.supervised import PYTHON, Marked
from tests.supervise.test_tree import SLEEP, daemons
from tests.support.soak import count
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from prism_vault_agent.model import Render

# Each of them a child of the one before it, in a session of its own.
DEEP = (
    "import posix, sys, time\n"
    "for _ in range(int(sys.argv[1])):\n"
    "    if posix.fork(): break\n"
    "    posix.setsid(); posix.write(1, b'.')\n"
    "time.sleep(600)\n"
)
# Orphans that stay in the process group.
ORPHANS = (
    "import posix, sys, time\n"
    "for _ in range(int(sys.argv[1])):\n"
    "    if posix.fork() == 0:\n"
    "        if posix.fork() == 0: posix.write(1, b'.'); time.sleep(600)\n"
    "        posix._exit(0)\n"
    "    posix.wait()\n"
    "time.sleep(600)\n"
)


def started(code: str, number: int, **options: bool | int) -> tuple[subprocess.Popen[bytes], Marked, Sweep]:
    """Start a program; return when so many processes have told that they are there."""
    marked = Marked()
    child = subprocess.Popen([*PYTHON, code, str(number)], env=marked.env, stdout=-1, **options)  # type: ignore[call-overload]
    assert child.stdout is not None
    assert len(child.stdout.read(number)) == number
    process = sweep.look(child.pid)
    assert process is not None
    return child, marked, Sweep(child.pid, process.started)


@pytest.mark.parametrize(
    ("code", "options"),
    [
        pytest.param(DEEP, {}, id="descendants"),
        pytest.param(ORPHANS, {"process_group": 0}, id="group"),
        pytest.param(ORPHANS, {"start_new_session": True}, id="session"),
    ],
)
def test_what_can_be_told_is_ended(code, options):
    """Descendants of descendants, and orphans in a group or session that the tree has begun, are found and ended."""
    number = count(30, 400)
    child, marked, tree = started(code, number, **options)
    with child:
        asyncio.run(kill(tree, ""))
        wait_until(lambda: not tree.left())
        wait_until(lambda: marked.alive() == [])


def test_what_left_before_anybody_looked_is_not_told():
    """A daemon that had left parent, group and session before the first look is not found: the limit of this means."""
    child, marked, tree = started(daemons(SLEEP), 1)
    with child:
        tree.follow()
        asyncio.run(kill(tree, ""))
        wait_until(lambda: not tree.left())
        (daemon,) = marked.alive()
        os.kill(daemon, 9)


def test_what_a_command_adopts_is_known_when_it_has_ended():
    """Daemons whose command adopts its orphans are known by one look while it lives, and are ended when it has ended."""
    adopting = "import ctypes; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
    child, marked, tree = started(adopting + daemons("sys.stdin.read()"), 5, stdin=-1)
    with child:
        gone = subprocess.Popen(["true"])
        tree.known[gone.pid] = 1
        gone.wait()
        tree.follow()
        assert set(tree.known) == set(marked.alive()), "and what has ended is forgotten"
        assert child.stdin is not None
        child.stdin.close()
        child.wait(60)
        assert len(marked.alive()) == 5 and tree.left()
        asyncio.run(kill(tree, ""))
        wait_until(lambda: marked.alive() == [])
        assert not tree.left()


def test_somebody_looks_while_it_runs():
    """What a command starts is looked at again and again until the run is over, and then nobody looks any more."""
    child, marked, tree = started("import ctypes; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n" + daemons(SLEEP), 5)
    run = Run(cast("Render", None), -1, 0.0, tree)

    async def follow() -> None:
        others = len(asyncio.all_tasks())
        following = Following()
        following.add(run)
        await asyncio.to_thread(wait_until, lambda: set(tree.known) == set(marked.alive()))
        following.drop(run)
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(wait_until, lambda: len(asyncio.all_tasks(loop)) == others)

    with child:
        asyncio.run(follow())
        asyncio.run(kill(tree, ""))
        wait_until(lambda: marked.alive() == [])


def test_another_process_of_a_number_is_left_alone():
    """Who has the number of a known process, but began at another time, is none of the tree, nor is what it starts."""
    child, marked, tree = started(DEEP, 2)
    with child:
        other = Sweep(child.pid, tree.started + 1)
        assert not other.left()
        assert list(other.descriptors()) == []
        asyncio.run(kill(other, ""))
        assert len(marked.alive()) == 3
        asyncio.run(kill(tree, ""))


def test_a_process_lives_as_long_as_one_of_its_threads():
    """A process whose first thread has ended is not taken for ended while another one runs."""
    code = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(600,)).start(); "
    code += "print('.', end='', flush=True); ctypes.CDLL(None).pthread_exit(None)"
    child, _, tree = started(code, 1)
    with child:
        wait_until(lambda: ") Z " in Path(f"/proc/{child.pid}/stat").read_text())
        assert tree.left()
        asyncio.run(kill(tree, ""))
        wait_until(lambda: not tree.left())


def test_a_place_of_ones_own(tmp_path):
    """All that is in a control group which the tree has to itself is found; in one that was made anew nothing is."""
    child, marked, _ = started(daemons(SLEEP), 3)
    with child:
        group = tmp_path / "group"
        group.mkdir()
        (group / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in marked.alive()))
        process = sweep.look(child.pid)
        assert process is not None
        place = Place.of(str(group), None)
        asyncio.run(kill(Sweep(child.pid, process.started, Place(place.directory, place.inode + 1, "", "")), ""))
        wait_until(lambda: len(marked.alive()) == 3)
        asyncio.run(kill(Sweep(child.pid, process.started, place), ""))
        wait_until(lambda: marked.alive() == [])


def test_who_looks_is_none_of_the_tree():
    """A process that belongs to the session of a tree, and looks at it, finds the others and not itself."""
    code = (
        "import os, subprocess; from prism_vault_agent.agent.trees import sweep\n"
        "leader, other = os.getpid(), subprocess.Popen(['sleep', '600'])\n"
        "if (looking := os.fork()) == 0:\n"
        "    tree = sweep.Sweep(leader, sweep.look(leader).started)\n"
        "    found = sum(1 for _ in tree.descriptors())\n"
        "    print(found, sorted(tree.known) == sorted((leader, other.pid)), flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(looking, 0); other.kill(); other.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, start_new_session=True, check=False)
    assert done.stdout == "2 True\n", done
