"""``make demo``: what a newcomer sees, and that it leaves nothing, however it is ended."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.dev.started import processes_in
from tests.support.waiting import wait_until

DEMO = Path(__file__).resolve().parents[2] / "demo"


@pytest.fixture
def checkout(tmp_path):
    """A checkout in a path with spaces, of which the demo needs its own folder alone."""
    root = tmp_path / "a checkout's folder"
    shutil.copytree(DEMO, root / "demo")
    return root


def _start(checkout: Path, output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-I", "demo/demo.py"],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=checkout,
            start_new_session=True,
            env={**os.environ, "DEMO_SECRET_OF_MY_OWN": "1"},
        )


def _left(checkout: Path) -> list[str]:
    return processes_in(checkout) + [str(path) for path in checkout.iterdir() if path.name != "demo"]


def test_the_demo_shows_the_main_job(checkout, tmp_path):
    """The demo shows injected names without values, a denial with its audit id, the rows of the run, and a log that verifies."""
    process = _start(checkout, tmp_path / "out")
    assert process.wait(100) == 0, (tmp_path / "out").read_text()
    told = (tmp_path / "out").read_text()
    assert re.search(r"DEMO_DATABASE_URL = \*{8} \(\d+ characters\)", told)
    for kind in ("reserved", "success", "cleared", "denied"):
        assert re.search(rf"^ +\d+  \S+  localhost  {kind} ", told, re.MULTILINE), told
    assert re.search(r"curiosity is not one of its purposes; .*\(pva_[0-9a-f]{32}\)", told)
    assert "the log is whole" in told
    assert len(told.splitlines()) <= 45
    for line in (DEMO / "example.env").read_text().splitlines():
        value = line.partition("=")[2].split(" #")[0].strip("\"'")
        assert not value or len(value) < 6 or value not in told
    assert _left(checkout) == []


def test_the_demo_works_in_a_folder_that_others_may_change(checkout, tmp_path, monkeypatch):
    """In a clone that is somebody else's, or the whole group's, the demo keeps its stack elsewhere and leaves nothing there."""
    checkout.chmod(0o775)
    with tempfile.TemporaryDirectory(prefix="pv-", dir="/tmp") as elsewhere:  # short enough for a socket's path
        monkeypatch.setenv("TMPDIR", elsewhere)
        process = _start(checkout, tmp_path / "out")
        assert process.wait(100) == 0, (tmp_path / "out").read_text()
        assert f"--state {elsewhere}/prism-vault-demo-" in (tmp_path / "out").read_text()
        assert _left(checkout) == []
        assert os.listdir(elsewhere) == []


@pytest.mark.parametrize("moment", ["1. start", "OpenBao answers", "2. run", "4. who"])
def test_ctrl_c_at_any_moment_leaves_nothing(moment, checkout, tmp_path):
    """Ctrl-C, which reaches every process of the foreground, ends the demo with 130 and leaves nothing."""
    process = _start(checkout, tmp_path / "out")
    wait_until(lambda: moment in (tmp_path / "out").read_text(), 60)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130, (tmp_path / "out").read_text()
    assert _left(checkout) == []
    assert "Traceback" not in (tmp_path / "out").read_text()
