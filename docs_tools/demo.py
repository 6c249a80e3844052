"""What `make demo` prints, with what differs from run to run made the same: ports, times, audit ids, the user's number."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
SECONDS: Final = 180
COLUMN: Final = re.compile(r" {2,}")
TIME: Final = "2026-01-01T12:00:00Z"


def shown() -> str:
    """Run the demo and return the command and what it printed. Raises ``SystemExit`` where the demo fails."""
    done = subprocess.run(
        [sys.executable, "-I", str(ROOT / "demo" / "demo.py")], capture_output=True, text=True, check=False, timeout=SECONDS
    )
    if done.returncode:
        raise SystemExit(f"make demo failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return "$ make demo\n" + same(done.stdout)


def same(text: str) -> str:
    """Return the output of a demo as every run gives it."""
    ports = _numbered(re.findall(r"127\.0\.0\.1:(\d+)", text), "{}0001")
    ids = _numbered(re.findall(r"pva_([0-9a-f]{32})", text), "{:032d}")
    text = re.sub(r"(?<=127\.0\.0\.1:)\d+", lambda match: ports[match[0]], text)
    text = re.sub(r"(?<=pva_)[0-9a-f]{32}", lambda match: ids[match[0]], text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", TIME, text)
    text = re.sub(r"\buid \d+", "uid 1000", text)
    text = re.sub(r"\d+ checkpoints?(?=: the log)", "2 checkpoints", text)
    text = re.sub(r"(?<=signed by ).*?/prism-vault/[0-9a-f]{8}\+[0-9a-f]{8}", "server1/prism-vault/01234567+89abcdef", text)
    text = re.sub(r"(?<=the agent answers on ).*", ".dev/demo/agent.sock", text)
    return _aligned(text)


def _numbered(found: list[str], form: str) -> dict[str, str]:
    return {old: form.format(number) for number, old in enumerate(dict.fromkeys(found), start=1)}


def _aligned(text: str) -> str:
    """Return the text with the columns of its table as wide as what is in them now."""
    lines = text.splitlines()
    rows = {at: COLUMN.split(line.strip()) for at, line in enumerate(lines) if re.match(r" +(n  time|\d+  \d{4}-)", line)}
    if not rows:
        return text
    widths = [max(map(len, column)) for column in zip(*rows.values(), strict=True)]
    for at, row in rows.items():
        lines[at] = ("   " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
    return "\n".join(lines)
