"""The command is what it would have been without us, but for its environment and its core files."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.exec.fake_agent import LAUNCHER, FakeAgent, answer
from tests.exec.test_client import told

CANARY = b"canary-7f3a"


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """An agent that releases one value."""
    with FakeAgent(tmp_path_factory.mktemp("agent"), answer({b"DB": CANARY})) as running:
        yield running


def test_every_exit_status(agent):
    """All 256 exit statuses of the command come through."""
    for status in range(256):
        assert agent.run("--scope", "web", "--", "sh", "-c", f"exit {status}").returncode == status


@pytest.mark.parametrize("number", ["TERM", "KILL", "ABRT", "SEGV", "PIPE", "XFSZ"])
def test_death_by_signal(agent, number):
    """The command's death by a signal is ours."""
    assert agent.run("--scope", "web", "--", "sh", "-c", f"kill -{number} $$").returncode == -signal.Signals[f"SIG{number}"]


def test_same_process(agent):
    """The command has the process id, parent, session and process group that the client had: nothing stays in between."""
    code = "import posix; print(posix.getpid(), posix.getppid(), posix.getsid(0), posix.getpgrp())"
    command = [*LAUNCHER, "exec", "--socket", agent.path, "--scope", "web", "--", sys.executable, "-ISE", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        told_by_child = [int(word) for word in child.stdout.read().split()]
    assert told_by_child == [child.pid, os.getpid(), os.getsid(0), os.getpgrp()]


def test_descriptors(agent, tmp_path):
    """The command has exactly the descriptors that the caller gave: none of ours, and each that was passed on purpose."""
    code = "import posix; print(sorted(int(fd) for fd in posix.listdir('/proc/self/fd')))"
    with (tmp_path / "given").open("w") as given:
        done = agent.python(code, pass_fds=[given.fileno()])
        number = given.fileno()
    found = json.loads(done.stdout)
    assert found[:3] == [0, 1, 2]
    assert set(found) - {0, 1, 2, number} == {3}  # the listing itself
    assert number in found


def test_closed_standard_descriptors(agent):
    """Standard descriptors that the caller closed are closed in the command, and the socket is in none of them."""
    code = "import posix; posix.write(2, ' '.join(sorted(posix.listdir('/proc/self/fd'))).encode())"
    words = [*LAUNCHER, "exec", "--socket", agent.path, "--scope", "web", "--", sys.executable, "-ISE", "-c", code]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&-', "sh", *words], stderr=subprocess.PIPE, check=False)
    assert done.stderr == b"0 2"  # 0 is the listing itself


def test_handed_over_unchanged(agent, tmp_path):
    """Working directory, umask, niceness, limits, arguments and ignored signals are handed over."""
    code = (
        "import posix, resource, sys, _signal\n"
        "print([posix.getcwd(), posix.umask(0), posix.nice(0), resource.getrlimit(resource.RLIMIT_NOFILE), sys.argv[1:],\n"
        " _signal.getsignal(_signal.SIGINT) == _signal.SIG_IGN, _signal.getsignal(_signal.SIGHUP) == _signal.SIG_IGN])"
    )

    def prepare() -> None:
        os.umask(0o027)
        os.nice(3)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    words = ("", "a b", "--scope", "\udcff")
    done = agent.python(code, *words, cwd=tmp_path, preexec_fn=prepare)
    argv = "['', 'a b', '--scope', '\\udcff']"
    nice = os.nice(0) + 3
    assert done.stdout.decode().strip() == f"['{tmp_path}', 23, {nice}, (200, 300), {argv}, True, True]"


def test_signals_start_as_usual(agent):
    """No signal is blocked or newly ignored: SIGPIPE ends the command as it would without an interpreter before it."""
    state = dict(
        line.split(":\t")
        for line in agent.run("--scope", "web", "--", "cat", "/proc/self/status").stdout.decode().splitlines()
        if ":\t" in line
    )
    assert int(state["SigBlk"], 16) == 0
    ours = Path("/proc/self/status").read_text().partition("SigIgn:\t")[2].split()[0]  # what this process was started with
    assert int(state["SigIgn"], 16) & ~int(ours, 16) == 0
    assert not int(state["SigIgn"], 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)
    assert int(state["SigCgt"], 16) == 0


def test_blocked_signals_stay_blocked(agent):
    """The caller's signal mask is the command's."""
    done = agent.run(
        *("--scope", "web", "--", "cat", "/proc/self/status"),
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]),
    )
    assert f"SigBlk:\t{1 << (signal.SIGUSR1 - 1):016x}".encode() in done.stdout


