"""Many agents forked from one warm process, one for each line of stdin, a configuration: what they import is in memory once.

They are the agent itself, in a process of its own each, with its own workers, socket, state and log; only the interpreter's
start is shared. Ended with the process that they came from.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from prism_vault_agent.agent import agent

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Start an agent for each configuration, and wait until every one has ended; SIGTERM goes to all of them."""
    agents: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        for pid in agents:
            os.kill(pid, number)

    signal.signal(signal.SIGTERM, pass_on)
    while config := sys.stdin.readline().strip():
        agents.append(_start(config))
    for pid in agents:
        os.waitpid(pid, 0)


def _start(config: str) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.close(0)
    os.open(os.devnull, os.O_RDONLY)
    log = os.open(Path(config).with_name("agent.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        os._exit(agent.run(config))
    except BaseException as error:  # told in the log, and the end of this agent alone
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(70)


if __name__ == "__main__":
    main()
