"""The unit files that ship: they say what systemd understands, and leave a service nothing that it does not need."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[1] / "systemd"
CENTRAL = UNITS / "prism-vault-central.service"
MOST_EXPOSED = 1.0


@pytest.mark.tool("systemd-analyze")
def test_central_is_hardly_exposed():
    """What systemd says of the unit's exposure, from 0 to 10, is at most 1."""
    analysed = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(CENTRAL)], capture_output=True, text=True, check=False
    )
    told = re.search(r"Overall exposure level for prism-vault-central.service: ([0-9.]+)", analysed.stdout)

    assert told is not None, analysed.stderr
    assert float(told[1]) <= MOST_EXPOSED


@pytest.mark.tool("systemd-analyze")
def test_every_line_is_understood(tmp_path: Path):
    """Systemd knows each setting and value of the unit; with a program that exists it has nothing to say against it."""
    unit = tmp_path / CENTRAL.name
    unit.write_text(CENTRAL.read_text().replace("/opt/prism-vault/bin/prism-vault", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)

    assert [line for line in verified.stderr.splitlines() if CENTRAL.name in line] == []
    unit.write_text(unit.read_text().replace("ProtectSystem=", "ProtectSystemm="))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert "ProtectSystemm" in verified.stderr, "what is wrong is seen"
