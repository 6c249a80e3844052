"""The files of Compose that ship, without an engine: `make e2e` runs them on one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[1]


def test_compose_understands_every_file(tmp_path):
    """Compose takes each file as it is."""
    files = sorted((HERE / "compose").glob("*.yaml"))
    told = [
        subprocess.run(
            [str(Path(sys.executable).with_name("docker-compose")), "--file", str(file), "config", "--quiet"],
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        for file in files
    ]

    assert files
    assert [(each.returncode, each.stdout, each.stderr) for each in told] == [(0, "", "")] * len(files)


def test_an_image_has_the_locked_packages():
    """What an image of central installs is locked at the versions and hashes of everything else."""
    found = [pins(HERE / "requirements" / name) for name in ("central.txt", "lock.txt")]

    assert len(found[0]) > 30
    assert found[0].items() <= found[1].items()


def pins(file: Path) -> dict[str, list[str]]:
    """Return the hashes of each pinned version in a file of requirements."""
    parts = re.split(r"^(?=[a-z])", file.read_text(), flags=re.MULTILINE)
    return {part.split()[0]: re.findall(r"sha256:[0-9a-f]{64}", part) for part in parts if "==" in part}
