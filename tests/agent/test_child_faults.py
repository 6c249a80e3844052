"""Faults around a command and who started it, with a real agent: a thread that ends, a signal while the secrets are fetched."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support import history
from tests.support.fault_proxy import Fault, always
from tests.support.stack import Stack, is_read, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def made() -> Iterator[Stack]:
    """A stack of this file's own."""
    with stack(reservation_ttl="60s") as running:
        yield running


@pytest.mark.parametrize("options", [(), ("--supervise",)])
def test_f71_a_command_lives_on_when_the_thread_that_started_it_ends(made, options):
    """A service that starts commands from threads loses none of them at the end of a thread: nothing hangs on the parent's."""
    started: list[subprocess.Popen[str]] = []
    words = ("--scope", "web", *options, "--", "sh", "-c", "echo ready; exec cat")
    thread = threading.Thread(target=lambda: started.append(made.agent.spawn(*words, stdin=subprocess.PIPE)))
    thread.start()
    thread.join()
    (child,) = started
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    out, _ = child.communicate("still here\n", timeout=60)
    assert (child.returncode, out) == (0, "still here\n")


@pytest.mark.parametrize("options", [(), ("--supervise",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_f80_a_signal_while_the_secrets_are_fetched_leaves_no_command_and_a_row(made, options, number):
    """Who ends exec while the provider is read sees it end by that signal; no command was there, and the log says why.

    A plain caller that is gone is denied; below a supervisor it is known to have been ended, and the render has failed.
    """
    made.settle()
    before = len(made.rows())
    with made.to_openbao.failing(always(Fault("hang"), is_read)):
        reads = made.reads
        child = made.agent.spawn("--scope", "web", *options, "--", "/bin/echo", "the command ran", start_new_session=True)
        wait_until(lambda: made.reads > reads)
        os.kill(child.pid, number)
        out, _ = child.communicate(timeout=60)
    assert (child.returncode, out) == (-number, "")
    made.settle()
    rows = made.rows(before)
    kind, reason = ("failure", "interrupted") if options else ("denied", "peer_gone")
    assert (history.kinds(rows), rows[-1]["reason"]) == (["reserved", kind], reason), rows
