"""What the thin client costs: the modules it loads and the system calls it makes."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.exec.fake_agent import LAUNCHER, ROOT, FakeAgent, answer

OURS = {
    "prism_vault_agent",
    *(
        f"prism_vault_agent.exec{name}"
        for name in ("", ".arguments", ".client", ".connection", ".environment", ".launch", ".wire")
    ),
}
ISLAND = {"sys", "time", "errno", "posix", "resource", "_socket", "_signal", "grp", "select", "_ctypes"}
ISLAND |= {"binascii", "fcntl", "termios"}
MOST_MODULES = 40
MOST_CALLS = 430


def loaded_by(code: str, *words: str) -> set[str]:
    """Return the modules that an isolated interpreter has after ``code``."""
    done = subprocess.run(
        [sys.executable, "-ISE", "-c", f"import sys\n{code}\nprint(*sys.modules)", *words], capture_output=True, check=True
    )
    return set(done.stdout.decode().splitlines()[-1].split())


def test_modules():
    """The warm path loads its own eight modules and what the interpreter has in C, and no more than 40 in all."""
    bare = loaded_by("pass")
    warm = loaded_by(f"sys.path.append({str(ROOT)!r})\nfrom prism_vault_agent.exec import client")
    assert warm - bare == OURS | {"_socket", "resource"}
    assert len(warm) + 1 <= MOST_MODULES  # and one for what the launcher imports


def test_launcher_loads_no_more(tmp_path):
    """Started by the launcher the warm path loads the same modules."""
    code = (
        "import sys, posix\n"
        "posix.execve = lambda *_: (print(*sys.modules), sys.exit())\n"
        f"sys.argv = [{LAUNCHER[-1]!r}, *sys.argv[1:]]\n"
        f"exec(compile(open({LAUNCHER[-1]!r}).read(), {LAUNCHER[-1]!r}, 'exec'), {{'__file__': {LAUNCHER[-1]!r}}})\n"
    )
    with FakeAgent(tmp_path, answer({b"DB": b"1"})) as agent:
        command = [sys.executable, "-ISE", "-c", code, "exec", "--socket", agent.path, "--scope", "web", "--", "true"]
        done = subprocess.run(command, capture_output=True, check=True)
    assert set(done.stdout.decode().split()) == loaded_by("pass") | OURS | {"_socket", "resource"}


def test_modules_of_a_supervisor():
    """Who supervises loads ten modules more of ours and three of the interpreter's, all written in C but ours."""
    warm = loaded_by(f"sys.path.append({str(ROOT)!r})\nfrom prism_vault_agent.exec import client")
    supervising = loaded_by(f"sys.path.append({str(ROOT)!r})\nfrom prism_vault_agent.exec import client, supervise")
    ours = {
        f"prism_vault_agent.exec.{name}"
        for name in (
            "channel",
            "coming",
            "following",
            "kernel",
            "lifeline",
            "orders",
            "restarting",
            "starting",
            "stops",
            "supervise",
            "tree",
        )
    }
    assert supervising - warm == ours | {"_ctypes", "fcntl", "select"}


@pytest.mark.tool("strace")
def test_system_calls(tmp_path):
    """From the start of the interpreter to the execve of the command the client makes at most 430 system calls."""
    trace = tmp_path / "trace"
    with FakeAgent(tmp_path, answer({b"V%d" % number: b"x" * 40 for number in range(5)})) as agent:
        words = ["exec", "--socket", agent.path, "--scope", "web", "--", "/bin/true"]
        subprocess.run([*LAUNCHER, *words], check=True)  # its bytecode is there now
        subprocess.run(["strace", "-o", str(trace), *LAUNCHER, *words], check=True)
    calls = trace.read_text().splitlines()
    last = max(number for number, line in enumerate(calls) if line.startswith("execve("))
    assert "/bin/true" in calls[last]
    assert last + 1 <= MOST_CALLS


def test_island():
    """No file of the island imports anything but the island and the allowed modules of the interpreter."""
    for path in sorted((ROOT / "prism_vault_agent" / "exec").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {name.name for name in node.names} <= ISLAND, path
            elif isinstance(node, ast.ImportFrom):
                assert node.module in ("typing", "collections.abc") or str(node.module).startswith("prism_vault_agent.exec"), path
