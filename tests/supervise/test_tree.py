"""Whatever a supervised command has started is reaped while it runs, and ends with it."""

from __future__ import annotations

import os
import signal
import time

from prism_vault_agent.exec import tree
from tests.supervise.supervised import PYTHON, Marked, children, line, start, status_of
from tests.support.soak import count
from tests.support.waiting import wait_until

# Starts so many processes that leave its session and parent, as daemons do, and tells when the last is there.
DAEMONS = (
    "import posix, sys, time\n"
    "for _ in range(int(sys.argv[1])):\n"
    "    if posix.fork() == 0:\n"
    "        posix.setsid()\n"
    "        if posix.fork() == 0:\n"
    "            posix.write(1, b'.')\n"
    "            {daemon}\n"
    "        posix._exit(0)\n"
    "    posix.wait()\n"
    "{then}\n"
)
SLEEP = "time.sleep(600)"


def daemons(then: str, daemon: str = SLEEP) -> str:
    """Return a program that starts daemons and goes on with ``then``."""
    return DAEMONS.format(daemon=daemon, then=then)


def test_daemons_end_with_the_command(agent):
    """Processes that left session, group and parent are ended when the command has ended, by SIGTERM first."""
    marked, number = Marked(), count(10, 100)
    with start(agent, *PYTHON, daemons("sys.exit(5)"), str(number), env=marked.env) as process:
        assert process.wait(30) == 5
        assert marked.alive() == []


def test_who_ignores_sigterm_is_killed_at_once_by_a_second_one(agent):
    """What the command left may ignore SIGTERM for its grace; a SIGTERM to the supervisor cuts that short."""
    marked = Marked()
    ignore = "import _signal; _signal.signal(15, _signal.SIG_IGN)\n"  # before the command ends, and inherited
    code = ignore + daemons("", f"posix.write(1, b'!'); {SLEEP}")
    with start(agent, *PYTHON, code, "1", env=marked.env) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b".!"
        (lifeline,) = children(process.pid)
        wait_until(lambda: len(children(lifeline)) == 1 == len(marked.alive()) - 2)
        process.terminate()
        assert process.wait(8) == 0
        assert marked.alive() == []


def test_a_killed_command_takes_all_with_it(agent):
    """Where the command was killed what it left is killed at once, whether it would have ended by itself or not."""
    marked = Marked()
    ignore = "import _signal; _signal.signal(15, _signal.SIG_IGN); time.sleep(600)"
    code = daemons("posix.kill(posix.getpid(), 9)", ignore)
    with start(agent, *PYTHON, code, "3", env=marked.env) as process:
        assert process.wait(8) == -signal.SIGKILL
        assert marked.alive() == []


def test_a_broad_tree(agent):
    """400 processes, each with its own session, end with the command."""
    marked, number = Marked(), count(60, 400)
    code = (
        "import posix, sys, time\n"
        f"for _ in range({number}):\n"
        "    if posix.fork() == 0: posix.setsid(); posix.write(1, b'.'); time.sleep(600)\n"
        f"time.sleep(600)\n"
    )
    for how in (signal.SIGTERM, signal.SIGKILL):
        with start(agent, *PYTHON, code, env=marked.env) as process:
            assert process.stdout is not None
            assert len(process.stdout.read(number)) == number
            process.send_signal(how)
            assert process.wait(30) == -how
            marked.wait_gone()


def test_a_deep_tree(agent):
    """A chain of processes, each the parent of the next, ends with the command."""
    marked, depth = Marked(), count(40, 400)
    code = (
        "import posix, time\n"
        f"for _ in range({depth}):\n"
        "    if posix.fork(): break\n"
        "    posix.setsid(); posix.write(1, b'.')\n"
        "time.sleep(600)\n"
    )
    for how in (signal.SIGTERM, signal.SIGKILL):
        with start(agent, *PYTHON, code, env=marked.env) as process:
            assert process.stdout is not None
            assert len(process.stdout.read(depth)) == depth
            process.send_signal(how)
            assert process.wait(30) == -how
            marked.wait_gone()


def test_a_chain_that_never_rests(agent):
    """A process that does nothing but fork and end, so that it is another one at every look, is caught."""
    marked = Marked()
    code = (
        "import posix, time\n"
        "if posix.fork() == 0:\n"
        "    posix.setsid(); posix.write(1, b'.')\n"
        "    while True:\n"
        "        if posix.fork(): posix._exit(0)\n"
        "time.sleep(600)\n"
    )
    for _ in range(count(2, 20)):
        with start(agent, *PYTHON, code, env=marked.env) as process:
            assert process.stdout is not None
            assert process.stdout.read(1) == b"."
            process.kill()
            process.wait(30)
            marked.wait_gone()


def test_orphans_are_reaped(agent):
    """Orphans that end leave no zombie behind while the command runs."""
    number = count(100, 1_000)
    with start(agent, *PYTHON, daemons(SLEEP, "posix._exit(0)"), str(number)) as process:
        assert process.stdout is not None
        assert len(process.stdout.read(number)) == number
        (lifeline,) = children(process.pid)
        wait_until(lambda: len(children(lifeline)) == 1, 5)  # the command, and no other, dead or alive
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM


def test_the_commands_own_children_are_its_own(agent):
    """The command gets the status of its own children: nobody reaps them in its place."""
    code = "import posix\nfor n in range(200):\n    if posix.fork() == 0: posix._exit(n)\n    assert posix.wait()[1] == n << 8"
    with start(agent, *PYTHON, code) as process:
        assert process.wait(30) == 0


def test_children_without_the_kernels_list():
    """Where the kernel keeps no list of children the same are found among all processes."""
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        assert child in tree.children()
        assert sorted(tree.children_by_parent(os.getpid())) == sorted(tree.children())
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_names_and_memory(agent):
    """The process between is told apart by its name, and neither it nor the supervisor holds a descriptor of the command's."""
    with start(agent, *PYTHON, "import time; print('ready', flush=True); time.sleep(600)", stdin=-3) as process:
        assert line(process) == "ready"
        (lifeline,) = children(process.pid)
        assert status_of(lifeline, "Name") == "prism-lifeline"
        assert os.readlink(f"/proc/{process.pid}/cwd") == os.readlink(f"/proc/{lifeline}/cwd") == "/"
        held = {number for pid in (process.pid, lifeline) for number in os.listdir(f"/proc/{pid}/fd") if int(number) < 3}
        assert held == {"2"}
        process.terminate()
        process.wait(30)
