"""A place for files on a tmpfs of this test's own."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.sink import linux
from prism_vault_agent.sink.place import Place, open_place

if TYPE_CHECKING:
    from collections.abc import Iterator


def unmount(path: Path) -> None:
    """Take away what is mounted on a path, if anything is."""
    if path.is_mount():
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture(params=["openat2", "walk"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How files are opened: by openat2(2), or as where a filter of system calls has left that out."""
    if request.param == "walk":

        def filtered(*_words: object) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(linux, "_openat2", filtered)
    return str(request.param)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory on a tmpfs, without the place yet; what is mounted below it is taken away."""
    found = Path(tempfile.mkdtemp(prefix="pv-", dir="/dev/shm"))
    found.chmod(0o755)
    yield found
    for path in sorted(found.rglob("*"), reverse=True):
        unmount(path)
    shutil.rmtree(found)


@pytest.fixture
def place(directory) -> Iterator[Place]:
    """The place, open."""
    opened = open_place(str(directory / "files"), ["swap"])  # the machine of an ordinary user may have some
    yield opened
    opened.close()
