"""On a real terminal a supervised command is what it would be without: each scenario runs with a supervisor and without.

In a shell with job control, and as the leader of the terminal's session, as in a container.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.supervise.supervised import Marked, status_of, stopped, words
from tests.support.soak import count
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.exec.fake_agent import FakeAgent

PROMPT = b"<prompt>"
RESTARTED = ("--restart", "on-failure", "--restart-limit", "0/1m")
BOTH = pytest.mark.parametrize(
    "options", [(), ("--supervise",), ("--mask-output",), RESTARTED], ids=["plain", "supervised", "masked", "restarted"]
)
# Tells each line that it is typed, each signal that it gets, and its window's size. What is ready may not be there any more
# (select(2), BUGS): Ctrl-Z takes away what was typed, and who looks just then takes that for a line.
ECHO = (
    "import os, select, signal, sys\n"
    "def tell(text): os.write(1, f'[{text}]\\n'.encode())\n"
    "reading, writing = os.pipe()\n"
    "typed = os.open('/dev/tty', os.O_RDONLY | os.O_NONBLOCK)\n"
    "os.set_blocking(writing, False)\n"
    "signal.set_wakeup_fd(writing)\n"
    "for number in (signal.SIGINT, signal.SIGWINCH, signal.SIGCONT, signal.SIGTERM): signal.signal(number, lambda *_: None)\n"
    "tell(f'ready {os.getpid()}')\n"
    "while True:\n"
    "    for descriptor in select.select([typed, reading], [], [])[0]:\n"
    "        try: got = os.read(descriptor, 4096)\n"
    "        except BlockingIOError: continue\n"
    "        if not got: sys.exit(0)\n"
    "        if descriptor == reading:\n"
    "            size = os.get_terminal_size()\n"
    "            for number in got: tell(f'{signal.Signals(number).name} {size.lines}x{size.columns}')\n"
    "        else:\n"
    "            for line in got.decode().splitlines(): tell(f'line {line}')\n"
    "            if 'end' in got.decode().splitlines(): sys.exit(7)\n"
)
READS = "import os, sys; print('[' + f'ready {os.getpid()}]', flush=True); print('[line', input() + ']', flush=True)"


def echo(agent: FakeAgent, options: tuple[str, ...]) -> list[str]:
    """Return the command line of the program that tells what it gets."""
    return words(agent, sys.executable, "-ISc", ECHO, options=options)


@contextlib.contextmanager
def shell(marked: Marked) -> Iterator[Terminal]:
    """Run an interactive shell with job control; nothing of it may be left afterwards."""
    with Terminal(["/bin/bash", "--norc", "--noprofile", "--noediting", "-i"], marked.env | {"PS1": PROMPT.decode()}) as terminal:
        terminal.expect(PROMPT)
        yield terminal
    marked.wait_gone()


def ready(terminal: Terminal) -> int:
    """Wait until the program is ready; return its process id."""
    terminal.expect(b"[ready ")
    return int(terminal.expect(b"]"))


def job(terminal: Terminal, command: list[str]) -> int:
    """Start a program from the shell; return its process id when it is ready."""
    terminal.type(shlex.join(command).encode() + b"\n")
    return ready(terminal)


@BOTH
def test_ctrl_c(agent, options):
    """Ctrl-C reaches a command that handles it once, and ends one that does not, together with the script that it is in."""
    with shell(Marked()) as terminal:
        for _ in range(count(1, 10)):
            job(terminal, echo(agent, options))
            terminal.type(b"\x03")
            terminal.expect(b"[SIGINT ")
            terminal.type(b"a\nend\n")
            assert b"SIGINT" not in terminal.expect(b"[line end]\r\n" + PROMPT)
            terminal.type(b"echo $?\n")
            terminal.expect(b"7\r\n" + PROMPT)
        script = f"{shlex.join(words(agent, 'sh', '-c', 'echo started; exec sleep 600', options=options))}; echo not-ended"
        terminal.type(f"bash -c {shlex.quote(script)}\n".encode())
        terminal.expect(b"\nstarted\r\n")
        terminal.type(b"\x03")
        assert b"\nnot-ended" not in terminal.expect(PROMPT)
        terminal.type(b"echo $?\n")
        terminal.expect(b"130\r\n" + PROMPT)


@BOTH
def test_ctrl_z_and_fg(agent, options):
    """Ctrl-Z stops the job and gives the shell its prompt; fg and bg continue it, once each time; then it ends as it ends."""
    with shell(Marked()) as terminal:
        command = job(terminal, echo(agent, options))
        for turn in range(count(2, 20)):
            terminal.type(b"\x1a")
            terminal.expect(b"Stopped")
            terminal.expect(PROMPT)
            assert stopped(command)
            terminal.type(b"fg\n")
            terminal.expect(b"[SIGCONT ")
            terminal.type(b"line-%d\n" % turn)
            assert b"SIGCONT" not in terminal.expect(b"[line line-%d]" % turn)
        terminal.type(b"\x1a")
        terminal.expect(b"Stopped")
        terminal.expect(PROMPT)
        terminal.type(b"kill %1; fg\n")
        terminal.expect(b"[SIG")
        # It went on with the signal, before fg: what is typed now would be read in the background, and stop it.
        wait_until(lambda: terminal.foreground() == os.getpgid(command))
        terminal.type(b"end\n")
        terminal.expect(b"[line end]\r\n" + PROMPT)
        terminal.type(b"echo $?\n")
        terminal.expect(b"7\r\n" + PROMPT)


@BOTH
def test_window_size(agent, options):
    """A change of the window's size reaches the command once."""
    with shell(Marked()) as terminal:
        job(terminal, echo(agent, options))
        for rows in range(30, 30 + count(3, 30)):
            terminal.resize(rows, 100)
            terminal.expect(b"[SIGWINCH %dx100]" % rows)
        terminal.type(b"end\n")
        assert b"SIGWINCH" not in terminal.expect(b"[line end]")


