"""What the kernel says of a peer, and that nobody passes for somebody else."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from prism_vault_agent.agent.front import peer
from prism_vault_agent.agent.front.peer import PeerGone, attest
from prism_vault_agent.errors import Unavailable
from tests.agent.asking import TICKS
from tests.agent.puppet import Puppet
from tests.support.as_user import MS_PRIVATE, MS_REC, NOBODY, become, in_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prism_vault_agent.model import Caller

PR_SET_NAME = 15
CLONE_NEWNS = 0x0002_0000
CLONE_NEWPID = 0x2000_0000
ABSENT = 9999

_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def door(place) -> Iterator[socket.socket]:
    """A listening socket, and whoever connects to it can be attested."""
    path = str(Path(tempfile.mkdtemp(dir=place)) / "s")
    os.chmod(os.path.dirname(path), 0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        os.chmod(path, 0o666)
        listening.listen()
        yield listening


def attested(door: socket.socket) -> Caller:
    """Return the caller at the other end of the next connection."""
    connection, _ = door.accept()
    with connection:
        found = attest(connection)
        try:
            return found.caller()
        finally:
            found.close()


@pytest.mark.parametrize("option", [peer.SO_PEERPIDFD, ABSENT])
def test_facts_are_the_kernels(door, monkeypatch, option):
    """Process, user, groups, executable and start time are those of the process; without SO_PEERPIDFD the guarantee says so."""
    monkeypatch.setattr(peer, "SO_PEERPIDFD", option)
    with Puppet(door.getsockname()) as puppet:
        caller = attested(door)
        assert (caller.pid, caller.uid, caller.gid) == (puppet.pid, os.geteuid(), os.getegid())
        assert caller.groups == frozenset(os.getgroups())
        assert caller.executable == os.readlink("/proc/self/exe")
        started = psutil.Process(puppet.pid).create_time() - psutil.boot_time()
        assert caller.started / TICKS == pytest.approx(started, abs=1.5)
        assert caller.guarantee == ("start-time" if option == ABSENT else "pidfd")


@pytest.mark.root
def test_facts_of_another_user(door):
    """The user, the group and all further groups are those that the process has."""
    with Puppet(door.getsockname(), uid=NOBODY, groups=[7, 4242]):
        caller = attested(door)
    assert (caller.uid, caller.gid, caller.groups) == (NOBODY, NOBODY, frozenset({7, 4242}))


NAMES_OF_LIARS = [b"a) S 1 1 1", b"((((", b"\xff\n\t) R", b") 0 0 0 0 0", b"\nGroups:\t42", b"\rGroups:\t42", b"\vGroups:\t42"]
NAMES_OF_LIARS += [b"\x1cGroups:\t42", "\x85Groups:\t42".encode(), "\u2028Groups:\t42".encode(), b"\rUid:\t0 0 0 0"]


@pytest.mark.parametrize("option", [peer.SO_PEERPIDFD, ABSENT])
@pytest.mark.parametrize("name", NAMES_OF_LIARS)
def test_a_process_name_cannot_shift_the_facts(door, monkeypatch, name, option):
    """A process that gives itself a name with parentheses or ends of lines gets no other facts, and no group, by that."""
    monkeypatch.setattr(peer, "SO_PEERPIDFD", option)

    def misnamed() -> tuple[Caller, Caller]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(door.getsockname())
            before = attested(door)
            _libc.prctl(PR_SET_NAME, name, 0, 0, 0)
            connection.close()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(door.getsockname())
            return before, attested(door)

    told, seen = in_child(misnamed, uid=None)
    assert told == seen


@pytest.mark.parametrize("option", [peer.SO_PEERPIDFD, ABSENT])
def test_f85_a_peer_that_has_ended_is_nobody(door, monkeypatch, option):
    """F85: of a peer that ended and was reaped before we looked there is no caller."""
    monkeypatch.setattr(peer, "SO_PEERPIDFD", option)
    with Puppet(door.getsockname()) as puppet:
        puppet.end()
        with pytest.raises(PeerGone):
            attested(door)


def test_f85_a_peer_that_ends_later_is_noticed(door):
    """F85: a peer that was there and ended, or runs another program, is not the caller any more."""
    with Puppet(door.getsockname()) as first, Puppet(door.getsockname()) as second:
        found = []
        for _ in (first, second):
            with door.accept()[0] as connection:
                found.append(attest(connection))
        callers = [each.caller() for each in found]
        for each, caller in zip(found, callers, strict=True):
            each.still(caller)
        first.end()
        second.become_another_program()
        with pytest.raises(PeerGone, match="has ended"):
            found[0].still(callers[0])
        with pytest.raises(PeerGone, match="another program"):
            found[1].still(callers[1])
        for each in found:
            each.close()


def test_a_shortage_is_not_a_peer_that_has_gone(door):
    """F91: out of descriptors the peer is not called gone: the answer is to retry."""
    import resource  # noqa: PLC0415 - the limit is the child's

    def short() -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(door.getsockname())
            accepted = door.accept()[0]
            resource.setrlimit(resource.RLIMIT_NOFILE, (accepted.fileno(), 1000))
            try:
                attest(accepted)
            except Unavailable as error:
                return error.reason
        return ""

    assert in_child(short, uid=None) == "busy"


def in_own_process_namespace(door: socket.socket, option: int) -> str:
    """Return what becomes of a peer whose number another user's process has by the time that we look."""
    peer.SO_PEERPIDFD = option  # type: ignore[misc]
    assert _libc.unshare(CLONE_NEWPID | CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
    reading, writing = os.pipe()
    if os.fork() == 0:  # number 1 of the new namespace
        _libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        assert _libc.mount(b"proc", b"/proc", b"proc", 0, None) == 0
        os.write(writing, recycled(door).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        return told.read().decode()


def recycled(door: socket.socket) -> str:
    """Have a child connect and end, give its number to a process of nobody, and tell what attestation says."""
    with Puppet(door.getsockname()) as puppet:
        connection = door.accept()[0]
        puppet.end()
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(puppet.pid - 1))
        if (other := os.fork()) == 0:
            become(NOBODY, NOBODY)
            signal.pause()
        try:
            assert other == puppet.pid
            while f"Uid:\t{NOBODY}" not in Path(f"/proc/{other}/status").read_text():
                pass
            return f"taken for {attest(connection).caller().uid}"
        except PeerGone as gone:
            return gone.message
        finally:
            os.kill(other, signal.SIGKILL)
            os.waitpid(other, 0)


@pytest.mark.namespaces
@pytest.mark.parametrize("option", [peer.SO_PEERPIDFD, ABSENT])
def test_f85_a_recycled_number_is_noticed(door, option):
    """F85: when the peer's process number belongs to another user's process by now, there is no caller."""
    assert in_child(lambda: in_own_process_namespace(door, option), uid=None) == "the caller has ended"


@pytest.mark.namespaces
def test_a_peer_outside_our_process_namespace_is_refused(door):
    """A peer whose process we cannot see (its number is 0 for us) is refused and not guessed."""

    def look() -> str:
        assert _libc.unshare(CLONE_NEWPID) == 0
        reading, writing = os.pipe()
        if os.fork() == 0:
            try:
                attest(door.accept()[0])
            except PeerGone as gone:
                os.write(writing, gone.message.encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as told:
            return told.read().decode()

    with Puppet(door.getsockname()):
        assert "namespace that this agent cannot see" in in_child(look, uid=None)
