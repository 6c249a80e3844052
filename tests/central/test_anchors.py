"""Anchoring: checkpoints reach a file, a command and a journal, each for itself, and again where that failed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from prism_vault_agent.central import anchoring
from prism_vault_agent.central.anchoring import Anchoring
from prism_vault_agent.central.anchors import AnchorCommand, AnchorFile, AnchorJournal, Place, line
from prism_vault_agent.central.config import load
from prism_vault_agent.central.log.proofs import Signed
from prism_vault_agent.central.signing import read_key
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.proof.note import open_checkpoint
from tests.central.host import Host
from tests.support.as_user import in_child
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTE = "log.example/one\n7\nroot=\n\n\N{EM DASH} log.example/one sig=\n"
SIGNED = Signed(7, NOTE, 1_795_683_910_583)
KEEP_STDIN = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\0')"


def write(place: Place, signed: Signed = SIGNED) -> None:
    """Write one checkpoint."""
    asyncio.run(place.write(signed))


@pytest.fixture
def journal(tmp_path) -> Iterator[socket.socket]:
    """Return a syslog socket of the test's own."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "log.socket"))
        listening.settimeout(60)
        yield listening


def test_central_anchors_in_every_place(tmp_path, journal):
    """Each place gets the newest checkpoint and, after more rows, a larger one; each note verifies with the log's key."""
    (tmp_path / "anchors").mkdir()
    anchors, notes = tmp_path / "anchors" / "file", tmp_path / "anchors" / "notes"
    command = [sys.executable, "-c", KEEP_STDIN, str(notes)]
    anchor = {"every": "1s", "file": str(anchors), "command": command, "journal": str(tmp_path / "log.socket")}
    with CentralProcess(tmp_path, more={"log": {"anchor": anchor}}) as central:
        key = read_key(central.key_file).verifying_key
        host = Host(central)
        sizes: list[list[int]] = [[], [], []]
        for _ in range(2):
            host.reserve()
            before = len(sizes[0])
            wait_until(lambda: anchors.exists() and len(anchors.read_text().splitlines()) > before, timeout=60)  # noqa: B023 - called at once
            wait_until(lambda: notes.exists() and notes.read_text().count("\0") > before, timeout=60)  # noqa: B023 - as above
            told = [
                [json.loads(each)["note"] for each in anchors.read_text().splitlines()],
                notes.read_text().split("\0")[:-1],
                [json.loads(journal.recv(65_536).decode().partition("]: ")[2])["note"]],
            ]
            sizes[0] = [open_checkpoint(note, key.name, key).size for note in told[0]]
            sizes[1] = [open_checkpoint(note, key.name, key).size for note in told[1]]
            sizes[2] += [open_checkpoint(note, key.name, key).size for note in told[2]]

    assert all(found == sorted(set(found)) and len(found) >= 2 for found in sizes)
    assert anchors.stat().st_mode & 0o777 == 0o600


def test_a_file_is_only_appended_to(tmp_path):
    """What is in the file stays; each checkpoint is a line, also behind one that the disk did not take whole."""
    file = tmp_path / "anchors"
    write(AnchorFile(file))
    with file.open("a") as torn:
        torn.write('{"at":17')
    write(AnchorFile(file))

    lines = file.read_text().splitlines()
    assert lines == [line(SIGNED), '{"at":17', line(SIGNED)]
    assert json.loads(lines[0]) == {"at": SIGNED.made_at, "size": SIGNED.size, "note": NOTE}


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "device", "absent"])
def test_what_is_no_file_of_lines_is_no_anchor(tmp_path, kind):
    """A link, a pipe that nobody reads, a directory, a device and a directory that is not there fail at once."""
    path = tmp_path / "anchors"
    match kind:
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            path = Path("/dev/full")
        case "absent":
            path = tmp_path / "absent" / "anchors"

    with pytest.raises(OSError):
        write(AnchorFile(path))

    assert not (tmp_path / "elsewhere").exists()


def test_a_disk_that_is_full_fails_the_anchor(tmp_path):
    """Where only a part of the line is taken, that is a failure; the next one has a line of its own."""
    file = tmp_path / "anchors"

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
        write(AnchorFile(file))

    with pytest.raises(OSError, match="did not take the whole line"):
        in_child(fill, None)
    write(AnchorFile(file))

    assert file.read_text().splitlines() == [line(SIGNED)[:20], line(SIGNED)]


