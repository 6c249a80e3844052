"""exec --on-rotate restart: by order of the agent the command is ended, and then started with new values."""

from __future__ import annotations

import os
import shlex
import signal
import time

import pytest

from tests.exec.fake_agent import answer, error
from tests.supervise.ordering import OrderingAgent
from tests.supervise.supervised import PYTHON, Marked, line, start, words
from tests.supervise.test_terminal import PROMPT, shell
from tests.support.soak import count
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

ROTATE = ("--on-rotate", "restart")
SAYS = ("sh", "-c", 'echo "$DB"; exec sleep 600')
# Ignores SIGTERM, and says when it comes.
IGNORES = (
    "import _signal, posix\n"
    "_signal.signal(15, lambda *_: posix.write(1, b'told\\n'))\n"
    "posix.write(1, posix.environ[b'DB'] + b'\\n')\n"
    "while True: _signal.pause()\n"
)


def test_new_values(tmp_path):
    """The command is ended and started with new values; supervisor and descriptors stay; each start says after which."""
    with OrderingAgent(tmp_path) as agent, start(agent, *SAYS, options=ROTATE) as process:
        for turn in range(1, 5):
            assert line(process) == str(turn)
            agent.order(turn)
        assert line(process) == "5"
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
        assert agent.after == [b"pva_1", b"pva_2", b"pva_3", b"pva_4"]


def test_the_old_one_has_ended_before_the_new_one_is_started(tmp_path):
    """Old and new are never there at a time: what only one can have, the new one gets, however long the old one takes to end."""
    command = f"mkdir {tmp_path}/lock || exit 9; trap 'sleep 0.2; rmdir {tmp_path}/lock; exit 0' TERM; sleep 600 & echo $DB; wait"
    with OrderingAgent(tmp_path) as agent, start(agent, "sh", "-c", command, options=ROTATE) as process:
        for turn in range(1, 4):
            assert line(process) == str(turn)
            agent.order(turn)
        assert line(process) == "4"
        process.terminate()
        assert process.wait(30) == 0


def test_twice_in_a_row(tmp_path):
    """Orders that come while the command is being ended are one: there is one new start."""
    with OrderingAgent(tmp_path, grace=0.6) as agent, start(agent, *PYTHON, IGNORES, options=ROTATE) as process:
        assert line(process) == "1"
        agent.order(1)
        assert line(process) == "told"
        agent.order(1)
        agent.order(1)
        assert line(process) == "2"
        process.kill()
    assert agent.starts == 2


def test_while_it_starts(tmp_path):
    """An order that is there as soon as anybody waits for one, before the command has done anything, is done once."""
    with (
        OrderingAgent(tmp_path) as agent,
        start(agent, "sh", "-c", 'echo "$DB" >> log; exec sleep 600', cwd=tmp_path, options=ROTATE) as process,
    ):
        for turn in range(1, 6):
            agent.order(turn)
        wait_until(lambda: "pva_6" in agent.waiting)
        wait_until(lambda: (tmp_path / "log").read_text().endswith("6\n"))
        process.terminate()
        process.wait(30)
        assert agent.starts == 6


def test_the_grace_of_a_command_that_ignores_it(tmp_path):
    """Who does not end is killed after the scope's grace, and started anew."""
    for grace in (0.4, 1.2):
        directory = tmp_path / str(grace)
        directory.mkdir()
        with OrderingAgent(directory, grace=grace) as agent, start(agent, *PYTHON, IGNORES, options=ROTATE) as process:
            assert line(process) == "1"
            agent.order(1)
            assert line(process) == "told"
            begun = time.monotonic()
            assert line(process) == "2"
            print(f"grace {grace} s: another one after {time.monotonic() - begun:.2f} s")
            process.kill()


def test_daemons_end_too(tmp_path):
    """What the old command has left, in sessions of its own and ignoring what it can, is gone when the new one starts."""
    marked = Marked()
    code = (
        "import _signal, posix, time\n"
        "for _ in range(5):\n"
        "    if posix.fork() == 0:\n"
        "        posix.setsid(); _signal.signal(15, _signal.SIG_IGN)\n"
        "        if posix.fork(): posix._exit(0)\n"
        "        posix.write(1, b'.\\n'); time.sleep(600)\n"
        "time.sleep(600)\n"
    )
    with OrderingAgent(tmp_path, grace=0.3) as agent, start(agent, *PYTHON, code, options=ROTATE, env=marked.env) as process:
        for turn in range(1, 4):
            assert [line(process) for _ in range(5)] == ["."] * 5
            wait_until(lambda: len(marked.alive()) == 8)  # with the supervisor, the lifeline and the command
            agent.order(turn)
        assert [line(process) for _ in range(5)] == ["."] * 5
        wait_until(lambda: len(marked.alive()) == 8)
        process.kill()
        process.wait(30)
        marked.wait_gone()


def test_denied(tmp_path):
    """Where the new start is denied the old values are not used any more either: nothing runs, and the status is 77."""
    marked = Marked()
    with OrderingAgent(tmp_path) as agent, start(agent, *SAYS, options=ROTATE, env=marked.env, stderr=-1) as process:
        assert line(process) == "1"
        agent.replies.append(error(77, "no more"))
        agent.order(1)
        assert process.wait(30) == 77
        assert process.stderr is not None
        assert process.stderr.read() == b"prism-vault: no more\n"
        assert marked.alive() == []


