"""A supervisor without an agent is told when one comes, and asks it then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.supervise.ordering import OrderingAgent
from tests.supervise.supervised import line, start
from tests.supervise.test_ordered import ROTATE, SAYS
from tests.support.waiting import wait_until

# Has nobody to ask, and would not try again by itself; then does what a supervisor does with SIGIO, until it is connected.
WAITS = (
    "import math, select, signal, sys\n"
    "from prism_vault_agent.exec import kernel\n"
    "from prism_vault_agent.exec.orders import Orders\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, kernel.CATCHABLE)\n"
    "signals, poll = kernel.signal_descriptor(), select.poll()\n"
    "poll.register(signals, select.POLLIN)\n"
    "orders = Orders(sys.argv[1:], poll)\n"
    "orders.follow(b'pva_1')\n"
    "while orders.connection is None:\n"
    "    orders.due = math.inf\n"
    "    print('waits', flush=True)\n"
    "    poll.poll(None)\n"
    "    assert {each.number for each in kernel.read_signals(signals)} == {signal.SIGIO} and orders.came()\n"
    "    while orders.connection is None and orders.left() > 0: poll.poll(1)\n"
    "    orders.connect()\n"
    "print('connected', orders.watched, flush=True)\n"
)


@pytest.mark.parametrize("depth", [0, 2], ids=["the directory is there", "it is made, too"])
def test_a_socket_that_comes(tmp_path, depth):
    """Whatever is made on the way to the agent's socket is looked at when it is there, and the socket is connected to."""
    directory = tmp_path.joinpath(*["below"] * depth)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = [sys.executable, "-c", WAITS, f"{tmp_path}/never/agent.sock", f"{directory}/agent.sock"]
    with OrderingAgent(elsewhere) as agent, subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        for each in reversed([directory, *directory.parents][:depth]):
            each.mkdir()
            assert process.stdout.readline() == "waits\n"
        os.rename(agent.path, directory / "agent.sock")
        assert process.stdout.readline() == "connected []\n"
        assert agent.asked == ["pva_1"] or wait_until(lambda: agent.asked == ["pva_1"])


def test_what_comes_while_it_is_connected_to(tmp_path):
    """Things that are made beside the socket at that moment mean nothing to the command, which lives on."""
    with OrderingAgent(tmp_path) as agent:
        for turn in range(1, 9):
            directory = tmp_path / str(turn)
            made = f"for each in $(seq 200); do : > {directory}-$each; done; echo $DB; exec sleep 600"
            with start(agent, "sh", "-c", made, options=ROTATE) as process:
                assert line(process) == str(turn)
                wait_until(lambda: len(agent.asked) == turn)  # noqa: B023 - of this turn
                assert process.poll() is None
                process.terminate()
                assert process.wait(30) == -signal.SIGTERM


def test_after_a_while(tmp_path):
    """A supervisor comes to an agent that was away for a while when it is there, though its attempts are seldom by then."""
    with OrderingAgent(tmp_path) as first:
        process = start(first, *SAYS, options=ROTATE)
        assert line(process) == "1"
        wait_until(lambda: first.asked == ["pva_1"])
    os.unlink(first.path)
    with process:
        until = time.monotonic() + 2
        wait_until(lambda: time.monotonic() > until)  # so that attempts are seldom
        begun = time.monotonic()
        with OrderingAgent(tmp_path, first=2) as second:
            wait_until(lambda: second.asked == ["pva_1"])
            print(f"asked after {time.monotonic() - begun:.3f} s")
            process.kill()
