"""The control groups of runs, found from outside."""

from __future__ import annotations

from pathlib import Path


def group_of(audit_id: str) -> Path:
    """Return the control group of a run that was started from the tests' own."""
    place = next(line.partition("::")[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    mounted = next(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line)
    return Path(f"{mounted}{place}".rstrip("/"), f"prism-vault-{audit_id.removeprefix('pva_')}")
