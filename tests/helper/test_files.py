"""Files by a real helper, asked by the agent's user: given to whom root's configuration names, and whatever else is refused."""

from __future__ import annotations

import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.helper.wire import Said, Verb
from tests.support.as_user import NOBODY
from tests.support.helper import DAEMON, WWW_DATA, HelperProcess, packet

pytestmark = [pytest.mark.root, pytest.mark.namespaces]

# The group of the user nobody, whose files are those of the agent here.
GROUP = 65534


def chown(helper: HelperProcess, path: Path, uid: int, gid: int, flags: int = os.O_PATH) -> tuple[Said, str]:
    """Ask for an owner of what is at a path, by a descriptor of root's making: the helper looks at what it gets."""
    descriptor = os.open(path, flags)
    try:
        return helper.raw(packet(Verb.CHOWN, uid, gid), (descriptor,))
    finally:
        os.close(descriptor)


def refused(helper: HelperProcess, path: Path, uid: int = WWW_DATA, gid: int = GROUP) -> str:
    """Fail unless it is refused and nothing changed; return the line."""
    before = path.lstat()
    said, line = chown(helper, path, uid, gid)
    after = path.lstat()
    assert said is Said.REFUSED, line
    assert (before.st_uid, before.st_gid, before.st_mode) == (after.st_uid, after.st_gid, after.st_mode)
    return line


def test_a_file_is_given_to_its_owner_and_taken_back(helper):
    """The agent gives its file to the user that a scope names, reads it by the helper, and takes it back."""
    path = helper.rendered()

    def use(asking) -> bytes:
        mine = os.open(path, os.O_RDONLY)
        asking.give(mine, WWW_DATA, GROUP)
        known = os.open(path, os.O_PATH)
        with pytest.raises(PermissionError):
            os.open(path, os.O_RDONLY)
        with os.fdopen(asking.read(known), "rb") as file:
            return file.read()

    assert helper.asked(use) == b"KEY=canary\n"
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o7777) == (WWW_DATA, GROUP, 0o400)
    helper.asked(lambda asking: asking.take(os.open(path, os.O_PATH)))
    assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, GROUP)
    assert [line["verb"] for line in helper.told("helper.done")][-3:] == ["chown", "open", "chown"]
    path.unlink()


def test_a_file_without_a_name_is_given_to_a_group(helper):
    """A file of O_TMPFILE, and a group beside the agent's own user, are as good."""

    def give(asking) -> tuple[int, int]:
        unnamed = os.open(helper.files, os.O_TMPFILE | os.O_WRONLY, 0o440)
        os.fchmod(unnamed, 0o440)
        asking.give(unnamed, NOBODY, WWW_DATA)
        found = os.fstat(unnamed)
        return found.st_uid, found.st_gid

    assert helper.asked(give) == (NOBODY, WWW_DATA)


@pytest.mark.parametrize(("uid", "gid"), [(DAEMON, GROUP), (0, 0), (WWW_DATA, WWW_DATA), (2**32 - 1, GROUP)])
def test_nobody_else_gets_a_file(helper, uid, gid):
    """A user or group that no scope names with that mode is refused."""
    path = helper.rendered()
    assert "no scope has a file of user" in refused(helper, path, uid, gid)
    path.unlink()


@pytest.mark.parametrize("mode", [0o600, 0o440, 0o644])
def test_another_mode_is_refused(helper, mode):
    """The mode is part of what a scope names."""
    path = helper.rendered(mode=mode)
    assert f"with mode {mode:04o}" in refused(helper, path)
    path.unlink()


@pytest.mark.parametrize("mode", [0o4400, 0o2400, 0o4755, 0o1400])
def test_a_file_with_a_special_bit_is_refused(helper, mode):
    """A file that would run as another user is given to nobody, nor read."""
    path = helper.rendered()
    path.chmod(mode)
    assert "the file has the mode" in refused(helper, path)
    descriptor = os.open(path, os.O_PATH)
    assert "the file has the mode" in helper.raw(packet(Verb.OPEN), (descriptor,))[1]
    os.close(descriptor)
    path.unlink()


def test_who_has_a_file_cannot_keep_it_from_being_taken_back(helper):
    """T15: whatever mode its owner has given a file, it comes back to the agent, without a special bit."""
    for mode in (0o4711, 0o2710, 0o777):
        path = helper.rendered(uid=WWW_DATA)
        path.chmod(mode)
        helper.asked(lambda asking: asking.take(os.open(path, os.O_PATH)))  # noqa: B023 - asked at once
        assert path.stat().st_uid == NOBODY and not path.stat().st_mode & 0o6000
        path.unlink()


def test_what_is_no_regular_file_is_refused(helper, directory):
    """Directories, links, devices, pipes and sockets are refused, below the agent's directory or not."""
    (helper.files / "directory").mkdir()
    (helper.files / "link").symlink_to("/etc/shadow")
    os.mkfifo(helper.files / "pipe")
    os.mknod(helper.files / "null", 0o020666, os.makedev(1, 3))
    for name in ("directory", "pipe", "null"):
        os.chown(helper.files / name, NOBODY, GROUP)
        assert "not a regular file" in refused(helper, helper.files / name)
    assert "not a regular file" in chown(helper, helper.files / "link", WWW_DATA, GROUP, os.O_PATH | os.O_NOFOLLOW)[1]
    assert "not a regular file" in refused(helper, directory / "helper.sock")
    assert Path("/etc/shadow").stat().st_uid == 0
    (helper.files / "directory").rmdir()
    for name in ("link", "pipe", "null"):
        (helper.files / name).unlink()


