"""Agents that are to start, or to refuse to, on a directory that a test has prepared."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.files import SYSTEMD

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.files import Filed


def unstarted(made: Filed, above: Path, lines: str) -> AgentProcess:
    """Return one more agent of the same user, not started, with a scope that has a file; ``lines`` are of ``[agent]``."""
    directory = above / "agent"
    directory.mkdir()
    user = made.stack.agent.user or None
    agent = AgentProcess(directory, made.stack.openbao, made.stack.central, role=above.name, user=user, agent=lines)
    return agent.scope("web", {"KEY": "vault://secret/web#canary"}, files=[SYSTEMD])


def refusal(agent: AgentProcess) -> str:
    """Return the one line, of exit status 73, with which an agent refuses to start."""
    command = [*agent.before, LAUNCHER, "agent", "--config", str(agent.config)]
    done = subprocess.run(command, env=agent.environment(), capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (73, ""), done
    line = done.stderr.splitlines()[-1]
    assert line.startswith("prism-vault: ") and "Traceback" not in done.stderr
    return line
