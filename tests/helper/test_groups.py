"""Control groups by a real helper: made for a process that a scope's caller covers, killed and taken away, and no others."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.agent.trees import cgroupfs
from prism_vault_agent.helper.wire import Said, Verb, group_of
from tests.supervise.supervised import PYTHON, Marked
from tests.supervise.test_tree import SLEEP, daemons
from tests.support.as_user import NOBODY
from tests.support.groups import place_of
from tests.support.helper import MAIL, WWW_DATA, packet
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.namespaces]


@pytest.fixture
def run() -> Iterator[tuple[int, int]]:
    """What stands for a run; its group is gone after the test."""
    numbers = group_of(secrets.token_hex(8))
    yield numbers
    left = place(numbers)
    if left.exists():
        cgroupfs.kill(str(left))
        wait_until(lambda: not cgroupfs.populated(str(left)))
        left.rmdir()


def place(numbers: tuple[int, int]) -> Path:
    """Return where the group of a run is that the tests have started."""
    return place_of("self") / cgroupfs.name_of(numbers)


def opened(path: Path) -> int:
    """Return a descriptor of a directory, by which nothing can be read."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY)


def test_a_callers_process_is_put_into_a_group_and_ended_with_all_that_it_has_started(helper, run):
    """A command of the caller's gets a group of its own, below the one it was in; all daemons end with the group, which goes."""
    marked = Marked()
    code = f"import posix, sys; posix.setgid({WWW_DATA}); posix.setuid({WWW_DATA}); posix.write(1, b'.'); sys.stdin.read()\n"
    with subprocess.Popen([*PYTHON, code + daemons(SLEEP), "5"], env=marked.env, stdin=-1, stdout=-1) as child:
        assert child.stdin is not None and child.stdout is not None and child.stdout.read(1) == b"."
        pidfd = os.pidfd_open(child.pid)
        helper.asked(lambda asking: asking.group(pidfd, run))
        assert place_of(child.pid) == place(run) and place(run).stat().st_mode & 0o777 == 0o755
        assert helper.told("helper.done")[-1]["pid"] == child.pid
        child.stdin.close()
        assert len(child.stdout.read(5)) == 5
        directory = opened(place(run))
        assert helper.raw(packet(Verb.KILL, signal.SIGTERM), (directory,))[0] is Said.REFUSED
        helper.asked(lambda asking: asking.kill(directory, signal.SIGKILL))
        assert child.wait(60) == -signal.SIGKILL
    wait_until(lambda: marked.alive() == [])
    helper.asked(lambda asking: asking.ungroup(directory))
    assert not place(run).exists()
    assert helper.raw(packet(Verb.LEAVE), (directory,))[0] is Said.ENDED


def test_a_process_is_put_back(helper, run):
    """Who was given nothing after all is where it was before, and the group is gone."""
    with subprocess.Popen(["sleep", "600"], user=WWW_DATA) as child:
        pidfd = os.pidfd_open(child.pid)
        helper.asked(lambda asking: asking.group(pidfd, run))
        directory = opened(place(run))
        helper.asked(lambda asking: asking.ungroup(directory))
        assert place_of(child.pid) == place_of("self") and not place(run).exists()
        child.kill()


@pytest.mark.parametrize("uid", [MAIL, NOBODY, 0])
def test_a_process_that_no_caller_covers_stays_where_it_is(helper, run, uid):
    """Another user's process, root's and one of the agent's own user are put nowhere."""
    with subprocess.Popen(["sleep", "600"], user=uid) as child:
        said, line = helper.raw(packet(Verb.GROUP, *run), (os.pidfd_open(child.pid),))
        assert said is Said.REFUSED and str(child.pid) in line
        assert place_of(child.pid) == place_of("self") and not place(run).exists()
        child.kill()


def filled(group: Path, pid: int) -> bool:
    """Make a group and put a process there; an empty one may be taken away by any agent of root's that starts just then."""
    with contextlib.suppress(FileNotFoundError):
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text(str(pid))
        return True
    return False


def test_no_other_group_is_killed_or_taken_away(helper, tmp_path):
    """A group of another name or owner, and a directory that is no group but has such a name, are refused."""
    others, named = place_of("self") / f"other-{secrets.token_hex(4)}", f"prism-vault-{secrets.token_hex(8)}"
    theirs, plain = place_of("self") / named, tmp_path / named
    for each in (others, plain):
        each.mkdir()
    with subprocess.Popen(["sleep", "600"]) as child, contextlib.ExitStack() as ending:
        ending.callback(child.kill)
        wait_until(lambda: filled(theirs, child.pid))
        os.chown(theirs, WWW_DATA, WWW_DATA)
        for each in (others, theirs, plain, place_of("self")):
            for request in (packet(Verb.KILL, signal.SIGKILL), packet(Verb.LEAVE)):
                said, line = helper.raw(request, (opened(each),))
                assert said is Said.REFUSED and "no control group of the helper's" in line
            assert each.exists()
        assert child.poll() is None
    others.rmdir()
    with contextlib.suppress(FileNotFoundError):
        theirs.rmdir()
