"""A supervised command is what it would be without a supervisor."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.supervise.supervised import PYTHON, words
from tests.support.child import Child

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.exec.fake_agent import FakeAgent

# Everything that a process is given and that can be asked for, but for its own number and its parent's.
TELLS = (
    "import _signal, posix, resource, sys\n"
    "limits = [(name, resource.getrlimit(getattr(resource, name))) for name in dir(resource) if name.startswith('RLIMIT_')]\n"
    "told = ('SigPnd', 'SigBlk', 'SigIgn', 'SigCgt', 'Groups', 'Cap', 'NoNewPrivs', 'Seccomp')\n"
    "status = [line for line in open('/proc/self/status') if line.startswith(told)]\n"
    "def led(fd):\n"
    "    try: return fd, posix.readlink(f'/proc/self/fd/{fd}').partition(':')[0]\n"
    "    except OSError: return 'the listing itself'\n"
    "posix.write(2, repr([posix.getcwd(), posix.umask(0), posix.nice(0), limits, status, sys.argv,\n"
    "  sorted(posix.environ.items()),\n"
    "  [led(fd) for fd in sorted(posix.listdir('/proc/self/fd'))],\n"
    "  posix.getpgrp(), posix.getsid(0), posix.sched_getscheduler(0), posix.sched_getaffinity(0), posix.getresuid(),\n"
    "  [open(f'/proc/self/{name}').read() for name in ('oom_score_adj', 'timerslack_ns', 'cgroup', 'coredump_filter')],\n"
    "  [_signal.getsignal(n) == _signal.SIG_IGN for n in _signal.valid_signals() - {32, 33}]]).encode())\n"
)


def told(agent: FakeAgent, options: tuple[str, ...], prepare: Callable[[], object], shell: str = 'exec "$@"') -> bytes:
    """Return what the command tells of itself after ``prepare``, started by a line of shell."""
    command = words(agent, *PYTHON, TELLS, "", "a b", "\udcff", options=options)
    variables = {"PATH": "/usr/bin:/bin", "ODD": "\udcfe", "LANG": "C"}
    given = ["sh", "-c", shell, "sh", *command]
    quiet = subprocess.DEVNULL
    done = subprocess.run(given, env=variables, stdout=quiet, stderr=subprocess.PIPE, check=False, preexec_fn=prepare)
    assert done.returncode == 0, done.stderr
    return done.stderr


def nothing() -> None:
    """Change nothing."""


def ignored() -> None:
    """Ignore signals, those among them that a supervisor itself depends on."""
    for number in (signal.SIGCHLD, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGINT, signal.SIGHUP, signal.SIGRTMIN):
        signal.signal(number, signal.SIG_IGN)


def blocked() -> None:
    """Block signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGCONT, signal.SIGTSTP, signal.SIGRTMAX})


def limited() -> None:
    """Change limits, niceness, umask and directory."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
    resource.setrlimit(resource.RLIMIT_STACK, (4_000_000, 5_000_000))
    os.nice(2)
    os.umask(0o027)
    os.chdir("/usr")


@pytest.mark.parametrize("prepare", [nothing, ignored, blocked, limited])
def test_handed_over_unchanged(agent, prepare):
    """Directory, umask, niceness, limits, signals, descriptors, variables, group, session and rights are the caller's."""
    assert told(agent, ("--supervise",), prepare) == told(agent, (), prepare)


@pytest.mark.parametrize("shell", ['exec "$@" <&-', 'exec "$@" >&-', 'exec "$@" <&- >&-', 'exec "$@" 7</dev/null 9<&7'])
def test_descriptors(agent, shell):
    """Closed standard descriptors stay closed, those that were passed on purpose are passed on, and there is none of ours."""
    assert told(agent, ("--supervise",), nothing, shell) == told(agent, (), nothing, shell)


def test_a_pipe_ends_when_the_command_closes_it(agent):
    """The supervisor holds no end of the caller's pipes: what the command closes is closed."""
    code = "import posix, time; posix.close(1); time.sleep(600)"
    with subprocess.Popen(words(agent, *PYTHON, code), stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b""
        assert process.poll() is None
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM


def test_children_are_seen_where_the_caller_ignores_them(agent):
    """Also a caller that ignores SIGCHLD, so that the kernel reaps its children, learns how the command ended."""
    command = ["sh", "-c", '"$@"; echo $?', "sh", *words(agent, "sh", "-c", "exit 42")]
    done = subprocess.run(command, capture_output=True, check=True, preexec_fn=ignored)
    assert done.stdout == b"42\n"


def test_ten_million_bytes(agent):
    """Output is the command's own descriptor: nothing is copied, and not a byte is different."""
    code = "import posix, sys\ndata = bytes(range(256)) * 4096\nfor _ in range(10):\n    assert posix.write(1, data) == len(data)"
    done = subprocess.run(words(agent, *PYTHON, code), stdout=subprocess.PIPE, check=True)
    assert done.stdout == bytes(range(256)) * 40_960


def test_direct(agent, tmp_path):
    """With --direct, too, it is the child that reads: what it has to tell is told, with its status."""
    config = tmp_path / "agent.toml"
    config.touch(0o600)
    config.write_text("[agent\n")
    plain, supervised = (
        agent_less(config, options) for options in (("--direct", "--config"), ("--supervise", "--direct", "--config"))
    )
    assert (supervised.returncode, supervised.stderr) == (plain.returncode, plain.stderr)
    assert supervised.returncode == 78


@pytest.mark.parametrize("options", [("--direct",), ("--direct", "--supervise")], ids=["plain", "supervised"])
def test_ctrl_c_of_direct(tmp_path, options):
    """Ctrl-C while central is asked ends exec --direct without a word, and with 130 in a shell."""
    from tests.support.agent import LAUNCHER  # noqa: PLC0415 - as below

    config, token = tmp_path / "agent.toml", tmp_path / "token"
    for path in (config, token):
        path.touch(0o600)
    token.write_text("canary")
    with socket.create_server(("127.0.0.1", 0)) as central:
        address = f"http://127.0.0.1:{central.getsockname()[1]}"
        config.write_text(
            f'[agent]\nhost = "one"\nstate = "{tmp_path}/state"\n[central]\nurl = "{address}"\ntoken_file = "{token}"\n'
            f'[vault]\naddress = "{address}"\n[vault.auth]\nmethod = "token_file"\ntoken_file = "{token}"\n'
            '[scopes.web]\nproject = "prism"\nenvironment = "test"\npurposes = ["test"]\nenv = { DB = "vault://secret/web#db" }\n'
            f'callers = [{{ kind = "operator", uid = {os.getuid()} }}]\n'
        )
        command = [LAUNCHER, "exec", "--scope", "web", *options, "--config", str(config), "--", "true"]
        with Child[bytes](command, stderr=subprocess.PIPE, env={"PATH": "/usr/bin:/bin"}, process_group=0) as process:
            central.settimeout(30)
            with central.accept()[0]:
                os.killpg(process.pid, signal.SIGINT)
                assert process.communicate(timeout=30)[1] == b""
        assert process.returncode == (-signal.SIGINT if "--supervise" in options else 130)


def agent_less(config: os.PathLike[str], options: tuple[str, ...]) -> subprocess.CompletedProcess[bytes]:
    """Run exec --direct with a configuration."""
    from tests.support.agent import LAUNCHER  # noqa: PLC0415 - the installed command, which has all dependencies

    command = [LAUNCHER, "exec", "--scope", "web", *options, str(config), "--", "true"]
    return subprocess.run(command, capture_output=True, check=False, env={"PATH": "/usr/bin:/bin"})
