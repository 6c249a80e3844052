"""exec --mask-output: what the command prints comes through without the values, and nothing else is changed."""

from __future__ import annotations

import base64
import hashlib
import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.mask.conftest import KEY, SECRET
from tests.supervise.supervised import PYTHON, Marked, children, command_of, words
from tests.support.agent import LAUNCHER
from tests.support.memory import copies
from tests.support.soak import count
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.exec.fake_agent import FakeAgent

NOTE = b"prism-vault: too short to be masked in the output: PORT\n"
MASKING = ("--mask-output",)


def run(agent: FakeAgent, *command: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a masked command to its end."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60, "env": {"PATH": "/usr/bin:/bin"}, **options}
    return subprocess.run(words(agent, *command, options=MASKING), check=False, **options)


def test_both_streams(agent):
    """Values are replaced in output and error, in other encodings and line by line; the status is the command's."""
    code = (
        "import base64, os, sys\n"
        "token, key = os.environb[b'TOKEN'], os.environb[b'KEY']\n"
        "os.write(1, b'a ' + token + b' b ' + base64.b64encode(b'user:' + token) + b' c ' + os.environb[b'PORT'] + b'\\n')\n"
        "os.write(2, b'> ' + key.splitlines()[1] + b' <\\n')\n"
        "sys.exit(9)\n"
    )
    done = run(agent, sys.executable, "-IS", "-c", code)
    assert done.returncode == 9
    assert SECRET not in done.stdout
    assert done.stdout.startswith(b"a ******** b dXNlcj")
    assert done.stdout.endswith(b" c 5432\n")
    assert base64.b64encode(b"user:" + SECRET)[8:-4] not in done.stdout
    assert done.stderr == NOTE + b"> ******** <\n"


def test_in_pieces(agent):
    """A value that is written byte by byte, or in two parts with a pause, is replaced."""
    code = (
        "import os, time\n"
        "for byte in os.environb[b'TOKEN']: os.write(1, bytes((byte,)))\n"
        "os.write(1, b'|')\n"
        "os.write(1, os.environb[b'TOKEN'][:9]); time.sleep(0.3); os.write(1, os.environb[b'TOKEN'][9:])\n"
    )
    assert run(agent, sys.executable, "-IS", "-c", code).stdout == b"********|********"


def test_every_other_byte_comes_through(agent):
    """Ten million bytes of any kind come through as they are."""
    code = "import random, os\nrandom.seed(1)\nfor _ in range(100): os.write(1, random.randbytes(100_000))"
    plain = subprocess.run([sys.executable, "-IS", "-c", code], stdout=subprocess.PIPE, check=True).stdout
    masked = run(agent, sys.executable, "-IS", "-c", code).stdout
    assert hashlib.sha256(masked).digest() == hashlib.sha256(plain).digest()


def test_output_and_error_in_one_file_keep_their_order(agent, tmp_path):
    """Where both go to one file their order stays."""
    code = "import os\nfor n in range(200): os.write(1 + n % 2, b'%d ' % n)"
    with (tmp_path / "both").open("wb") as both:
        run(agent, *PYTHON, code.replace("import os", "import posix as os"), stdout=both, stderr=both)
    assert (tmp_path / "both").read_bytes() == NOTE + b"".join(b"%d " % number for number in range(200))


def test_what_is_printed_is_there_at_once(agent):
    """A prompt is not held back until something follows."""
    code = "import posix; posix.write(1, b'name: can'); posix.read(0, 1)"
    command = words(agent, *PYTHON, code, options=MASKING)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        read = b""
        while len(read) < len(b"name: can"):
            assert select.select([process.stdout], [], [], 30)[0]
            read += os.read(process.stdout.fileno(), 100)
        assert read == b"name: can"
        process.communicate(b"\n", timeout=30)
    assert process.returncode == 0


def test_a_reader_that_goes_away(agent):
    """Where nobody reads any more the command is told by SIGPIPE, as without a mask."""
    command = words(agent, "yes", options=MASKING)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"y\ny\n"
        process.stdout.close()
        assert process.wait(30) == -signal.SIGPIPE


def test_who_holds_the_values(agent):
    """Only the command and the process that masks have them; that one is closed to its own user."""
    code = "import posix, time; posix.write(1, b'.'); time.sleep(600)"
    with subprocess.Popen(
        words(agent, *PYTHON, code, options=MASKING), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        command = command_of(process.pid)
        (masker,) = [pid for pid in children(process.pid) if not children(pid)]
        (lifeline,) = [pid for pid in children(process.pid) if children(pid)]
        assert (copies(process.pid, SECRET.decode()), copies(lifeline, SECRET.decode())) == (0, 0)
        assert copies(masker, SECRET.decode()) > 0
        assert copies(command, SECRET.decode()) > 0
        assert os.stat(f"/proc/{masker}/mem").st_uid == 0
        os.kill(masker, signal.SIGKILL)
        process.terminate()
        assert process.wait(30) == 70


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left(agent, how):
    """However the supervisor is ended, the process that masks ends too."""
    marked = Marked()
    for _ in range(count(2, 20)):
        command = words(agent, "sh", "-c", "setsid sleep 600 & echo started; exec sleep 600", options=MASKING)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=marked.env) as process:
            assert process.stdout is not None
            assert process.stdout.read(8) == b"started\n"
            process.send_signal(how)
            assert process.wait(30) == -how
            marked.wait_gone()


def test_no_command(agent):
    """What keeps a command from starting is told as without, and with the same status."""
    done = run(agent, "no-such-command")
    assert done.returncode == 127
    assert done.stderr.startswith(b"prism-vault: scope web: there is no command")


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1), (0, 1, 2)])
def test_a_closed_descriptor_stays_closed(agent, tmp_path, closed):
    """What the caller has closed of the standard descriptors is closed in the masked command, and the others are masked."""
    code = (
        "import os\n"
        "def is_open(n):\n"
        "    try: os.fstat(n)\n"
        "    except OSError: return False\n"
        "    return True\n"
        "there = [is_open(n) for n in range(3)]\n"
        "for n in (1, 2):\n"
        "    if there[n]: os.write(n, os.environb[b'TOKEN'])\n"
        f"with open({str(tmp_path / 'open')!r}, 'w') as told: told.write(repr(there))\n"
    )
    redirected = " ".join(f"{number}>&-" for number in closed)
    shell = ["sh", "-c", f'exec "$@" {redirected}', "sh", *words(agent, sys.executable, "-ISc", code, options=MASKING)]
    done = subprocess.run(shell, capture_output=True, check=True, timeout=60, env={"PATH": "/usr/bin:/bin"})
    assert (tmp_path / "open").read_text() == repr([number not in closed for number in range(3)])
    assert done.stdout == (b"" if 1 in closed else b"********")
    assert done.stderr == (b"" if 2 in closed else NOTE + b"********")


