"""A real OpenBao of three nodes with raft changes its leader: nothing is ended for that, and what is asked for is given."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.agent.asking import command_line
from tests.support import history
from tests.support.agent import AgentProcess
from tests.support.central import CentralProcess
from tests.support.certificates import Tls
from tests.support.fault_proxy import FaultProxy
from tests.support.files import SYSTEMD
from tests.support.openbao_cluster import Node, cluster, leader
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


class Made(NamedTuple):
    """Three nodes, the address by which the agent reaches one of them, and the agent that renders below ``files``."""

    nodes: list[Node]
    address: FaultProxy
    agent: AgentProcess
    files: Path


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    """A cluster, a central, and an agent that reaches the leader by an address that can be moved."""
    directory = Path(tempfile.mkdtemp(prefix="pv-", dir="/dev/shm"))
    directory.chmod(0o755)
    for name in ("central", "agent"):
        (directory / name).mkdir(mode=0o700)
    files = directory / "files"
    with (
        cluster(directory, Tls(directory / "pki")) as nodes,
        CentralProcess(directory / "central") as central,
        FaultProxy(nodes[0].port, ca_file=directory / "pki" / "ca.pem") as address,
    ):
        nodes[0].kv_put("secret/web", {"key": "value-1"})
        agent = AgentProcess(
            directory / "agent", nodes[0], central, vault_address=address.address,
            agent=f'files = "{files}"\nfiles_risks = ["swap"]', vault='poll = "1s"',
        ).scope("web", {"KEY": "vault://secret/web#key"}, files=[SYSTEMD])  # fmt: skip
        with agent:
            assert agent.http("POST", "/v1/render", b'{"scopes": ["web"]}')[0] == 200
            yield Made(nodes, address, agent, files)
        history.check(central.events())
    if files.is_mount():
        subprocess.run(["umount", str(files)], check=True)
    shutil.rmtree(directory)


@pytest.mark.parametrize("end", ["step_down", "kill"])
def test_a_change_of_the_leader_ends_nothing_and_keeps_nothing_from_anybody(made, end):
    """While a leader steps down, or dies and its address moves on, an exec may fail; then all is given, and nothing was ended."""
    asked: list[int] = []
    ending = threading.Event()

    def ask() -> None:
        while not ending.is_set():
            asked.append(made.agent.exec("--scope", "web", "--timeout", "60s", "--", "true").returncode)

    child = made.agent.spawn("--scope", "web", "--", "sleep", "1000")
    asking = threading.Thread(target=ask)
    try:
        wait_until(lambda: "prism-vault" not in command_line(child.pid))
        asking.start()
        wait_until(lambda: asked, 60)
        old = leader(made.nodes)
        getattr(old, end)()
        new = leader([each for each in made.nodes if each is not old])
        made.address.port = new.port
        wait_until(lambda: asked[-3:] == [0, 0, 0] and len(asked) > 3, 60)
        assert new.kv_put("secret/web", {"key": f"after-{end}"}) > 1
        wait_until(lambda: f"after-{end}" in (made.files / "web" / "web.env").read_text(), 60)
        assert child.poll() is None
    finally:
        ending.set()
        asking.join()
        child.kill()
        child.communicate()
    assert set(asked) <= {0, 75}, [line for line in made.agent.log.splitlines() if "fail" in line][-5:]