@pytest.mark.parametrize("locale", [{}, {"LANG": "C"}, {"LC_ALL": "POSIX"}, {"LANG": "C.UTF-8"}])
def test_locale(agent, locale):
    """The locale's variables are the caller's: the interpreter's own idea of it does not come through."""
    done = agent.run("--scope", "web", "--", "env", env={"PATH": "/usr/bin:/bin", **locale})
    assert set(done.stdout.decode().splitlines()) == {
        "PATH=/usr/bin:/bin",
        f"DB={CANARY.decode()}",
        *(f"{name}={value}" for name, value in locale.items()),
    }


@pytest.mark.parametrize("limits", [(resource.RLIM_INFINITY, resource.RLIM_INFINITY), (0, resource.RLIM_INFINITY), (4096, 4096)])
def test_no_core(agent, limits):
    """The command's core files are limited to one byte, soft and hard: at 0 a piped core handler would still be started."""
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
    done = agent.python(code, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, limits))
    assert done.stdout == b"(1, 1)\n"


@pytest.mark.root
@pytest.mark.tool("setpriv")
def test_no_core_where_the_limit_is_not_ours(agent):
    """Where the hard limit is 0 and may not be raised it stays, and the command runs."""
    weak = ["setpriv", "--bounding-set", "-sys_resource"]
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
    words = [*LAUNCHER, "exec", "--socket", agent.path, "--scope", "web", "--", sys.executable, "-ISE", "-c", code]
    done = subprocess.run(
        [*weak, *words],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"(0, 0)\n"


def program(path, content: bytes = b"", mode: int = 0o755):
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_not_found(agent, tmp_path):
    """A command that is not there is 127, and no secret was asked for."""
    asked = len(agent.requests)
    for name in ("no-such-command", "./none", "", "none/none"):
        done = agent.run("--scope", "web", "--", name, cwd=tmp_path)
        assert done.returncode == 127
        assert "there is no command" in told(done)
    assert len(agent.requests) == asked


def test_not_executable(agent, tmp_path):
    """A file without the right to execute and a directory are 126, and no secret was asked for."""
    asked = len(agent.requests)
    program(tmp_path / "plain", b"#!/bin/sh\n", 0o644)
    for name in ("./plain", "/", str(tmp_path), "plain"):
        done = agent.run("--scope", "web", "--", name, cwd=tmp_path, env={"PATH": f"{tmp_path}:/bin"})
        assert done.returncode == 126
        told(done)
    assert len(agent.requests) == asked


def test_kernel_refuses(agent, tmp_path):
    """A file that is no program, and a script whose interpreter is not there, are 126; the line says what to mend."""
    for content, mend in ((b"\x00\x01garbage", "no #! line"), (b"echo hello\n", "no #! line"), (b"#!/nowhere\n", "interpreter")):
        done = agent.run("--scope", "web", "--", str(program(tmp_path / "file", content)))
        assert done.returncode == 126
        assert mend in told(done)
        assert CANARY not in done.stderr


def test_search(agent, tmp_path):
    """The command is found in the caller's own PATH, the first that can be executed, as execvp(3) does."""
    for directory in ("one", "two", "three"):
        (tmp_path / directory).mkdir()
    (tmp_path / "one" / "it").mkdir()
    program(tmp_path / "two" / "it", b"#!/bin/sh\necho two\n", 0o644)
    program(tmp_path / "three" / "it", b"#!/bin/sh\necho three $0\n")
    search = ":".join(str(tmp_path / directory) for directory in ("none", "one", "two", "three"))
    assert agent.run("--scope", "web", "--", "it", env={"PATH": search}).stdout.startswith(b"three ")
    (tmp_path / "my.env").write_text("PATH=/nowhere\n")
    done = agent.run("--scope", "web", "--env-file", str(tmp_path / "my.env"), "--", "it", env={"PATH": search})
    assert done.stdout.startswith(b"three ")
    assert agent.run("--scope", "web", "--", "it", env={"PATH": ""}, cwd=tmp_path / "three").returncode == 0
    assert agent.run("--scope", "web", "--", "true", env={}).returncode == 0


def test_too_large(tmp_path):
    """What the kernel cannot carry is 78; the line names the longest variable and no value. One byte less is carried."""
    largest = 131_072 - len("BIG=") - 1
    with FakeAgent(tmp_path, answer({b"BIG": b"x" * largest, b"DB": CANARY})) as agent:
        assert agent.run("--scope", "web", "--", "true").returncode == 0
        agent.reply = answer({b"BIG": b"x" * (largest + 1), b"DB": CANARY})
        done = agent.run("--scope", "web", "--", "true")
        assert done.returncode == 78
        assert "the longest variable is BIG" in told(done)
        assert CANARY not in done.stderr


def test_running_text_file(agent, tmp_path):
    """A program that is being written cannot be executed: 126."""
    path = program(tmp_path / "busy", Path("/bin/true").read_bytes())
    with path.open("ab"):
        done = agent.run("--scope", "web", "--", str(path))
    assert done.returncode == 126
    assert "busy" in told(done)
