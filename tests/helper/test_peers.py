"""Whom the helper serves, what of, and what becomes of those who send anything else or nothing."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.helper import wire
from prism_vault_agent.helper.client import Helper
from prism_vault_agent.helper.wire import Said, Verb
from prism_vault_agent.sink.place import open_place
from tests.support.as_user import NOBODY, in_child
from tests.support.helper import MAIL, WWW_DATA, HelperProcess, packet
from tests.support.soak import count
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.namespaces]

MOUNT = packet(Verb.MOUNT)


@pytest.fixture
def own() -> Iterator[Path]:
    """A directory of root's for a helper of the test's own."""
    directory = Path(tempfile.mkdtemp(prefix="pv-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def test_another_user_is_refused(helper):
    """Root and other users are told whom the helper serves; the socket lets others not even connect."""
    assert helper.raw(MOUNT, uid=None) == (Said.REFUSED, "the helper serves user nobody, and not uid 0; ask as the agent")
    with pytest.raises(PermissionError):
        helper.raw(MOUNT, uid=MAIL)
    Path(helper.socket).chmod(0o666)
    try:
        said, line = helper.raw(MOUNT, uid=MAIL)
    finally:
        Path(helper.socket).chmod(0o600)
    assert said is Said.REFUSED and f"and not uid {MAIL}" in line


def test_another_unit_is_refused(own):
    """Where a unit is named, the agent's user outside of it is refused."""
    with HelperProcess(own, words=("--unit", "prism-vault-agent.service")) as helper:
        said, line = helper.raw(MOUNT)
        assert said is Said.REFUSED and "serves prism-vault-agent.service, and not" in line


def test_a_configuration_that_others_could_write_is_refused(own):
    """What is not root's alone gives no power: the agent gets the line that says which file, and nothing is done."""
    with HelperProcess(own) as helper:
        path = helper.rendered()
        for mode, uid in ((0o666, 0), (0o644, NOBODY)):
            helper.config.chmod(mode)
            os.chown(helper.config, uid, 0)
            with pytest.raises(CannotCreate) as error:
                helper.asked(lambda asking: asking.give(os.open(path, os.O_RDONLY), WWW_DATA, NOBODY))
            assert f"{helper.config}: " in error.value.message and path.stat().st_uid == NOBODY
        helper.config.chmod(0o644)
        os.chown(helper.config, 0, 0)
        helper.asked(lambda asking: asking.give(os.open(path, os.O_RDONLY), WWW_DATA, NOBODY))
        assert path.stat().st_uid == WWW_DATA, "what was mended works without a restart"
        helper.config.write_text(helper.config.read_text().replace('"www-data"', '"mail"'))
        helper.asked(lambda asking: asking.take(os.open(path, os.O_PATH)))
        with pytest.raises(CannotCreate, match="no scope has a file of user 33"):
            helper.asked(lambda asking: asking.give(os.open(path, os.O_RDONLY), WWW_DATA, NOBODY))


