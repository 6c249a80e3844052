"""The unit files that ship: they say what systemd understands, and leave a service nothing that it does not need."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[1] / "systemd"
# The agent knows its callers by what PrivateUsers= and ProtectProc= hide.
EXPOSED = {
    "prism-vault-agent.service": 0.5,
    "prism-vault-central.service": 1.0,
    "prism-vault-helper.service": 1.4,
    "prism-vault-relay@.service": 1.0,
    "prism-vault-render@.service": 0.2,
}
DROPPED_IN = {
    "prism-vault-agent.service.d/network.conf": 1.3,
    "prism-vault-helper.service.d/units.conf": 1.6,
}
SHIPPED = sorted(path.name for path in UNITS.iterdir() if path.suffix in (".service", ".socket", ".mount"))


@pytest.mark.tool("systemd-analyze")
@pytest.mark.parametrize("name", sorted(name for name in SHIPPED if name.endswith(".service")))
def test_a_service_is_hardly_exposed(tmp_path: Path, name: str):
    """What systemd says of a service's exposure, from 0 to 10, is at most what is said of it in the documents."""
    assert exposure(tmp_path, name) <= EXPOSED[name]


@pytest.mark.tool("systemd-analyze")
@pytest.mark.parametrize("path", sorted(DROPPED_IN))
def test_a_service_with_its_drop_in_is_hardly_exposed(tmp_path: Path, path: str):
    """So it is with each drop-in that takes something from a service, or gives it something."""
    name = path.partition(".d/")[0]
    assert exposure(tmp_path, name, UNITS / path) <= DROPPED_IN[path]


def exposure(directory: Path, name: str, *drop_ins: Path) -> float:
    """Return what systemd says of a unit with these drop-ins; those beside it are read too, so it is copied."""
    unit = directory / name
    unit.write_text("".join(path.read_text() for path in (UNITS / name, *drop_ins)))
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    analysed = subprocess.run(command, capture_output=True, text=True, check=False)
    told = re.search(r"Overall exposure level for \S+: ([0-9.]+)", analysed.stdout)
    assert told is not None, analysed.stderr
    return float(told[1])


def verified(directory: Path, name: str) -> list[str]:
    """Return what systemd has to say against a unit, and those of ours that it needs."""
    unit = directory / name.replace("@.", "@web.")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    return [line for line in done.stderr.splitlines() if "prism" in line]


@pytest.mark.tool("systemd-analyze")
@pytest.mark.parametrize("name", SHIPPED)
def test_every_line_is_understood(tmp_path: Path, name: str):
    """Systemd knows each setting and value of a unit; with a program that exists it has nothing to say against it."""
    for path in (UNITS / each for each in SHIPPED):
        shutil.copy(path, tmp_path)
        copied = tmp_path / path.name
        copied.write_text(copied.read_text().replace("/opt/prism-vault/bin/prism-vault", "/bin/true"))

    assert verified(tmp_path, name) == []
    unit = tmp_path / name
    unit.write_text(
        re.sub(
            r"^(ProtectSystem|ListenStream|ListenSequentialPacket|DirectoryMode)=", r"\1m=", unit.read_text(), flags=re.MULTILINE
        )
    )
    assert any(re.search("Unknown key( name)? '[A-Za-z]+m'", line) for line in verified(tmp_path, name)), "what is wrong is seen"
