"""How a supervised command ended is how its supervisor ends."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.supervise.supervised import CATCHABLE, start, words
from tests.support.soak import count

if TYPE_CHECKING:
    from tests.exec.fake_agent import FakeAgent

DEADLY = sorted({*CATCHABLE, signal.SIGKILL} - {
    signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
})  # fmt: skip


def status(agent: FakeAgent, *command: str, options: tuple[str, ...] = ("--supervise",), **more: bool) -> int:
    """Return how a supervised command ended, as `subprocess` tells it."""
    return start(agent, *command, options=options, stdout=None, **more).wait(30)


@pytest.mark.parametrize("own_session", [False, True])
def test_every_exit_status(agent, own_session):
    """Each of the 256 exit statuses comes through, in a session of its own and in the caller's."""
    for number in range(0, 256, count(16, 1)):
        assert status(agent, "sh", "-c", f"exit {number}", start_new_session=own_session) == number


def test_death_by_signal(agent):
    """Where a signal ended the command the supervisor ends by it too, so that who waits sees no difference."""
    for number in DEADLY[:: count(6, 1)]:
        command = ("sh", "-c", f"kill -{int(number)} $$")
        assert status(agent, *command) == status(agent, *command, options=()) == -number


def test_a_shell_sees_128_and_the_number(agent):
    """A shell above tells 128 and the signal's number."""
    done = subprocess.run(
        ["sh", "-c", '"$@"; echo $?', "sh", *words(agent, "sh", "-c", "kill $$")], capture_output=True, check=True
    )
    assert done.stdout == b"143\n"


def test_the_first_process_of_a_namespace(agent):
    """Where the kernel does not let the supervisor end by a signal, as in a container, it ends with 128 and the number."""
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    done = subprocess.run([*inside, *words(agent, "sh", "-c", "kill $$")], check=False)
    assert done.returncode == 143


def test_what_keeps_a_command_from_starting(agent, tmp_path):
    """Statuses and lines are those of exec without a supervisor: no command, not executable, no scope, no agent."""
    (tmp_path / "plain").write_text("")
    for command in (["no-such-command"], [str(tmp_path / "plain")], []):
        plain, supervised = (
            subprocess.run(words(agent, *command, options=options), capture_output=True, check=False)
            for options in ((), ("--supervise",))
        )
        assert (supervised.returncode, supervised.stderr) == (plain.returncode, plain.stderr)
        assert supervised.returncode in (64, 126, 127)
    nobody = str(tmp_path / "none")
    done = agent.run("--supervise", "--scope", "web", "--socket", nobody, "--", "true")
    assert done.returncode == 69


def test_a_dry_run_is_one(agent):
    """With --dry-run there is nothing to supervise, and no command is needed."""
    assert agent.run("--supervise", "--dry-run", "--scope", "web").returncode == 76  # this agent answers with an environment
