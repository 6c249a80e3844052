"""The command prism-vault as installers make it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.exec.fake_agent import ROOT, FakeAgent, answer

UV = Path(sys.executable).with_name("uv")
# Names and values that a shell, or an interpreter that is not isolated, would not hand on as they are.
ODD = {"odd.name": "1", "PYTHONSAFEPATH": "1"}
QUIET = ["-q", "--offline", "--no-config"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Our wheel, built as `make setup` builds it."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [UV, "build", *QUIET, "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", directory, ROOT]
    subprocess.run(command, check=True)
    return next(directory.glob("*.whl"))


@pytest.fixture(params=["venv", "with a space", "long-" * 30], ids=["short", "space", "long"])
def installed(request, wheel, tmp_path):
    """The command in a virtual environment of its own, without any dependency."""
    return install(wheel, tmp_path / request.param)


def install(wheel: Path, venv: Path) -> Path:
    """Make a virtual environment with the wheel in it, as its user would; return the command."""
    subprocess.run([UV, "venv", *QUIET, "--python", sys.executable, venv], check=True)
    subprocess.run([UV, "pip", "install", *QUIET, "--no-deps", "--python", venv / "bin/python", wheel], check=True)
    return venv / "bin" / "prism-vault"


def mend(command: Path) -> None:
    """Do to an installed command what `make setup` does."""
    subprocess.run(["sed", "-i", "-f", ROOT / "launcher" / "first-line.sed", command], check=True)


def run(command: Path, agent: FakeAgent, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run env(1) under the installed command."""
    words = [str(command), "exec", "--socket", agent.path, "--scope", "web", "--", "/usr/bin/env"]
    return subprocess.run(words, env=environment, capture_output=True, check=False)


def test_installed(installed, tmp_path):
    """The installed command works in any place, through a link, and whatever the caller sets for its own Python."""
    link = tmp_path / "link"
    link.symlink_to(installed)
    (tmp_path / "prism_vault_agent.py").write_text("raise SystemExit(99)\n")
    with FakeAgent(tmp_path, answer({b"DB": b"1"})) as agent:
        for command in (installed, link):
            done = run(command, agent, PYTHONPATH=str(tmp_path), PYTHONUNBUFFERED="1")
            found = set(done.stdout.decode().splitlines())
            assert found >= {"DB=1", f"PYTHONPATH={tmp_path}", "PYTHONUNBUFFERED=1"}, done.stderr


def test_nothing_is_added_or_lost(wheel, tmp_path):
    """Started without a shell the command's environment is the caller's to the name, isolated or not."""
    command = install(wheel, tmp_path / "venv")
    with FakeAgent(tmp_path, answer({b"DB": b"1"})) as agent:
        assert command.read_text().startswith(f"#!{tmp_path}/venv/bin/python\n")
        plain = run(command, agent, **ODD)
        mend(command)
        isolated = run(command, agent, **ODD)
    assert set(plain.stdout.splitlines()) == {b"odd.name=1", b"PYTHONSAFEPATH=1", b"DB=1"}
    assert isolated.stdout == plain.stdout


@pytest.mark.parametrize("place", ["venv", "a space", "it's", "a checkout's folder", "a $HOME", "long " * 10, "long-" * 25])
def test_the_first_line_is_made_one_without_a_shell(wheel, tmp_path, place):
    """What `make setup` does to the first line starts no shell, in any path: nothing is added or lost, and it is isolated."""
    command = install(wheel, tmp_path / place)
    mend(command)
    first = command.read_text().partition("\n")[0]
    assert first.endswith(" -ISE")
    assert len(first) <= 255
    with FakeAgent(tmp_path, answer({b"DB": b"1"})) as agent:
        done = run(command, agent, **ODD)
    assert set(done.stdout.splitlines()) == {b"odd.name=1", b"PYTHONSAFEPATH=1", b"DB=1"}, done.stderr
    once = command.read_text()
    mend(command)
    assert command.read_text() == once


@pytest.mark.parametrize("place", ["a \\ b", "a b" * 70])
def test_a_first_line_that_has_no_form_without_a_shell_is_left(wheel, tmp_path, place):
    """A path that env(1) would read otherwise, or that is too long for the kernel, keeps the installer's shell and works."""
    command = install(wheel, tmp_path / place)
    before = command.read_text()
    mend(command)
    assert command.read_text() == before
    with FakeAgent(tmp_path, answer({b"DB": b"1"})) as agent:
        assert b"DB=1" in run(command, agent).stdout.splitlines()


def test_package_is_gone(tmp_path):
    """A launcher without its package says so in one line."""
    launcher = tmp_path / "bin" / "prism-vault"
    launcher.parent.mkdir()
    launcher.write_bytes((ROOT / "launcher" / "prism-vault").read_bytes())
    subprocess.run([UV, "venv", *QUIET, "--python", sys.executable, tmp_path / "venv"], check=True)
    done = subprocess.run([tmp_path / "venv/bin/python", "-ISE", launcher, "exec"], capture_output=True, check=False)
    assert done.returncode == 70
    assert done.stderr.decode().splitlines() == [
        f"prism-vault: no package prism_vault_agent beside {launcher}; install prism-vault-agent again"
    ]


WAYS = [[str(ROOT / "launcher/prism-vault")], ["-m", "prism_vault_agent"], [str(ROOT / "prism_vault_agent/__main__.py")]]


@pytest.mark.parametrize("how", WAYS, ids=["launcher", "module", "file"])
def test_ways_to_start(tmp_path, how):
    """The launcher, the module and the file start the same program."""
    options = [] if how[0] == "-m" else ["-ISE"]
    with FakeAgent(tmp_path, answer({b"DB": b"1"})) as agent:
        words = [sys.executable, *options, *how, "exec", "--socket", agent.path, "--scope", "web", "--", "/usr/bin/env"]
        done = subprocess.run(words, env={}, cwd=ROOT, capture_output=True, check=False)
    assert done.stdout == b"DB=1\n", done.stderr
    help_words = [sys.executable, *options, *how, "exec", "--help"]
    helped = subprocess.run(help_words, cwd=ROOT, capture_output=True, check=True)
    assert b"--scope SCOPE" in helped.stdout
