"""The control groups of processes and runs, found from outside."""

from __future__ import annotations

from pathlib import Path


def place_of(pid: int | str) -> Path:
    """Return the directory of the control group (cgroup v2) in which a process is."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    place = next(line.partition("::")[2] for line in lines if line.startswith("0::"))
    mounted = next(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line)
    return Path(f"{mounted}{place}".rstrip("/"))


def group_of(audit_id: str) -> Path:
    """Return the control group of a run that was started from the tests' own."""
    return place_of("self") / f"prism-vault-{audit_id.removeprefix('pva_')}"
