"""T4, T5, T8: nothing of the agent's processes can be read by its own user, swapped out or dumped, while it serves."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.config.places import HOST_HELPER
from tests.agent.asking import ask, eventually, exec_request, processes
from tests.agent.conftest import SECRET
from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.as_user import NOBODY, in_child, prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PTRACE_ATTACH = 16
PTRACE_SEIZE = 0x4206
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
# As a unit with User=nobody and AmbientCapabilities=CAP_IPC_LOCK does.
AS_NOBODY_WITH_LOCKING = (
    f"--reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=+ipc_lock --ambient-caps=+ipc_lock --pdeathsig=KILL"
).split()

_libc = ctypes.CDLL(None, use_errno=True)


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@contextlib.contextmanager
def agent_of_nobody(place: Path, openbao, central, *, locked: bool = False) -> Iterator[AgentProcess]:
    """Run an agent as the user nobody, with all its files, and a scope for nobody and one for root."""
    directory = Path(tempfile.mkdtemp(dir=place))
    before = [*prefix(0, 0), str(shutil.which("setpriv")), *AS_NOBODY_WITH_LOCKING] if locked else prefix(NOBODY)
    agent = AgentProcess(directory, openbao, central, agent='socket_mode = "0666"', role=directory.name, before=before)
    binding = {"URL": "vault://secret/web#url"}
    agent.scope("nobodys", binding, callers=[{"kind": "service", "uid": NOBODY}])
    agent.scope("roots", binding, callers=[{"kind": "operator", "uid": 0}])
    mine = [directory, *directory.rglob("*"), *openbao.directory.glob(f"{directory.name}.*")]
    for path in mine:
        os.chown(path, NOBODY, NOBODY)
    directory.chmod(0o755)
    (directory / "run").mkdir(mode=0o755)
    os.chown(directory / "run", NOBODY, NOBODY)
    try:
        yield agent.start()
    finally:
        agent.kill()


@pytest.fixture(scope="module")
def agent(place, openbao, central) -> Iterator[AgentProcess]:
    """An agent that runs as nobody."""
    with agent_of_nobody(place, openbao, central) as running:
        yield running


def attach(request: int) -> Callable[[int], object]:
    """Return an attack by ptrace(2)."""

    def attack(pid: int) -> None:
        if _libc.ptrace(request, pid, None, None) != 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    return attack


def read_across(pid: int) -> None:
    """Read memory by process_vm_readv(2), somewhere; what is refused is refused before the address is looked at."""
    ours = ctypes.create_string_buffer(8)
    local, remote = _Piece(ctypes.addressof(ours), 8), _Piece(ctypes.addressof(ours), 8)
    failed = _libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) < 0
    if failed and ctypes.get_errno() != errno.EFAULT:
        raise OSError(ctypes.get_errno(), "process_vm_readv")


ATTACKS: dict[str, Callable[[int], object]] = {
    "ptrace attach": attach(PTRACE_ATTACH),
    "ptrace seize": attach(PTRACE_SEIZE),
    "process_vm_readv": read_across,
    "mem": lambda pid: Path(f"/proc/{pid}/mem").open("rb").close(),
    "environ": lambda pid: Path(f"/proc/{pid}/environ").read_bytes(),
    "maps": lambda pid: Path(f"/proc/{pid}/maps").read_text(),
    "fd": lambda pid: os.listdir(f"/proc/{pid}/fd"),
    "fd content": lambda pid: Path(f"/proc/{pid}/fd/0").open("rb").close(),
    "cwd": lambda pid: os.readlink(f"/proc/{pid}/cwd"),
}


def refused(attack: Callable[[int], object], pid: int) -> bool:
    """Tell whether the attack on a process is refused."""
    try:
        attack(pid)
    except PermissionError:
        return True
    return False


@pytest.mark.root
@pytest.mark.parametrize("name", ATTACKS)
def test_t4_the_agents_own_user_cannot_look_inside(agent, name):
    """T4: a process of the agent's own user is refused every way into the front, the warm parent and each worker."""
    for what, pid in processes(agent).items():
        assert in_child(functools.partial(refused, ATTACKS[name], pid)), what


@pytest.mark.root
@pytest.mark.parametrize("name", ATTACKS)
def test_t4_the_attacks_are_real(name):
    """The same attacks succeed on a plain process of the same user, so that their failure means something."""
    plain = subprocess.Popen(["/bin/sleep", "1000"], user=NOBODY, group=NOBODY, extra_groups=[], stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: Path(f"/proc/{plain.pid}/comm").read_text() == "sleep\n")
        assert not in_child(lambda: refused(ATTACKS[name], plain.pid))
    finally:
        plain.kill()
        plain.wait()


