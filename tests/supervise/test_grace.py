"""How long what a command leaves has to end is what its scope says."""

from __future__ import annotations

import signal
import time

import pytest

from tests.exec.fake_agent import FakeAgent, answer
from tests.supervise.supervised import PYTHON, Marked, start

# A daemon that says that it was told to end, and does not.
LEFT = (
    "import posix, _signal, time\n"
    "told = lambda *_: posix.write(1, b'told')\n"
    "if posix.fork() == 0:\n"
    "    posix.setsid(); _signal.signal(15, told); posix.write(1, b'.')\n"
    "    while True: time.sleep(600)\n"
    "posix.read(0, 1)\n"
)


@pytest.mark.parametrize("grace", [0.3, 1.5])
def test_the_grace_of_the_scope(tmp_path, grace):
    """What is left is asked to end when the command has ended, and is killed after the scope's grace."""
    marked = Marked()
    with (
        FakeAgent(tmp_path, answer({b"DB": b"1"}, more={"X-Prism-Vault-Grace-Ms": str(int(grace * 1000))})) as agent,
        start(agent, *PYTHON, LEFT, stdin=-1, env=marked.env) as process,
    ):
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.read(1) == b"."
        process.stdin.close()
        assert process.stdout.read(4) == b"told"
        begun = time.monotonic()
        assert process.wait(grace + 8) == 0  # the 10 s of an agent that tells none would be over that
        print(f"grace {grace} s, killed after {time.monotonic() - begun:.2f} s")
        assert marked.alive() == []


def test_a_grace_that_is_none(tmp_path):
    """A grace that is no number is as if none were told: the command runs and can be ended."""
    with (
        FakeAgent(tmp_path, answer({b"DB": b"1"}, more={"X-Prism-Vault-Grace-Ms": "soon"})) as agent,
        start(agent, *PYTHON, "import posix, time; posix.write(1, b'.'); time.sleep(600)") as process,
    ):
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