def test_a_command_gets_the_note_and_nothing_else(tmp_path, monkeypatch):
    """The note is on its standard input, its arguments are words and no shell's text, and of our environment it has two names."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/secret")
    script = "import json, os, sys; json.dump([sys.stdin.read(), sys.argv[2:], sorted(os.environ)], open(sys.argv[1], 'w'))"
    words = [str(tmp_path / "told"), "$(touch x)", "a b", "; exit 1"]
    write(AnchorCommand([sys.executable, "-c", script, *words], 60))
    note, arguments, names = json.loads((tmp_path / "told").read_text())

    assert note == NOTE
    assert arguments == words[1:]
    assert set(names) <= {"PATH", "HOME", "LC_CTYPE"}  # the last one is the interpreter's own


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["/bin/sh", "-c", "exit 3"], "ended with 3"),
        (["/bin/sh", "-c", "kill -9 $$"], "ended with -9"),
        (["/nonexistent"], "No such file"),
        (["/dev/null"], "Permission denied"),
    ],
)
def test_a_command_that_fails_fails_the_anchor(command, told):
    """Any end but 0 is a failure, and says how it ended."""
    with pytest.raises(OSError, match=told):
        write(AnchorCommand(command, 60))


def test_a_command_need_not_read(tmp_path):
    """A command that closes its standard input and ends with 0 has done what it was asked."""
    write(AnchorCommand(["/bin/sh", "-c", f"exec 0<&-; touch {tmp_path}/done"], 60))

    assert (tmp_path / "done").exists()


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    """After its time the command and its children are killed, and the anchor has failed."""
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! > {pids}; echo $$ >> {pids}; wait"
    with pytest.raises(OSError, match=r"did not end within 0\.5 s"):
        write(AnchorCommand(["/bin/sh", "-c", script], 0.5))

    wait_until(lambda: not any(map(_runs, pids.read_text().split())))


def test_a_journal_gets_one_message_of_one_line(tmp_path, journal):
    """The message is that of syslog(3), with a priority, a time and a tag; the note is in it, and no line break."""
    write(AnchorJournal(str(tmp_path / "log.socket")))
    head, _, told = journal.recv(65_536).decode().partition("]: ")

    assert head.startswith("<85>")
    assert head.endswith(f"prism-vault-central[{os.getpid()}")
    assert "\n" not in told
    assert json.loads(told)["note"] == NOTE


def test_a_journal_where_nobody_listens_fails(tmp_path):
    """Without a socket, or with one that nobody has open, the anchor fails."""
    with pytest.raises(FileNotFoundError):
        write(AnchorJournal(str(tmp_path / "absent")))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        gone.bind(str(tmp_path / "gone"))

    with pytest.raises(ConnectionRefusedError):
        write(AnchorJournal(str(tmp_path / "gone")))


class Checkpoints:
    """Proofs of a log whose newest checkpoint the test sets."""

    def __init__(self) -> None:
        self.signed: Signed | None = None

    async def newest(self) -> Signed | None:
        """Return it."""
        return self.signed


class Faulty:
    """A place that fails when the test says so."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fault: Exception | None = None
        self.sizes: list[int] = []

    async def write(self, signed: Signed) -> None:
        """Keep the size."""
        if self.fault is not None:
            raise self.fault
        self.sizes.append(signed.size)


async def until(condition) -> None:
    """Wait for a condition while the loop runs."""
    await asyncio.to_thread(wait_until, condition, 30)


@pytest.mark.parametrize("fault", [OSError("full"), ZeroDivisionError()])
def test_a_failure_is_counted_and_tried_again(fault, monkeypatch):
    """A place that fails holds no other back; once it works it gets what is then the newest checkpoint, and each only once."""
    monkeypatch.setattr(anchoring, "FIRST_PAUSE", 0.001)

    async def scenario() -> tuple[Faulty, Faulty, Anchoring, str]:
        proofs, good, bad = Checkpoints(), Faulty("good"), Faulty("bad")
        anchors = Anchoring(proofs, [good, bad], 0.005)  # type: ignore[arg-type] # what is asked of it
        bad.fault = fault
        running = asyncio.create_task(anchors.run())
        for size in (3, 5):
            proofs.signed = Signed(size, "", 0)
            await until(lambda: size in good.sizes)  # noqa: B023 - called at once
        await until(lambda: anchors.anchored["bad"].failures > 3)
        trouble = anchors.anchored["bad"].trouble
        bad.fault = None
        await until(lambda: bad.sizes)
        proofs.signed = Signed(8, "", 0)
        await until(lambda: 8 in good.sizes and 8 in bad.sizes)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return good, bad, anchors, trouble

    good, bad, anchors, trouble = asyncio.run(scenario())

    assert good.sizes == [3, 5, 8]
    assert bad.sizes == [5, 8]
    assert trouble in ("full", "ZeroDivisionError")
    assert (anchors.anchored["good"].written, anchors.anchored["good"].failures) == (3, 0)
    assert (anchors.anchored["bad"].written, anchors.anchored["bad"].trouble) == (2, "")


@pytest.mark.parametrize(
    ("anchor", "told"),
    [
        ({}, "a file, a command or a journal"),
        ({"file": "anchors"}, "absolute path"),
        ({"command": ["logger"]}, "by its absolute path"),
        ({"command": "/usr/bin/logger"}, "log.anchor.command"),
        ({"journal": "dev/log"}, "absolute path"),
        ({"file": "/anchors", "every": "10ms"}, "log.anchor.every"),
        ({"file": "/anchors", "command_timeout": "1h"}, "log.anchor.command_timeout"),
        ({"file": "/anchors", "files": 1}, "log.anchor.files"),
    ],
)
def test_an_anchor_is_configured_as_a_whole(tmp_path, anchor, told):
    """What is no place, or none that is meant, is refused by its key."""
    central = CentralProcess(tmp_path, more={"log": {"anchor": anchor}})
    central.write_config()

    with pytest.raises(ConfigError, match=told):
        load(central.config_file)


def _runs(pid: str) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    return False
