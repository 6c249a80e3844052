"""``prism-vault run-sidecar``: renders as itself and on the record, tells whether it is healthy, clears at its end."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.asking import last_audit_id, rows
from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.files import SYSTEMD
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.central import CentralProcess
    from tests.support.openbao import OpenBao

FS_IOC_SETFLAGS, FS_IMMUTABLE_FL = 0x4008_6602, 0x10  # ioctl_iflags(2)
_numbers = itertools.count(1)


class SidecarProcess:
    """A sidecar of one scope, whose files are on a tmpfs."""

    def __init__(self, place: Path, openbao: OpenBao, central: CentralProcess, **scope: Any) -> None:
        self.name = f"sidecar{next(_numbers)}"
        self.openbao = openbao
        self.top = Path(tempfile.mkdtemp(prefix="pv-", dir="/dev/shm")) / "files"
        self.top.parent.chmod(0o755)
        directory = place / self.name
        directory.mkdir()
        self.agent = AgentProcess(
            directory,
            openbao,
            central,
            agent=f'files = "{self.top}"\nfiles_risks = ["swap"]',
            vault='poll = "1s"',
            central_lines='timeout = "3s"',
            words=("run-sidecar", self.name),
        )
        self.put("canary-1")
        self.agent.scope(self.name, **{"env": {"KEY": f"vault://secret/{self.name}#key"}, "files": [SYSTEMD], **scope})

    @property
    def file(self) -> Path:
        """Its file."""
        return self.top / self.name / "web.env"

    def put(self, value: str) -> None:
        """Make a new version of its secret."""
        self.openbao.kv_put(f"secret/{self.name}", {"key": value})

    def check(self) -> tuple[int, str]:
        """Return the exit status and the one line of the health check."""
        command = [LAUNCHER, "run-sidecar", "--check"]
        done = subprocess.run(
            command, env=self.agent.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.stdout.count("\n") == 1
        return done.returncode, done.stdout.strip()

    def healthy(self) -> bool:
        """Tell whether it is healthy."""
        return self.check() == (0, f"healthy: {self.name}")

    def ended(self) -> tuple[int, str]:
        """Wait for its end; return the exit status, and the last line that it printed."""
        assert self.agent.process is not None
        status = self.agent.process.wait(60)
        self.agent.process = None
        return status, self.agent.log.splitlines()[-1]

    def remove(self) -> None:
        """Leave nothing behind."""
        self.agent.kill()
        if self.top.is_mount():
            subprocess.run(["umount", str(self.top)], check=True)
        shutil.rmtree(self.top.parent)


@pytest.fixture
def make(place, openbao, central) -> Iterator[Callable[..., SidecarProcess]]:
    """Make sidecars, which are not started; what is given stands in the scope."""
    made: list[SidecarProcess] = []

    def one(**scope: Any) -> SidecarProcess:
        made.append(SidecarProcess(place, openbao, central, **scope))
        return made[-1]

    yield one
    for each in made:
        each.remove()


def test_it_renders_as_itself_and_takes_it_along(make, central):
    """Healthy means rendered and on the log, with the sidecar as the caller; after SIGTERM even an open file is empty, and 0."""
    sidecar = make()
    sidecar.agent.start()
    pid = sidecar.agent.process.pid
    wait_until(sidecar.healthy)
    (told,) = sidecar.agent.status()["files"]
    with sidecar.file.open() as reader:
        text = sidecar.file.read_text()
        status = sidecar.agent.stop()
        left = reader.read()

    assert (text, status, left) == ('KEY="canary-1"\n', 0, "")
    assert sorted(os.listdir(sidecar.top)) == [".ended", ".lock", ".staged"] and os.listdir(sidecar.top / ".staged") == []
    reserved, success, cleared = (event["fields"] for event in rows(central, told["id"]))
    assert (reserved["mode"], reserved["caller"]["pid"], reserved["caller"]["uid"]) == ("file", pid, os.getuid())
    assert (success["kind"], cleared["kind"], cleared["reason"]) == ("success", "cleared", "stopped")
    assert sidecar.check()[0] == 69


def test_it_follows_a_rotation(make):
    """A newer version is rendered within a poll and healthy again; while that fails it says so, and what was there stays."""
    sidecar = make(files=[{**SYSTEMD, "format": "docker"}])
    sidecar.agent.start()
    wait_until(sidecar.healthy)
    sidecar.put("canary-2")
    wait_until(lambda: sidecar.file.read_text() == "KEY=canary-2\n")
    wait_until(sidecar.healthy)
    sidecar.put("canary-3\nX=1")
    wait_until(lambda: "a newer version is due (KEY holds a line break" in sidecar.check()[1])
    assert sidecar.check()[0] == 75
    assert sidecar.file.read_text() == "KEY=canary-2\n"


def test_without_the_log_nothing_is_there(make, central):
    """While central is away nothing is rendered, and it is not healthy and says why; it renders when central is back."""
    sidecar = make()
    central.stop()
    try:
        sidecar.agent.start(ready=False)
        wait_until(lambda: "central" in sidecar.check()[1])
        status, line = sidecar.check()
        assert status == 75 and line.startswith(f"prism-vault: scope {sidecar.name}: ")
        assert not sidecar.file.exists()
    finally:
        central.start()
    wait_until(sidecar.healthy, 60)
    assert sidecar.file.read_text() == 'KEY="canary-1"\n'


def test_an_outage_of_what_it_needs_does_not_take_away_what_is_rendered(make, central):
    """What is rendered and recorded stays healthy while central is away."""
    sidecar = make()
    sidecar.agent.start()
    wait_until(sidecar.healthy)
    central.stop()
    try:
        wait_until(lambda: not sidecar.agent.status()["signals"]["connected"])
        assert sidecar.healthy()
        assert sidecar.file.read_text() == 'KEY="canary-1"\n'
    finally:
        central.start()


def test_what_happens_to_its_files_is_told(make):
    """A file that somebody changed, and one that was cleared, are no healthy ones."""
    sidecar = make()
    sidecar.agent.start()
    wait_until(sidecar.healthy)
    sidecar.file.chmod(0o600)
    assert sidecar.check()[0] == 75 and "somebody changed its files" in sidecar.check()[1]
    command = [LAUNCHER, "clear", "--all"]
    subprocess.run(command, env=sidecar.agent.environment(), check=True, capture_output=True)
    assert sidecar.check() == (75, f"prism-vault: scope {sidecar.name}: its files were cleared; the log says why")


@pytest.mark.parametrize(
    ("scope", "status", "told"),
    [
        ({"callers": [{"kind": "service", "uid": 12345}]}, 77, "matches none of its callers"),
        ({"files": []}, 64, "has no files"),
        ({"env": {"KEY": "vault://secret/web#nothing"}}, 66, "nothing"),
    ],
)
def test_what_waiting_does_not_mend_ends_it(make, central, scope, status, told):
    """It ends with the exit status of a render that is denied or cannot be, and one line of why; nothing is there."""
    sidecar = make(**scope)
    command = [LAUNCHER, *sidecar.agent.words, "--config", str(sidecar.agent.config)]
    done = subprocess.run(command, env=sidecar.agent.environment(), capture_output=True, text=True, check=False, timeout=100)
    ended, line = done.returncode, (done.stdout + done.stderr).splitlines()[-1]
    assert (ended, told in line, line.startswith("prism-vault: ")) == (status, True, True), line
    assert not sidecar.file.exists()
    if status == 77:
        assert [row["kind"] for row in rows(central, last_audit_id(line))] == ["denied"]


def test_a_kill_leaves_nothing_that_the_next_one_does_not_know(make):
    """After SIGKILL and a start it adopts what is there, renders it anew, and takes it away at its end."""
    sidecar = make()
    sidecar.agent.start()
    wait_until(sidecar.healthy)
    sidecar.agent.kill()
    before = sidecar.file.stat().st_ino
    sidecar.agent.start()
    wait_until(sidecar.healthy)
    assert sidecar.file.stat().st_ino == before
    assert sidecar.agent.status()["files"][0]["generation"] == 2
    assert sidecar.agent.stop() == 0
    assert not sidecar.file.exists()


@pytest.mark.root
def test_what_cannot_be_cleared_is_told(make):
    """Where a file cannot be removed it ends with 73 and names the scope; the file is empty."""
    sidecar = make()
    sidecar.agent.start()
    wait_until(sidecar.healthy)
    directory = os.open(sidecar.file.parent, os.O_RDONLY)
    try:
        fcntl.ioctl(directory, FS_IOC_SETFLAGS, struct.pack("l", FS_IMMUTABLE_FL))
        sidecar.agent.process.terminate()
        status, line = sidecar.ended()
        assert status == 73 and f"not everything was cleared: {sidecar.name}" in line
        assert sidecar.file.read_text() == ""
    finally:
        fcntl.ioctl(directory, FS_IOC_SETFLAGS, struct.pack("l", 0))
        os.close(directory)


@pytest.mark.parametrize("words", [[], ["--check", "web"]])
def test_scopes_or_the_check(words):
    """The command takes scopes, or ``--check``, and says so."""
    done = subprocess.run([LAUNCHER, "run-sidecar", *words], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (64, 1)