@pytest.mark.root
def test_the_agent_of_an_ordinary_user_serves(agent):
    """Hardened and without privileges the agent serves its callers, and says that its memory is not locked."""
    told = in_child(lambda: ask(agent.socket, exec_request("nobodys")))
    assert (told.status, str(SECRET["url"]).encode() in told.body) == (200, True)
    process = agent.status()["process"]
    assert (process["not_dumpable"], process["memory_locked"]) == (True, False)


@pytest.mark.root
def test_what_the_agent_may_not_end_is_told(agent):
    """An agent that may not signal another user's process says so instead of pretending, and goes on watching it."""
    words = [LAUNCHER, "exec", "--scope", "roots", "--run-ref", "other-1", "--", "sleep", "1000"]
    with subprocess.Popen(words, env=agent.environment()) as child:
        eventually(lambda: [run for run in agent.status()["runs"] if run["run_ref"] == "other-1"])
        words = [LAUNCHER, "revoke", "--run-ref", "other-1"]
        done = subprocess.run(words, env=agent.environment(), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 75
        told = f"pid {child.pid}: the agent may not signal another user's process: no helper serves us at {HOST_HELPER}: "
        assert told in done.stderr and "start prism-vault-helper.socket, or run the agent as root" in done.stderr
        assert child.poll() is None
        child.kill()
    eventually(lambda: not agent.status()["runs"])


def locked_bytes(pid: int) -> int:
    """Return how much memory a process has locked."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmLck:")[2].split()[0])


@pytest.mark.root
@pytest.mark.tool("setpriv")
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_t5_memory_is_locked_where_the_host_allows(make_agent, place, openbao, central, user):
    """T5: as root, or with CAP_IPC_LOCK, the memory of every process of the agent is locked, and status says so."""
    made = agent_of_nobody(place, openbao, central, locked=True) if user == "nobody" else make_agent()
    with made as agent:
        assert agent.status()["process"]["memory_locked"]
        for what, pid in processes(agent).items():
            assert locked_bytes(pid) > 0, what


def test_t1_another_user_cannot_read_a_commands_environment(make_agent):
    """T1: the kernel refuses another user the environment of a command that holds secrets."""
    agent = make_agent().start()
    child = agent.spawn("--scope", "web", "--", "sleep", "1000")
    eventually(lambda: [run for run in agent.status()["runs"] if run["command"] == "sleep"])
    path = Path(f"/proc/{child.pid}/environ")
    assert str(SECRET["url"]).encode() in path.read_bytes()
    if os.geteuid() == 0:
        with pytest.raises(PermissionError):
            in_child(path.read_bytes)
    child.kill()
    child.communicate()


def without_proc(agent: AgentProcess, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the agent's configuration in a mount namespace whose /proc is empty."""
    hidden = ["unshare", "--mount", "--", "/bin/sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    return subprocess.run(
        [*hidden, LAUNCHER, command, "--config", str(agent.config)], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.root
@pytest.mark.namespaces
def test_without_proc_the_agent_says_so(make_agent):
    """Where /proc is not mounted the agent ends with 78 and one line that says what to do."""
    done = without_proc(make_agent(), "agent")

    told = "prism-vault: /proc is not mounted here, or hides this process; mount it: mount -t proc proc /proc\n"
    assert (done.returncode, done.stdout, done.stderr) == (78, "", told)


@pytest.mark.root
@pytest.mark.namespaces
def test_without_proc_doctor_says_so(make_agent):
    """Where /proc is not mounted doctor names that, and not the agent's memory, which is closed all the same."""
    done = without_proc(make_agent(), "doctor")
    told = {line.split("  ")[0]: line for line in reversed(done.stdout.splitlines()) if "looked at" in line or "own user" in line}

    assert done.returncode == 78
    assert "callers can be looked at (needed): /proc is not mounted here; mount it: mount -t proc proc /proc" in done.stdout
    assert "the agent's memory is closed to its own user" in told["holds"]


@pytest.mark.root
@pytest.mark.namespaces
def test_f100_with_nothing_but_its_own_directory_and_no_right_the_agent_serves_and_says_what_it_does_without(make_agent):
    """On a read-only root, without /dev/shm and without any capability an exec works; status says that memory is not locked."""
    agent = make_agent()
    mounts = f"mount --bind {agent.directory} {agent.directory} && umount -l /dev/shm && mount -o remount,bind,ro /"
    bounded = f'{mounts} && exec {shutil.which("setpriv")} --bounding-set=-all --inh-caps=-all "$@"'
    agent.before = ["/usr/bin/env", f"PATH={os.environ['PATH']}", "unshare", "--mount", "--", "/bin/sh", "-c", bounded, "sh"]
    agent.start()
    root = Path(f"/proc/{agent.status()['pid']}/root")
    assert os.statvfs(root).f_flag & os.ST_RDONLY and not list((root / "dev/shm").iterdir())
    done = agent.exec("--scope", "web", "--", "printenv", "URL")
    assert (done.returncode, done.stdout) == (0, f"{SECRET['url']}\n")
    assert not agent.status()["process"]["memory_locked"]