@given(packets=st.lists(st.binary(min_size=1, max_size=64), min_size=1, max_size=3))
@settings(max_examples=count(25, 1000), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_is_refused_and_the_next_is_served(helper, packets):
    """Whatever bytes a peer sends, it gets an answer or an end; the helper serves on and leaks no descriptor."""

    def send() -> list[bytes]:
        answers = []
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(30)
            connection.connect(helper.socket)
            for each in packets:
                try:
                    connection.send(each)
                    answers.append(connection.recv(4096))
                except (BrokenPipeError, ConnectionResetError):
                    break
        return answers

    assert [wire.decode_answer(each)[0] for each in in_child(send) if each][:1] == [Said.REFUSED]
    assert helper.process is not None and helper.process.poll() is None


def test_what_is_passed_is_closed(helper):
    """Descriptors that came with garbage, with too large a packet, or with a request are closed when it is answered."""
    assert helper.process is not None
    process = psutil.Process(helper.process.pid)
    helper.raw(b"x")
    wait_until(lambda: not [each for each in process.net_connections("unix") if each.status == "ESTABLISHED"])
    before = process.num_fds()
    with open(os.devnull, "rb") as file:
        for sent in (b"x", b"x" * 65536, packet(Verb.CHOWN, 1, 1), packet(Verb.KILL, 15), MOUNT):
            for count_of in (1, 2, 4):
                assert helper.raw(sent, (file.fileno(),) * count_of)[0] is Said.REFUSED
    wait_until(lambda: process.num_fds() <= before)


def test_who_sends_nothing_or_reads_nothing_holds_up_nobody_for_long(helper):
    """Silent peers, and peers that never read their answers, are left after two seconds each."""

    def silent() -> list[str]:
        quiet = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
        for connection in quiet:
            connection.connect(helper.socket)
        quiet[1].setblocking(False)
        try:
            for _ in range(count(10_000, 100_000)):
                quiet[1].send(MOUNT)
        except (BlockingIOError, BrokenPipeError):
            pass
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(60)
            connection.connect(helper.socket)
            connection.send(b"x")
            return [wire.decode_answer(connection.recv(4096))[1]]

    assert "that is no request" in in_child(silent)[0]


def test_a_helper_that_is_killed_meanwhile_is_told(own):
    """A helper that ends before it answers is one line to the agent, nothing is done, and the next one serves."""
    with HelperProcess(own) as helper, Helper(helper.socket) as asking, ThreadPoolExecutor(1) as other:
        assert helper.process is not None
        path = helper.rendered()
        helper.process.send_signal(signal.SIGSTOP)
        descriptor = os.open(path, os.O_RDONLY)
        asked = other.submit(asking.give, descriptor, WWW_DATA, NOBODY)
        wait_until(lambda: asking._connection is not None)
        helper.process.kill()
        helper.process.wait()
        with pytest.raises(CannotCreate, match=f"no helper serves us at {helper.socket}: "):
            asked.result(60)
        assert path.stat().st_uid == NOBODY
        os.close(descriptor)
        helper.start()
        helper.asked(lambda asking: asking.give(os.open(path, os.O_RDONLY), WWW_DATA, NOBODY))
        assert path.stat().st_uid == WWW_DATA


def test_it_ends_when_nobody_asks(own):
    """After the idle time without a connection it ends in good order."""
    with HelperProcess(own, words=("--idle", "1")) as helper:
        assert helper.process is not None
        assert helper.process.wait(60) == 0


def test_it_is_small(own):
    """With a configuration that was compiled before it knows neither pydantic nor asyncio, and takes under 40 MB."""
    with HelperProcess(own) as helper:
        helper.raw(MOUNT)
        assert helper.process is not None
        helper.process.kill()
        helper.process.wait()
        helper.start()
        assert helper.raw(MOUNT)[0] is Said.REFUSED
        process = psutil.Process(helper.process.pid)
        mapped = " ".join(each.path for each in process.memory_maps())
        assert "pydantic" not in mapped and "_asyncio" not in mapped
        assert process.memory_info().rss < 40 * 1024 * 1024


def test_it_mounts_the_memory_for_files(own):
    """Where nothing is mounted, and others see it, an agent that may not mount gets a tmpfs of its own."""
    with HelperProcess(own, mounted=False) as helper:

        def opened() -> str:
            with Helper(helper.socket) as asking:
                return open_place(str(helper.files), mount=asking.mount).memory

        assert in_child(opened) == "noswap"
        (line,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4] == str(helper.files)]
        options = set(line.split()[5].split(",")) | set(line.split()[-1].split(","))
        assert {"nosuid", "nodev", "noexec", "noswap", "size=65536k", "mode=711", f"uid={NOBODY}", f"gid={NOBODY}"} <= options
        with pytest.raises(CannotCreate, match=f"something is mounted on {helper.files} already"):
            helper.asked(lambda asking: asking.mount())


@pytest.mark.parametrize("what", ["full", "theirs", "link", "writable"])
def test_it_mounts_nowhere_else(own, what):
    """A directory that holds something, a link, or one below what others could change is refused by name."""
    with HelperProcess(own, mounted=False) as helper:
        files = helper.files
        if what == "full":
            (files / "something").mkdir(parents=True)
        elif what == "link":
            files.symlink_to("/etc")
        else:
            files.mkdir()
            os.chown(files, *((MAIL, MAIL) if what == "theirs" else (0, 0)))
            files.chmod(0o777 if what == "writable" else 0o755)
        with pytest.raises(CannotCreate, match=str(files)):
            helper.asked(lambda asking: asking.mount())
        assert not files.is_mount()
