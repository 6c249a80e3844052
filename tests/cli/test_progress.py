"""The bar of what takes long: there on a terminal, taken away at the end, and nowhere else."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.cli import progress
from prism_vault_agent.cli.progress import Progress
from tests.central.own_log import KEY
from tests.support.bulk import large

if TYPE_CHECKING:
    from pathlib import Path

# The command as it is, but that a bar need not wait a second, so that a small log is long enough.
AT_ONCE = (
    "import sys; from prism_vault_agent.cli import progress; progress.BEGINS_AFTER = progress.EVERY = 0.0; "
    "from prism_vault_agent.cli.main import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the command that verifies a log of several parts."""
    directory: Path = tmp_path_factory.mktemp("log")
    directory.chmod(0o700)
    database = large(directory, 9_000, KEY)
    return [sys.executable, "-c", AT_ONCE, "audit", "verify", "--database", str(database)]


def shown(command: list[str]) -> tuple[int, str]:
    """Run a command whose standard error is a terminal; return its exit status and what that showed."""
    ours, its = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=its) as running:
        os.close(its)
        text = b""
        while some := _read(ours):
            text += some
        os.close(ours)
        return running.wait(60), text.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # EIO: nobody has the other end any longer
        return b""


def test_a_terminal_shows_how_far_it_is(command: list[str]):
    """On a terminal the bar rises to the end, with the rate and the time that is left, and is gone when the verdict is told."""
    status, text = shown(command)
    parts = [int(found) for found in re.findall(r"(\d+)%", text)]

    assert status == 0, text
    assert parts == sorted(parts)
    assert parts[-1] == 100
    assert len(parts) >= 3
    assert re.search(r"\[#+ *\] +\d+%  [\d,]+ rows, [\d,]+ a second, \d+ s left", text)
    assert text.endswith("\r\x1b[K")
    assert "\n" not in text


def test_what_is_no_terminal_shows_nothing(command: list[str]):
    """Where standard error is a file or a pipe, nothing of a bar is written to it."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "the log is whole" in ended.stdout


def test_what_is_done_at_once_has_no_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Before a second has passed there is no bar, and nothing to take away."""
    monkeypatch.setattr(progress, "BEGINS_AFTER", 3_600.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = Progress("rows", 10)
    for done in range(10):
        bar(done)
    bar.end()

    assert capsys.readouterr().err == ""


def test_of_what_nobody_knows_the_end_only_the_count_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Where it is not known how many there are, as of an export, the count and the rate are shown, and no bar."""
    monkeypatch.setattr(progress, "BEGINS_AFTER", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    Progress("rows", 0)(5_000)

    said = capsys.readouterr().err
    assert "5,000 rows, " in said
    assert "%" not in said
    assert "[#" not in said
