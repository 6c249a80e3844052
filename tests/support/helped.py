"""An agent of the user nobody and its helper, configured by root as under their units; and what root can ask of both."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.as_user import NOBODY, prefix
from tests.support.helper import HelperProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.central import CentralProcess
    from tests.support.openbao import OpenBao

BINDING = {"URL": "vault://secret/helped#url"}
VALUE = "canary-6f2e"
ROOTS = [{"kind": "operator", "uid": 0}]
OWNED = {"path": "web.env", "format": "systemd", "owner": "www-data"}
MORE = {"path": "more", "format": "dir", "owner": "daemon", "mode": "0600"}


class Helped:
    """The agent of nobody, its helper, and what root can ask of both."""

    def __init__(self, agent: AgentProcess, helper: HelperProcess, openbao: OpenBao) -> None:
        self.agent = agent
        self.helper = helper
        self.openbao = openbao
        self.files = helper.files

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``prism-vault WORDS`` as root."""
        return subprocess.run(
            [LAUNCHER, *words], env=self.agent.environment(), capture_output=True, text=True, check=False, timeout=100
        )

    def render(self, *words: str) -> None:
        """Render scopes."""
        done = self.command("render", *words)
        assert done.returncode == 0, (done.stderr, self.helper.log.read_text()[-2000:])

    def refused(self, *words: str) -> str:
        """Return the line of a render that fails."""
        done = self.command("render", *words)
        assert done.returncode == 73 and done.stderr.count("\n") == 1 and VALUE not in done.stderr, done
        return done.stderr

    def residue(self) -> list[str]:
        """Return what is staged."""
        return os.listdir(self.files / ".staged")


@contextlib.contextmanager
def helped_agent(openbao: OpenBao, central: CentralProcess) -> Iterator[Helped]:
    """Start both, and take away all of it."""
    directory = Path(tempfile.mkdtemp(prefix="pv-", dir="/dev/shm"))
    directory.chmod(0o755)
    openbao.kv_put("secret/helped", {"url": VALUE})
    helper = HelperProcess(directory)
    agent = AgentProcess(
        directory,
        openbao,
        central,
        agent=f'socket_mode = "0666"\nfiles = "{helper.files}"\nhelper = "{helper.socket}"',
        vault='poll = "1s"',
        role=directory.name,
        before=prefix(NOBODY),
    )
    agent.scope("owned", BINDING, callers=ROOTS, files=[OWNED])
    agent.scope("several", BINDING, callers=ROOTS, files=[OWNED, MORE])
    agent.scope("roots", BINDING, callers=ROOTS, grace="1s")
    for path in (directory / "state", directory / "run"):
        path.mkdir()
        os.chown(path, NOBODY, NOBODY)
    credentials = [directory / "central.token", *openbao.directory.glob(f"{directory.name}.*")]
    for path in credentials:
        os.chown(path, NOBODY, NOBODY)
    for path in (agent.config, *(directory / "scopes.d").iterdir(), directory / "scopes.d"):
        path.chmod(0o755)
    try:
        with helper:
            yield Helped(agent.start(), helper, openbao)
            agent.stop()
    finally:
        agent.kill()
        shutil.rmtree(directory)
