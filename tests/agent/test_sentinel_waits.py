"""A sentinel acts when its agent has ended as a whole, not when the first of the agent's descriptors is closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from prism_vault_agent.sink.place import LOCK, STAGED
from tests.agent.asking import descriptors
from tests.support.waiting import wait_until

# What an agent is to its sentinel; it ends slowly, as a large process does on a machine under load.
ENDS_SLOWLY = (
    "import fcntl, os, sys\n"
    "from prism_vault_agent.agent.sentinel.sentinel import Sentinel\n"
    "from types import SimpleNamespace\n"
    "state, files = sys.argv[1:]\n"
    f"lock = os.open(f'{{files}}/{LOCK}', os.O_RDWR | os.O_CREAT, 0o600)\n"
    "fcntl.flock(lock, fcntl.LOCK_EX)\n"
    "settings = SimpleNamespace(state=state, files=files, helper='', log_format='json', log_level='info', on_end='clear')\n"
    "sentinel = Sentinel(settings, [])\n"
    "sentinel.start('')\n"
    "print(sentinel.pid, flush=True)\n"
    "sys.stdin.readline()\n"
    "sentinel._process.stdin.close()\n"
    "sys.stdin.readline()\n"
    "os._exit(9)\n"
)


def waits_or_has_ended(pid: int) -> bool:
    """Tell whether a sentinel holds on to its agent, or is a zombie."""
    if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
        return True
    return "anon_inode:[pidfd]" in descriptors(pid)


def test_an_agent_that_ends_slowly(tmp_path):
    """Of an agent that still holds the lock on its files when its sentinel hears of its end the files go all the same."""
    state, files = tmp_path / "state", tmp_path / "files"
    state.mkdir(mode=0o700)
    files.mkdir(mode=0o711)
    (files / STAGED).mkdir(mode=0o700)
    left = files / "web"
    left.mkdir(mode=0o700)
    (left / "web.env").write_text("DB=canary\n")
    words = [sys.executable, "-I", "-c", ENDS_SLOWLY, str(state), str(files)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as agent:
        assert agent.stdin is not None and agent.stdout is not None
        sentinel = int(agent.stdout.readline())
        agent.stdin.write("close\n")
        agent.stdin.flush()
        wait_until(lambda: waits_or_has_ended(sentinel))
        assert left.exists()
        assert agent.communicate("end\n", 30)[1].find("files.not_cleared") == -1
    wait_until(lambda: not left.exists())
