"""What the thin client of the verbs costs: the modules it loads and the system calls it makes."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.steer import VERBS
from tests.exec.fake_agent import LAUNCHER, ROOT, FakeAgent, answer
from tests.exec.test_budget import loaded_by

if TYPE_CHECKING:
    from pathlib import Path

ISLAND = {"_json", "posix", "sys", "time"}
OURS = {
    *("prism_vault_agent", "prism_vault_agent.exec", "prism_vault_agent.exec.connection", "prism_vault_agent.exec.wire"),
    "prism_vault_agent.steer",
    *(f"prism_vault_agent.steer.{name}" for name in ("arguments", "asking", "client", "plain_json", "shown", "verbs")),
}
MOST_CALLS = 440


@pytest.mark.parametrize("verb", VERBS)
def test_modules(tmp_path: Path, verb: str):
    """From the launcher to its end a verb loads its own ten modules and two of the interpreter's in C, and nothing else."""
    code = (
        "import sys\n"
        f"sys.argv = [{LAUNCHER[-1]!r}, *sys.argv[1:]]\n"
        "try:\n"
        f"    exec(compile(open({LAUNCHER[-1]!r}).read(), {LAUNCHER[-1]!r}, 'exec'), {{'__file__': {LAUNCHER[-1]!r}}})\n"
        "finally:\n"
        "    print(*sys.modules)\n"
    )
    with FakeAgent(tmp_path, answer(b"{}\n", kind="application/json")) as agent:
        command = [sys.executable, "-ISE", "-c", code, verb, "web", "--socket", agent.path]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()[-1].split()) - loaded_by("pass") == OURS | {"_json", "_socket"}


@pytest.mark.tool("strace")
def test_system_calls(tmp_path: Path):
    """A render makes at most 440 system calls, from the start of the interpreter to its end."""
    told = {"rendered": [{"scope": "web", "generation": "g", "id": "pva_1", "directory": "/run", "files": ["web.env"]}]}
    trace = tmp_path / "trace"
    with FakeAgent(tmp_path, answer(json.dumps(told).encode(), kind="application/json")) as agent:
        words = ["render", "--socket", agent.path, "web"]
        done = subprocess.run([*LAUNCHER, *words], check=True, capture_output=True, text=True)  # its bytecode is there now
        subprocess.run(["strace", "-o", str(trace), *LAUNCHER, *words], check=True, capture_output=True)
    assert done.stdout == "web: generation g (pva_1)\n  /run/web.env\n"
    assert len(trace.read_text().splitlines()) <= MOST_CALLS


def test_what_it_may_import():
    """At their start its files import each other, what they share with ``exec``, and the allowed modules of the interpreter."""
    for path in sorted((ROOT / "prism_vault_agent/steer").glob("*.py")):
        if path.stem == "faults":
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                assert {name.name for name in node.names} <= ISLAND, path
            elif isinstance(node, ast.ImportFrom):
                assert str(node.module).startswith(("prism_vault_agent.exec", "prism_vault_agent.steer")), path
