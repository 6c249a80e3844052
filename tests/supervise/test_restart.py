"""exec --restart: a command that has ended is started again, each time with secrets of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.exec.fake_agent import FakeAgent, answer, error
from tests.supervise.supervised import PYTHON, Marked, children, line, start, words
from tests.support.soak import count
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import socket
    from pathlib import Path

ALWAYS = ("--restart", "always", "--restart-limit", "1000/1m")
LIMIT = "prism-vault: the command was started again 2 times within 60 s and has failed; it is left at that (--restart-limit)\n"
ONCE = "prism-vault: the command is started as soon as that is possible; until then nothing more is said\n"
IMPORTS = "import _signal, posix\n"
# Takes a line of a file for each start, and fails until there are three.
THIRD = 'echo "$DB" >> starts; [ $(wc -l < starts) -ge 3 ]'


class Turns:
    """The replies of an agent, one after the other; the last one for ever."""

    def __init__(self, *replies: bytes) -> None:
        self.left = list(replies)

    def __call__(self, connection: socket.socket) -> None:
        """Send the next one."""
        connection.sendall(self.left.pop(0) if len(self.left) > 1 else self.left[0])


def values(*each: str, grace: int = 10_000) -> Turns:
    """Return replies that release these values of ``DB``, one after the other."""
    return Turns(*(answer({b"DB": value.encode()}, more={"X-Prism-Vault-Grace-Ms": str(grace)}) for value in each))


def run(agent: FakeAgent, place: Path, *command: str, options: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end for good in the directory ``place``."""
    return subprocess.run(
        words(agent, *command, options=options), cwd=place, capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip


def test_until_it_does_not_fail(tmp_path):
    """Every start asks the agent anew and has the values of that time, the directory, and the output of the first."""
    with FakeAgent(tmp_path, values("one", "two", "three")) as agent:
        done = run(agent, tmp_path, "sh", "-c", f"{THIRD} && echo done", options=("--restart", "on-failure"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert (tmp_path / "starts").read_text().split() == ["one", "two", "three"]
    assert len(agent.requests) == 3


@pytest.mark.parametrize("end", ["exit 0", "kill -TERM $$", "kill -PIPE $$"])
def test_an_end_that_is_no_failure(tmp_path, end):
    """With on-failure a command that ended well, or by a signal that asks for that, is not started again."""
    with FakeAgent(tmp_path, values("1")) as agent:
        run(agent, tmp_path, "sh", "-c", end, options=("--restart", "on-failure"))
    assert len(agent.requests) == 1


@pytest.mark.parametrize(("end", "status"), [("exit 7", 7), ("kill -SEGV $$", -signal.SIGSEGV)])
def test_it_is_given_up(tmp_path, end, status):
    """After so many restarts in a time it is left at that: one line says so, and the status is the command's."""
    with FakeAgent(tmp_path, values("1")) as agent:
        done = run(agent, tmp_path, "sh", "-c", end, options=("--restart", "on-failure", "--restart-limit", "2/1m"))
    assert (done.returncode, done.stderr, len(agent.requests)) == (status, LIMIT, 3)


def test_the_first_start_is_as_without(tmp_path):
    """What keeps a command from starting the first time is told as without, and nothing is tried again."""
    with FakeAgent(tmp_path, error(75, "central is away")) as agent:
        done = run(agent, tmp_path, "true", options=ALWAYS)
    assert (done.returncode, done.stderr, len(agent.requests)) == (75, "prism-vault: central is away\n", 1)


def test_a_denial_is_the_end(tmp_path):
    """Where a further start is denied there is none: the line and the status are those of the denial."""
    with FakeAgent(tmp_path, Turns(answer({b"DB": b"1"}), error(77, "no more"))) as agent:
        done = run(agent, tmp_path, "true", options=ALWAYS)
    assert (done.returncode, done.stderr, len(agent.requests)) == (77, "prism-vault: no more\n", 2)


def test_an_agent_that_is_away_meanwhile(tmp_path):
    """While no start is possible it is tried again and again, which is said once, and it goes on when it is."""
    away = [error(75, "central is away")] * 2
    with FakeAgent(tmp_path, Turns(answer({b"DB": b"1"}), *away, answer({b"DB": b"2"}))) as agent:
        done = run(agent, tmp_path, "sh", "-c", 'echo "$DB"; [ "$DB" = 2 ]', options=("--restart", "on-failure"))
    assert (done.returncode, done.stdout) == (0, "1\n2\n")
    assert done.stderr == f"prism-vault: central is away\n{ONCE}"


def test_an_agent_that_is_gone_and_comes_back(tmp_path):
    """Also where nobody listens any more; whoever asks to end meanwhile is heard at once."""
    (tmp_path / "agent").mkdir()
    with FakeAgent(tmp_path / "agent", values("1")) as agent:
        first = start(agent, "sh", "-c", 'echo "$DB"; read end', options=ALWAYS, stdin=-1, stderr=-1)
        second = start(agent, "sh", "-c", 'echo "$DB"; read end', options=ALWAYS, stdin=-1, stderr=-1)
        assert (line(first), line(second)) == ("1", "1")
    os.unlink(agent.path)
    for process in (first, second):
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert b"no agent on" in process.stderr.readline()
        assert process.stderr.readline().decode() == ONCE
    first.terminate()
    assert first.wait(30) == -signal.SIGTERM
    with FakeAgent(tmp_path / "agent", values("2")):
        assert line(second) == "2"
    second.terminate()
    assert second.wait(30) == -signal.SIGTERM
    assert second.stderr is not None
    assert second.stderr.read() == b""
    for process in (first, second):
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_who_is_asked_to_end_is_not_started_again(tmp_path, number):
    """A command that ends after its supervisor was asked to is not started again, however it ends."""
    code = f"_signal.signal({int(number)}, lambda *_: posix._exit(5)); print('ready', flush=True)\nwhile True: _signal.pause()"
    with FakeAgent(tmp_path, values("1")) as agent, start(agent, *PYTHON, IMPORTS + code, options=ALWAYS) as process:
        assert line(process) == "ready"
        process.send_signal(number)
        assert process.wait(30) == 5
        assert len(agent.requests) == 1


def test_a_signal_that_the_command_had_a_use_for(tmp_path):
    """Who was typed Ctrl-C and went on for longer than the grace, and fails then, is started again."""
    code = IMPORTS + (
        "_signal.signal(2, lambda *_: posix.write(1, b'got it\\n'))\n"
        "posix.write(1, b'ready\\n')\n"
        "posix.read(0, 1); posix._exit(1)\n"
    )
    with (
        FakeAgent(tmp_path, values("1", grace=100)) as agent,
        start(agent, *PYTHON, code, options=ALWAYS, stdin=-1) as process,
    ):
        assert process.stdin is not None
        assert line(process) == "ready"
        process.send_signal(signal.SIGINT)
        assert line(process) == "got it"
        deadline = time.monotonic() + 0.3
        wait_until(lambda: time.monotonic() > deadline)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert line(process) == "ready"
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM


def test_a_hangup_is_passed_on(tmp_path):
    """SIGHUP reaches the command, which may look at its configuration again; a failure after it is one."""
    code = (
        "import _signal, posix\n"
        "_signal.pthread_sigmask(_signal.SIG_BLOCK, {1})\n"
        "print('ready', flush=True)\n"
        "_signal.sigwait({1})\n"
        "posix._exit(4)\n"
    )
    with FakeAgent(tmp_path, values("1")) as agent, start(agent, *PYTHON, code, options=ALWAYS) as process:
        for _ in range(2):
            assert line(process) == "ready"
            process.send_signal(signal.SIGHUP)
        assert line(process) == "ready"
        process.terminate()
        process.wait(30)


def test_asked_to_end_between_two_starts(tmp_path):
    """Who is asked to end while nothing runs ends at once, by that signal."""
    with FakeAgent(tmp_path, values("1")) as agent, start(agent, "false", options=ALWAYS) as process:
        (lifeline,) = wait_until(lambda: children(process.pid))
        wait_until(lambda: len(agent.requests) >= 3 and not children(lifeline))  # pauses have become a second long by then
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == -signal.SIGHUP


def test_ctrl_c_ends_it(tmp_path):
    """On a terminal Ctrl-C is for all of it: a command that takes it for a clean end is not started again."""
    code = IMPORTS + "_signal.signal(2, lambda *_: posix._exit(0)); print('[ready]', flush=True)\nwhile True: _signal.pause()"
    marked = Marked()
    with FakeAgent(tmp_path, values("1")) as agent, Terminal(words(agent, *PYTHON, code, options=ALWAYS), marked.env) as terminal:
        terminal.expect(b"[ready]")
        terminal.type(b"\x03")
        assert terminal.wait() == 0
        assert len(agent.requests) == 1
        marked.wait_gone()


def test_masked(tmp_path):
    """The values of each start are masked, and those of the one before."""
    first, second = "canary-number-1", "canary-number-2"
    command = 'echo "$DB $(cat before 2>/dev/null)"; echo "$DB" > before; [ "$DB" = canary-number-2 ]'
    with FakeAgent(tmp_path, values(first, second)) as agent:
        done = run(agent, tmp_path, "sh", "-c", command, options=("--restart", "on-failure", "--mask-output"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "******** \n******** ********\n", "")


def test_no_old_process_is_left_at_a_new_start(tmp_path):
    """What a start has left is ended within the grace before the next one is."""
    marked = Marked()
    code = (
        "import _signal, posix, time\n"
        "if posix.fork() == 0:\n"
        "    posix.setsid(); _signal.signal(15, _signal.SIG_IGN); posix.write(1, b'%d\\n' % posix.getpid()); time.sleep(600)\n"
        "posix.read(0, 1); posix._exit(1)\n"
    )
    with (
        FakeAgent(tmp_path, values("1", grace=200)) as agent,
        start(agent, *PYTHON, code, options=ALWAYS, env=marked.env, stdin=-1) as process,
    ):
        assert process.stdin is not None
        daemon = int(line(process))
        for _ in range(3):
            assert daemon in marked.alive()
            process.stdin.write(b"\n")
            process.stdin.flush()
            before, daemon = daemon, int(line(process))
            assert before not in marked.alive()
        process.kill()
        process.wait(30)
        marked.wait_gone()


# A daemon that ignores what it can; then the command fails.
FAILING = (
    "import _signal, posix, time\n"
    "for n in range(1, 65):\n"
    "    if n not in (9, 17, 19, 32, 33): _signal.signal(n, _signal.SIG_IGN)\n"
    "for _ in range(5):\n"
    "    if posix.fork() == 0: posix.setsid(); time.sleep(600)\n"
    "posix._exit(1)\n"
)


def test_killed_while_it_restarts(tmp_path):
    """A supervisor that is killed at any moment of a restart leaves nothing."""
    rounds, survivors = count(6, 30), 0
    with FakeAgent(tmp_path, values("1", grace=100)) as agent:
        for turn in range(rounds):
            marked, asked = Marked(), len(agent.requests)
            with start(agent, *PYTHON, FAILING, options=ALWAYS, env=marked.env) as process:
                wait_until(lambda: len(agent.requests) > asked)  # noqa: B023 - of this turn
                deadline = time.monotonic() + turn * 1.2 / rounds
                wait_until(lambda: time.monotonic() > deadline)  # noqa: B023 - of this turn
                process.kill()
                process.wait(30)
                marked.wait_gone()
                survivors += len(marked.alive())
    print(f"{rounds} supervisors killed while they restart: survivors {survivors}")
    assert survivors == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--restart", "never"), "--restart takes one of no, on-failure, always"),
        (("--restart", "always", "--restart-limit", "5"), "--restart-limit takes a number and a time, such as 5/1m"),
        (("--restart", "always", "--restart-limit", "5/soon"), "--restart-limit takes a time of up to 5m"),
    ],
)
def test_words_that_are_none(tmp_path, options, told):
    """A word that --restart or its limit does not know is refused before anything is asked."""
    with FakeAgent(tmp_path, values("1")) as agent:
        done = run(agent, tmp_path, "true", options=options)
    assert (done.returncode, agent.requests) == (64, [])
    assert re.match(f"prism-vault: {told}", done.stderr)