def test_provider_away(tmp_path):
    """Where the new start is not possible for now the old one has ended all the same, and it is tried again until it is."""
    with OrderingAgent(tmp_path) as agent, start(agent, *SAYS, options=ROTATE, stderr=-1) as process:
        assert line(process) == "1"
        agent.replies += [error(75, "the provider is away")] * 2
        agent.order(1)
        assert line(process) == "2"
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
        assert process.stderr is not None
        assert process.stderr.read().count(b"\n") == 2


def test_an_agent_that_comes_back(tmp_path):
    """The supervisor comes to the next agent and says which release it has; orders of that one are done."""
    with OrderingAgent(tmp_path) as first:
        process = start(first, *SAYS, options=ROTATE)
        assert line(process) == "1"
        wait_until(lambda: first.asked == ["pva_1"])
    os.unlink(first.path)
    with process, OrderingAgent(tmp_path, first=2) as second:
        second.order(1)
        assert line(process) == "2"
        second.order(2)
        assert line(process) == "3"
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
        assert second.asked == ["pva_1", "pva_2", "pva_3"]


def test_a_signal_that_the_command_had_a_use_for(tmp_path):
    """Who was typed Ctrl-C before, and went on, is started anew when it is ordered."""
    code = (
        "import _signal, posix\n"
        "_signal.signal(2, lambda *_: posix.write(1, b'got it\\n'))\n"
        "posix.write(1, posix.environ[b'DB'] + b'\\n')\n"
        "while True: _signal.pause()\n"
    )
    with OrderingAgent(tmp_path) as agent, start(agent, *PYTHON, code, options=ROTATE) as process:
        assert line(process) == "1"
        process.send_signal(signal.SIGINT)
        assert line(process) == "got it"
        agent.order(1)
        assert line(process) == "2"
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM


def test_asked_to_end_while_it_is_ended(tmp_path):
    """Who is asked to end while the command is ended for a new start ends with it: nothing is started."""
    with OrderingAgent(tmp_path, grace=1) as agent, start(agent, *PYTHON, IGNORES, options=ROTATE) as process:
        assert line(process) == "1"
        agent.order(1)
        assert line(process) == "told"
        process.terminate()
        assert process.wait(30) == -signal.SIGKILL
        assert agent.starts == 1


@pytest.mark.parametrize("in_a_shell", [False, True])
def test_on_a_terminal(tmp_path, in_a_shell):
    """The new command has the terminal as the old one had: it reads from it, and Ctrl-C reaches it."""
    code = (
        "import posix; posix.write(1, b'[start ' + posix.environ[b'DB'] + b']'); "
        "[posix.write(1, b'[' + posix.read(0, 100).strip() + b']') for _ in range(9)]"
    )
    with OrderingAgent(tmp_path) as agent:
        command = words(agent, *PYTHON, code, options=ROTATE)
        with shell(Marked()) if in_a_shell else Terminal(command, Marked().env) as terminal:
            if in_a_shell:
                terminal.type(shlex.join(command).encode() + b"\n")
            for turn in range(1, 4):
                terminal.expect(f"[start {turn}]".encode())
                terminal.type(f"line {turn}\n".encode())
                terminal.expect(f"[line {turn}]".encode())
                agent.order(turn)
            terminal.expect(b"[start 4]")
            terminal.type(b"\x03")
            if in_a_shell:
                terminal.expect(PROMPT)
                terminal.type(b"echo $?\n")
                terminal.expect(b"130\r\n")
            else:
                assert terminal.wait() == -signal.SIGINT
        assert agent.starts == 4


def test_without_orders_nobody_is_asked(tmp_path):
    """Where the agent says that no order may come the supervisor waits for none, and the command has its descriptors alone."""
    with OrderingAgent(tmp_path) as agent:
        agent.replies.append(answer({b"DB": b"1"}, more={"X-Prism-Vault-Orders": "0"}))
        with start(agent, "sh", "-c", "echo started; exec sleep 600 >&-", options=("--supervise",)) as process:
            assert process.stdout is not None
            assert process.stdout.read() == b"started\n"
            process.terminate()
            assert process.wait(30) == -signal.SIGTERM
        assert agent.asked == []


def test_killed_while_it_is_started_anew(tmp_path):
    """A supervisor that is killed at any moment of an ordered restart leaves nothing."""
    rounds = count(6, 30)
    for turn in range(rounds):
        marked, directory = Marked(), tmp_path / str(turn)
        directory.mkdir()
        with (
            OrderingAgent(directory, grace=0.15) as agent,
            start(agent, *PYTHON, IGNORES, options=ROTATE, env=marked.env) as process,
        ):
            assert line(process) == "1"
            agent.order(1)
            deadline = time.monotonic() + turn * 0.4 / rounds
            wait_until(lambda: time.monotonic() > deadline)  # noqa: B023 - of this turn
            process.kill()
            process.wait(30)
            marked.wait_gone()
    print(f"{rounds} supervisors killed while they start anew: survivors 0")