@BOTH
def test_background_read(agent, options):
    """A job in the background that reads the terminal is stopped, and the shell says so; in the foreground it reads."""
    with shell(Marked()) as terminal:
        terminal.type(shlex.join(words(agent, sys.executable, "-ISc", READS, options=options)).encode() + b" &\n")
        command = ready(terminal)
        started = command if not options else int(status_of(int(status_of(command, "PPid")), "PPid"))
        wait_until(lambda: stopped(command) and stopped(started))
        terminal.type(b"jobs\n")
        terminal.expect(b"Stopped")
        terminal.expect(PROMPT)
        terminal.type(b"fg\n")
        terminal.type(b"here\n")
        terminal.expect(b"[line here]\r\n")
        terminal.expect(PROMPT)


@BOTH
@pytest.mark.parametrize("at", ["foreground", "stopped"])
def test_hang_up(agent, options, at):
    """When the terminal is gone, the job is ended with the shell, also one that is stopped."""
    marked = Marked()
    with shell(marked) as terminal:
        command = job(terminal, echo(agent, options))
        if at == "stopped":
            terminal.type(b"\x1a")
            terminal.expect(PROMPT)
        terminal.hang_up()
        wait_until(lambda: not Path(f"/proc/{command}").exists() or not marked.alive())
        marked.wait_gone()


@BOTH
def test_pipeline(agent, options):
    """In a pipeline the other programs keep the terminal too, and Ctrl-Z and Ctrl-C mean all of it."""
    with shell(Marked()) as terminal:
        code = "up = input(); print('[other]', open('/dev/tty').readline().strip(), flush=True); input()"
        command = words(agent, "sh", "-c", "echo up; exec sleep 600", options=options)
        terminal.type(f"{shlex.join(command)} | {shlex.join([sys.executable, '-ISc', code])}\n".encode())
        terminal.type(b"typed\n")
        terminal.expect(b"[other] typed")
        pipeline = terminal.foreground()
        terminal.type(b"\x1a")
        terminal.expect(b"Stopped")
        terminal.expect(PROMPT)
        terminal.type(b"fg\n")
        # Ctrl-C takes away what was typed before it and is not read yet.
        wait_until(lambda: terminal.foreground() == pipeline)
        terminal.type(b"\x03")
        terminal.expect(PROMPT)


@BOTH
def test_a_shell_below(agent, options):
    """An interactive shell as the command takes the terminal, gives it back when it is suspended, and goes on with fg."""
    with shell(Marked()) as terminal:
        terminal.type(shlex.join(words(agent, "bash", "--norc", "--noediting", "-i", options=options)).encode() + b"\n")
        terminal.expect(PROMPT)
        terminal.type(b"echo $((6*7))-$DB\n")
        terminal.expect(b"42-********" if options == ("--mask-output",) else b"42-canary")
        terminal.expect(PROMPT)
        for _ in range(count(2, 10)):
            terminal.type(b"suspend -f\n")
            terminal.expect(b"Stopped")
            terminal.expect(PROMPT)
            terminal.type(b"fg\n")
            terminal.type(b"echo $((6*7))\n")
            terminal.expect(b"42\r\n" + PROMPT)
        terminal.type(b"exit 9\n")
        terminal.expect(PROMPT)
        terminal.type(b"echo $?\n")
        terminal.expect(b"9\r\n" + PROMPT)


@BOTH
def test_as_the_leader_of_the_session(agent, options):
    """On a terminal without a shell Ctrl-C, the window's size and typing are the command's, and Ctrl-Z does nothing."""
    marked = Marked()
    with Terminal(echo(agent, options), marked.env) as terminal:
        command = ready(terminal)
        assert terminal.foreground() == os.getpgid(command)
        terminal.resize(31, 101)
        terminal.expect(b"[SIGWINCH 31x101]")
        terminal.type(b"\x03")
        terminal.expect(b"[SIGINT ")
        terminal.type(b"\x1a")
        terminal.type(b"after\n")
        terminal.expect(b"[line after]")
        os.kill(terminal.pid, signal.SIGTERM)
        terminal.expect(b"[SIGTERM ")
        terminal.type(b"end\n")
        terminal.expect(b"[line end]")
        assert terminal.wait() == 7


@BOTH
def test_the_leader_hangs_up(agent, options):
    """On a terminal without a shell the command is ended when the terminal is gone."""
    marked = Marked()
    with Terminal(words(agent, "sh", "-c", "echo started; exec sleep 600", options=options), marked.env) as terminal:
        terminal.expect(b"started")
        terminal.hang_up()
        assert terminal.wait() == -signal.SIGHUP
        marked.wait_gone()
