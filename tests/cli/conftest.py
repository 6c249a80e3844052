"""The command line in this process and as a process of its own; and the agent's real surroundings."""

from __future__ import annotations

import os
import subprocess
from typing import Protocol

import pytest

from tests.agent.conftest import agent, central, make_agent, openbao, place  # noqa: F401 - fixtures
from tests.support.agent import LAUNCHER


class Run(Protocol):
    """Runs ``prism-vault WORDS`` as a process of its own."""

    def __call__(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command with these variables in its environment."""


@pytest.fixture
def run(tmp_path) -> Run:
    """The command that users call, in a small environment with a home of its own."""

    def start(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        given = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), **environment}
        return subprocess.run([LAUNCHER, *words], env=given, capture_output=True, text=True, timeout=60, check=False)

    return start
