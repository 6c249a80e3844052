"""An agent that is not root's with a helper: each run has a control group that the helper makes, and is ended whole by it."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.agent.trees import cgroupfs
from prism_vault_agent.helper.wire import group_of
from tests.supervise.supervised import PYTHON, Marked
from tests.supervise.test_tree import SLEEP, daemons
from tests.support.groups import place_of
from tests.support.helped import Helped, helped_agent
from tests.support.own_agent import logged
from tests.support.soak import count
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.namespaces]

# Double-forked daemons that ignore SIGTERM; the command ends.
GONE = "import _signal; _signal.signal(15, _signal.SIG_IGN)\n" + daemons("sys.exit(0)")


@pytest.fixture(scope="module")
def helped(openbao, central) -> Iterator[Helped]:
    """For commands of root's, which share the control group of the tests."""
    with helped_agent(openbao, central) as made:
        yield made


def started(helped: Helped, marked: Marked, code: str, number: int, *options: str) -> subprocess.Popen[str]:
    """Start a program as a run named after its mark; return when it has told of ``number`` processes that they are there."""
    words = ("--scope", "roots", "--run-ref", marked.word, *options, "--", *PYTHON, code, str(number))
    child = helped.agent.spawn(*words, env=marked.env, process_group=0)
    assert child.stdout is not None and child.stdout.read(number) == "." * number
    return child


def group(helped: Helped, marked: Marked) -> Path:
    """Return where the group of a run is to be."""
    (run,) = [run for run in helped.agent.status()["runs"] if run["run_ref"] == marked.word]
    return place_of("self") / cgroupfs.name_of(group_of(run["id"].removeprefix("pva_")))


def finished(child: subprocess.Popen[str]) -> None:
    """Reap a child, whose pipes others may have."""
    for pipe in (child.stdout, child.stderr):
        assert pipe is not None
        pipe.close()
    child.wait(60)


def test_daemons_end_with_their_run_when_its_command_has_ended(helped):
    """What left parent, group and session, deaf to SIGTERM, is in the run's group whether anybody looked: killed, and it goes."""
    marked, number = Marked(), count(20, 400)
    finished(started(helped, marked, GONE, number))
    place = group(helped, marked)
    assert set(cgroupfs.members(str(place))) == set(marked.alive()) and len(marked.alive()) == number
    begun = time.monotonic()
    done = helped.command("revoke", "--run-ref", marked.word)
    assert done.returncode == 0 and "SIGKILL" in done.stdout, done
    print(f"{number} daemons ended {time.monotonic() - begun:.2f} s after the revocation, with a grace of 1 s")
    assert marked.alive() == []
    wait_until(lambda: not place.exists())
    assert helped.helper.told("helper.done")[-1]["verb"] == "leave"


def test_the_next_agent_ends_it_too_and_takes_away_what_was_not_kept(helped):
    """An agent that comes back ends what it has a record of, and a group that was made before there was one goes, once empty."""
    marked, places = Marked(), []
    finished(started(helped, marked, GONE, 5))
    recorded = group(helped, marked)
    with subprocess.Popen(["sleep", "600"]) as one, subprocess.Popen(["sleep", "600"]) as other:
        for child in (one, other):
            numbers, pidfd = group_of(secrets.token_hex(8)), os.pidfd_open(child.pid)
            helped.helper.asked(lambda asking, numbers=numbers, pidfd=pidfd: asking.group(pidfd, numbers))
            places.append(place_of(child.pid))
        one.kill()
        one.wait()
        helped.agent.kill()
        helped.agent.start()
        assert [place.exists() for place in places] == [False, True], "one that somebody is in stays"
        other.kill()
    places[1].rmdir()
    assert helped.command("revoke", "--run-ref", marked.word).returncode == 0
    assert marked.alive() == []
    wait_until(lambda: not recorded.exists())


def test_one_that_is_supervised_has_no_need_of_it(helped):
    """The helper is not asked where a supervisor keeps the tree together."""
    marked = Marked()
    child = started(helped, marked, daemons(SLEEP), 1, "--supervise")
    assert not group(helped, marked).exists() and place_of(marked.alive()[0]) == place_of("self")
    assert helped.command("revoke", "--run-ref", marked.word).returncode == 0
    marked.wait_gone()
    finished(child)


def test_without_the_helper_the_command_adopts(helped):
    """While no helper is there the command is started all the same, its daemons are its children, and it is told once."""
    helped.helper.process.kill()
    helped.helper.process.wait()
    before = len(logged(helped.agent, "tree.no_group"))
    try:
        runs = [Marked(), Marked()]
        children = [started(helped, marked, daemons(SLEEP), 3) for marked in runs]
        assert not helped.agent.status()["process"]["has_groups_made"]
        assert [group(helped, marked).exists() for marked in runs] == [False, False]
        parents = {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] for pid in runs[1].alive()}
        assert str(children[1].pid) in parents
    finally:
        helped.helper.start()
    assert len(logged(helped.agent, "tree.no_group")) == before + 1
    for marked, child in zip(runs, children, strict=True):
        assert helped.command("revoke", "--run-ref", marked.word).returncode == 0
        marked.wait_gone()
        finished(child)