def test_help_and_dry_run(agent):
    """With --dry-run nothing is masked, since nothing runs."""
    done = subprocess.run([LAUNCHER, "exec", "--help"], capture_output=True, check=True)
    assert b"--mask-output" in done.stdout
    assert KEY not in done.stdout


# Tells what its output is, and what it gets; it changes the terminal's mode by its output's descriptor, as curses does.
TERMINAL = (
    "import os, sys, termios, tty\n"
    "size = os.get_terminal_size()\n"
    "os.write(1, f'[{os.isatty(1)} {os.isatty(2)} {size.lines}x{size.columns}]'.encode())\n"
    "os.write(1, b'\\x1b[31m' + os.environb[b'TOKEN'] + b'\\x1b[0m\\n' + os.environb[b'KEY'] + b'\\n[line]')\n"
    "os.write(1, b'[got ' + os.read(0, 100) + b']')\n"
    "mode = termios.tcgetattr(1)\n"
    "tty.setcbreak(1)\n"
    "os.write(1, b'[raw]')\n"
    "os.write(1, b'[key ' + os.read(0, 1) + b']')\n"
    "termios.tcsetattr(1, termios.TCSANOW, mode)\n"
    "os.write(1, b'[size]')\n"
    "while os.get_terminal_size().lines != 40: pass\n"
    "os.write(1, b'[end]')\n"
    "sys.exit(3)\n"
)


def test_on_a_terminal(agent):
    """On a terminal the output is one, with its size, colours and line ends; modes that the command sets are the terminal's."""
    marked = Marked()
    with Terminal(words(agent, sys.executable, "-ISc", TERMINAL, options=MASKING), marked.env) as terminal:
        terminal.resize(30, 90)
        terminal.expect(b"[True True ")
        terminal.expect(b"]")
        assert terminal.expect(b"[line]") == b"\x1b[31m********\x1b[0m\r\n********\r\n"
        terminal.type(b"hello\n")
        assert b"hello" in terminal.expect(b"]")
        terminal.expect(b"[raw]")
        wait_until(lambda: not terminal.canonical())
        terminal.type(b"k")
        terminal.expect(b"[key k]")
        terminal.expect(b"[size]")
        wait_until(terminal.canonical)
        terminal.resize(40, 90)
        terminal.expect(b"[end]")
        assert terminal.wait() == 3
        assert SECRET not in terminal.unread


def test_ctrl_c_on_a_terminal(agent):
    """Ctrl-C and the window's size reach a masked command."""
    code = (
        "import os, signal\n"
        "got = {signal.SIGINT, signal.SIGWINCH}\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, got)\n"
        "os.write(1, b'[ready]')\n"
        "while True: os.write(1, b'[%d]' % signal.sigwait(got))\n"
    )
    marked = Marked()
    with Terminal(words(agent, sys.executable, "-ISc", code, options=MASKING), marked.env) as terminal:
        terminal.expect(b"[ready]")
        terminal.type(b"\x03")
        terminal.expect(b"[2]")
        terminal.resize(33, 99)
        terminal.expect(b"[28]")
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait() == -signal.SIGTERM
        marked.wait_gone()
