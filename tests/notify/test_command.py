"""Commands: they get names and nothing else, are bounded, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from prism_vault_agent.errors import Unavailable
from prism_vault_agent.notify import command
from prism_vault_agent.notify.child import LARGEST_ANSWER, run
from prism_vault_agent.notify.occasion import Occasion, one_line
from prism_vault_agent.scope import Notify
from tests.support.as_user import NOBODY
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

OCCASION = Occasion("web", 7, "/run/prism-vault/files/web")
SHOW = (
    "import json, os, sys; json.dump({'argv': sys.argv[2:], 'env': dict(os.environ), 'cwd': os.getcwd(), "
    "'fds': [os.readlink(f'/proc/self/fd/{n}') for n in sorted(map(int, os.listdir('/proc/self/fd')))[:-1]], "
    "'session': os.getsid(0) == os.getpid()}, open(sys.argv[1], 'w'))"
)


def tell(*words: str, seconds: float = 60.0) -> str:
    """Tell by a command, and wait as the agent does."""

    async def bounded() -> str:
        async with asyncio.timeout(seconds):
            return await command.tell(Notify("command", words, "", ("f",)), OCCASION)

    return asyncio.run(bounded())


@pytest.fixture
def python() -> str:
    """A program whose way is root's and ours."""
    return os.path.realpath(sys.executable)


def test_it_gets_names_and_nothing_else(tmp_path: Path, python, monkeypatch):
    """Its arguments are those that are written, its environment is four variables, and its descriptors are the null device."""
    monkeypatch.setenv("SECRET", "canary")
    opened = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(opened, True)
    try:
        assert tell(python, "-Ic", SHOW, str(tmp_path / "shown"), "a b", "$HOME;*") == ""
    finally:
        os.close(opened)
    shown = json.loads((tmp_path / "shown").read_text())
    told = {"PRISM_VAULT_SCOPE": "web", "PRISM_VAULT_GENERATION": "7", "PRISM_VAULT_DIRECTORY": OCCASION.directory}
    shown["env"].pop("LC_CTYPE", None)  # Python's own doing
    assert shown["env"].pop("PATH").startswith("/usr/local/sbin:")
    assert shown == {"argv": ["a b", "$HOME;*"], "env": told, "cwd": "/", "session": True, "fds": ["/dev/null"] * 3}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("-Ic", "raise SystemExit(3)"), "ended with 3"),
        (("-Ic", "import os; os.kill(os.getpid(), 9)"), "was ended by signal 9"),
    ],
)
def test_a_failure_is_told_by_its_status(python, words, why):
    """A command that fails is told by exit status or signal; what it printed, which may be a value, is nowhere."""
    with pytest.raises(Unavailable, match=why):
        tell(python, *words)


def test_what_it_prints_holds_up_nobody(python):
    """A command that prints without end is as good as one that prints nothing."""
    assert tell(python, "-Ic", "for _ in range(2000): print('x' * 10000)") == ""


def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path, python):
    """When the time is up the command is killed, and with it every process of its group."""
    pids = tmp_path / "pids"
    script = f"import os, signal; os.fork(); open({str(pids)!r}, 'a').write(str(os.getpid()) + '\\n'); signal.pause()"

    async def cancelled() -> None:
        telling = asyncio.create_task(command.tell(Notify("command", (python, "-Ic", script), "", ("f",)), OCCASION))
        await asyncio.to_thread(wait_until, lambda: pids.exists() and pids.read_text().count("\n") == 2)
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling

    before = os.listdir("/proc/self/fd")
    asyncio.run(cancelled())
    numbers = [int(line) for line in pids.read_text().split()]
    wait_until(lambda: not any(psutil.pid_exists(each) for each in numbers))
    assert os.listdir("/proc/self/fd") == before


def test_a_command_that_cannot_be_run_is_told(tmp_path: Path):
    """A program that is not there, or is none, is a failure that names it."""
    tmp_path.chmod(0o755)
    none, text = tmp_path / "none", tmp_path / "text"
    text.write_text("no program")
    text.chmod(0o755)
    for program, why in ((none, "No such file"), (text, "Exec format error"), (tmp_path, "Permission denied|Is a directory")):
        with pytest.raises(Unavailable, match=why):
            tell(str(program))


def test_a_program_that_others_may_write_is_not_run(tmp_path: Path):
    """Who can write the program could run anything as the agent: it is refused, and not run."""
    ran, program = tmp_path / "ran", tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o775)
    with pytest.raises(Unavailable, match="may be written by others"):
        tell(str(program))
    program.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(program, NOBODY, -1)
        with pytest.raises(Unavailable, match="belongs to uid"):
            tell(str(program))
        os.chown(program, 0, -1)
    assert not ran.exists()
    assert tell(str(program)) == ""
    assert ran.exists()


def test_an_answer_is_bounded_and_one_line(python):
    """Of what a service of the host answers, the beginning is kept, and of that a line without control characters is told."""
    script = "print('one \\x1b[31m line'); print('x' * 1000000)"
    status, told = asyncio.run(run([python, "-Ic", script], {}, answer=True))
    assert (status, len(told)) == (0, LARGEST_ANSWER)
    assert one_line(told) == "one ?[31m line"
    assert len(one_line(b"y" * 5000)) == 300