@pytest.mark.parametrize("verb", [Verb.CHOWN, Verb.OPEN])
def test_a_file_elsewhere_is_refused(helper, verb):
    """Only what is on the agent's own tmpfs is given, taken back or read: not root's files, and not the agent's elsewhere."""
    for path in (Path("/etc/shadow"), Path("/dev/shm") / f"pv-{os.getpid()}", helper.config):
        if path.parent == Path("/dev/shm"):
            path.touch(mode=0o400)
            os.chown(path, NOBODY, GROUP)
        before = path.stat()
        numbers = ((WWW_DATA, GROUP), (NOBODY, GROUP)) if verb == Verb.CHOWN else ((0, 0),)
        descriptor = os.open(path, os.O_PATH)
        for first, second in numbers:
            said, line = helper.raw(packet(verb, first, second), (descriptor,))
            assert said is Said.REFUSED and "is not below" in line
        os.close(descriptor)
        assert (path.stat().st_uid, path.stat().st_gid) == (before.st_uid, before.st_gid)
    (Path("/dev/shm") / f"pv-{os.getpid()}").unlink()


def test_a_file_with_two_names_is_refused(helper):
    """A further name may be anywhere on the file system, where who gets the file has not been thought of."""
    path = helper.rendered()
    os.link(path, helper.files / "second")
    assert "has 2 names" in refused(helper, path)
    (helper.files / "second").unlink()
    path.unlink()


def test_a_file_of_somebody_else_is_not_given_on(helper):
    """What belongs to another user can only be taken back to the agent."""
    path = helper.rendered(uid=DAEMON)
    assert f"belongs to uid {DAEMON} and not to the agent" in refused(helper, path)
    path.unlink()


def test_without_the_memory_nothing_is_given(helper):
    """While nothing is mounted at the directory, its files are on another file system, and refused."""
    subprocess.run(["umount", str(helper.files)], check=True)
    path = helper.files / "web.env"
    path.touch(mode=0o400)
    os.chown(path, NOBODY, GROUP)
    try:
        assert "is no tmpfs of its own" in refused(helper, path)
    finally:
        path.unlink()
        options = f"size=1m,mode=0711,uid={NOBODY},gid={NOBODY}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(helper.files)], check=True)


def test_descriptors_must_be_as_many_as_the_verb_has(helper):
    """No descriptor, two of them, or one beside a verb that has none is no request."""
    path = helper.rendered()
    descriptor = os.open(path, os.O_PATH)
    wrong = ((Verb.CHOWN, ()), (Verb.CHOWN, (descriptor, descriptor)), (Verb.MOUNT, (descriptor,)), (Verb.KILL, ()))
    for verb, passed in wrong:
        numbers = (0, 0) if verb == Verb.MOUNT else (15, 0)
        said, line = helper.raw(packet(verb, *numbers), passed)
        assert said is Said.REFUSED and "another number of descriptors" in line
    os.close(descriptor)
    path.unlink()


def test_a_missing_helper_is_told_in_one_line(directory):
    """Where no helper listens, the agent gets the socket's path and what to do."""
    from prism_vault_agent.helper.client import Helper  # noqa: PLC0415 - the one test without a process

    with Helper(str(directory / "nowhere.sock")) as asking, pytest.raises(CannotCreate) as error:
        asking.mount()
    assert f"no helper serves us at {directory}/nowhere.sock: No such file or directory" in error.value.line()
    assert "prism-vault-helper.socket" in error.value.mend and error.value.exit_status == 73
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as deaf:
        deaf.bind(str(directory / "deaf.sock"))
        with Helper(str(directory / "deaf.sock")) as asking, pytest.raises(CannotCreate, match="Connection refused"):
            asking.mount()


def test_a_helper_that_was_deaf_is_waited_for_less(directory, monkeypatch):
    """Who takes back one file after another waits its whole time for a helper that hangs once, and again when it has answered."""
    from prism_vault_agent.helper import client  # noqa: PLC0415 - as above

    monkeypatch.setattr(client, "SECONDS", 0.2)
    path = str(directory / "hangs.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as hangs:
        hangs.bind(path)
        hangs.listen()
        for seconds in (0.2, client.LEAST_SECONDS, client.LEAST_SECONDS):
            with client.asking(path) as asked:
                assert asked is not None and asked.seconds == seconds
                with pytest.raises(CannotCreate, match="does not answer in time"):
                    asked.mount()
        for _ in range(3):
            hangs.accept()[0].close()
        monkeypatch.setattr(client, "LEAST_SECONDS", 60.0)
        with client.asking(path) as asked, ThreadPoolExecutor() as pool:
            assert asked is not None
            answered = pool.submit(asked.mount)
            with hangs.accept()[0] as connection:
                connection.recv(1024)
                connection.send(bytes([Said.DONE]))
                answered.result()
        with client.asking(path) as asked:
            assert asked is not None and asked.seconds == 0.2
