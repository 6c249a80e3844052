"""The files of Compose that ship, and what a program is started by, without an engine: `make e2e` runs them on one."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.composed import BESIDE
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parents[1]


def test_compose_understands_every_file(tmp_path):
    """Compose takes each file as it is."""
    files = sorted((HERE / "compose").rglob("*.yaml"))
    told = [
        subprocess.run(
            [str(Path(sys.executable).with_name("docker-compose")), *options(file), "config", "--quiet"],
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        for file in files
    ]

    assert files
    assert [(each.returncode, each.stdout, each.stderr) for each in told] == [(0, "", "")] * len(files)


def options(file: Path) -> list[str]:
    """Return the options that name a file and what it goes beside."""
    beside = BESIDE.get(str(file.relative_to(HERE)), [])
    return [word for each in (*(HERE / name for name in beside), file) for word in ("--file", str(each))]


def test_an_image_has_the_locked_packages():
    """What the images install is locked at the versions and hashes of everything else."""
    lock = pins(HERE / "requirements" / "lock.txt")
    agent, central = (pins(HERE / "requirements" / f"{part}.txt") for part in ("agent", "central"))

    assert len(agent) > 20 and len(central) > 30
    assert agent.items() <= lock.items() and central.items() <= lock.items()


def pins(file: Path) -> dict[str, list[str]]:
    """Return the hashes of each pinned version in a file of requirements."""
    parts = re.split(r"^(?=[a-z])", file.read_text(), flags=re.MULTILINE)
    return {part.split()[0]: re.findall(r"sha256:[0-9a-f]{64}", part) for part in parts if "==" in part}


class WithFile:
    """A program that ``with-file`` runs: it prints SECRET, and sleeps."""

    def __init__(self, directory: Path, shell: str) -> None:
        self.file = directory / "web.env"
        self.put("SECRET='one $x'")
        command = [shell, str(HERE / "compose/sidecar/with-file"), str(self.file), "sh", "-c", 'echo "$SECRET"; exec sleep 1000']
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def put(self, text: str) -> None:
        """Put another file in the place of the one that is there, as a render does."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{text}\n")
        new.rename(self.file)

    def line(self) -> str:
        """Return the next line that the program prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def programs(self) -> list[psutil.Process]:
        """Return what runs below it, but for its own pause of a second; nothing while that is about to sleep."""
        found = []
        for each in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # also where it is a zombie: such a pause has just ended
                if each.cmdline() == ["sleep", "1000"]:
                    found.append(each)
        return found


@pytest.fixture(params=["dash", "bash"])
def with_file(request, tmp_path) -> Iterator[WithFile]:
    """Return a program under ``with-file``, in each of two shells."""
    started = WithFile(tmp_path, request.param)
    yield started
    for each in psutil.Process(started.process.pid).children() if started.process.poll() is None else []:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    started.process.kill()
    started.process.communicate()


def test_a_program_is_started_again_with_another_file(with_file):
    """The program has the variables of the file, and once there is another file, it is ended and started with that one's."""
    first = with_file.line()
    with_file.put("SECRET=two")
    second = with_file.line()
    wait_until(lambda: len(with_file.programs()) == 1)

    assert (first, second) == ("one $x\n", "two\n")


def test_a_program_ends_with_its_file(with_file):
    """Once the file is gone the program is ended, and one line says why; 75."""
    with_file.line()
    with_file.file.unlink()
    status = with_file.process.wait(30)

    assert (status, with_file.process.stderr.read().count("\n")) == (75, 1)


def test_a_program_ends_with_what_runs_it(with_file):
    """SIGTERM is passed on to the program, and with-file waits for its end."""
    with_file.line()
    (sleeping,) = wait_until(with_file.programs)
    with_file.process.terminate()

    assert with_file.process.wait(30) == 0
    assert not sleeping.is_running()


def test_a_program_that_ends_by_itself_ends_what_runs_it(tmp_path):
    """The exit status is the program's own."""
    (tmp_path / "file").write_text("X=7\n")
    command = [str(HERE / "compose/sidecar/with-file"), str(tmp_path / "file"), "sh", "-c", "exit $X"]
    assert subprocess.run(command, check=False, timeout=60).returncode == 7
