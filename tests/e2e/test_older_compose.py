"""The files of Compose that ship, read by the Compose of Debian bookworm: 1.29.2, of the language's first edition."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.composed import BESIDE
from tests.support.roots import HERE

if TYPE_CHECKING:
    from pathlib import Path

COMPOSE = "/usr/bin/docker-compose"
FILES = sorted(str(path.relative_to(HERE)) for path in (HERE / "compose").rglob("*.yaml"))


def told(directory: Path, *words: str) -> tuple[int, str, str]:
    """Return the exit status of Compose and what it prints; it asks no engine for what is asked here."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(directory), "CALLERS": "1000"}
    done = subprocess.run([COMPOSE, *words], env=environment, cwd=HERE, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_it_is_the_older_one(tmp_path):
    """What reads them here is version 1.29.2."""
    assert told(tmp_path, "version", "--short")[:2] == (0, "1.29.2\n")


@pytest.mark.parametrize("file", FILES)
def test_every_file_is_understood(tmp_path, file):
    """It takes each file as it is, with those that it goes beside."""
    files = [*BESIDE.get(file, []), file]
    assert told(tmp_path, *(word for each in files for word in ("--file", each)), "config", "--quiet") == (0, "", "")


def test_what_it_does_not_know_is_refused(tmp_path):
    """A key that came later, such as ``name``, is told."""
    newer = tmp_path / "compose.yaml"
    newer.write_text("name: newer\nservices: {app: {image: app}}\n")
    status, _, why = told(tmp_path, "--file", str(newer), "config", "--quiet")
    assert (status, "'name' does not match" in why) == (1, True)
