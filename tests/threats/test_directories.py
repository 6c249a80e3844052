"""T14: an agent does not render below a directory that others may change, and names the component."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.attackers import STRANGERS_UID
from tests.threats.starting import refusal, unstarted

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.files import Filed


def told(made: Filed, above: Path, top: Path) -> str:
    """Return the line with which an agent that is to render below ``top`` ends at its start."""
    return refusal(unstarted(made, above, f'files = "{top}"\nfiles_risks = ["swap"]'))


@pytest.mark.parametrize("mode", [0o1777, 0o775])
def test_t14_its_own_directory_may_be_written_by_nobody_else(made, above, mode):
    """Writable by its group or by all, sticky or not, the directory is refused by name and mode."""
    top = above / "files"
    top.mkdir()
    made.give(top)
    top.chmod(mode)
    assert f"{top}: may be written by others (mode {mode:04o})" in told(made, above, top)


def test_t14_none_above_it_may_be_written_by_others(made, above):
    """A directory on the way that others may write, and that is not sticky, is refused by name."""
    between = above / "between"
    between.mkdir()
    made.give(between)
    between.chmod(0o777)
    assert f"{between}: may be written by others (mode 0777)" in told(made, above, between / "files")


def test_t14_a_sticky_one_above_it_will_do(made, above):
    """One that all may write will do where it is sticky, as /tmp is: nobody can rename in it what is another's."""
    between = above / "between"
    between.mkdir()
    made.give(between)
    between.chmod(0o1777)
    with unstarted(made, above, f'files = "{between}/files"\nfiles_risks = ["swap"]') as agent:
        assert agent.status()["files_memory"]
    if (between / "files").is_mount():
        subprocess.run(["umount", between / "files"], check=True)


@pytest.mark.root
@pytest.mark.parametrize("which", ["between", "between/files"])
def test_t14_none_may_be_a_strangers(made, above, which):
    """A component that belongs to neither root nor the agent's user is refused by name."""
    top = above / "between/files"
    top.mkdir(parents=True)
    made.give(top.parent, top)
    os.chown(above / which, STRANGERS_UID, -1)
    assert f"{above / which}: belongs to uid {STRANGERS_UID}" in told(made, above, top)


@pytest.mark.parametrize("which", ["between", "between/files"])
def test_t13_no_component_may_be_a_link(made, above, which):
    """A symbolic link anywhere on the way is refused by name, also one of the agent's own user."""
    (above / "real/files").mkdir(parents=True)
    if which != "between":
        (above / "between").mkdir()
    (above / which).symlink_to(above / "real" if which == "between" else above / "real/files")
    made.give(*above.rglob("*"))
    assert f"{above / which}: is a symbolic link" in told(made, above, above / "between/files")
    assert list((above / "real/files").iterdir()) == []
