"""Nodes of one real OpenBao with raft: who leads can step down or be killed, and another one takes over."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import TYPE_CHECKING

from tests.support.openbao import OpenBao
from tests.support.processes import free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.certificates import Tls


class Node(OpenBao):
    """One node. All nodes of a cluster have the unseal key and the root token of the first."""

    def __init__(self, directory: Path, tls: Tls, first: Node | None = None) -> None:
        """Start it; it joins the cluster of ``first``, where there is one."""
        self._first = first
        super().__init__(directory, tls=tls)

    @property
    def leads(self) -> bool:
        """Whether this node is the one that the others forward to."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return bool(self.request("GET", "sys/leader", token="")[1].get("is_self"))
        return False

    def step_down(self) -> None:
        """Have it give up leading."""
        self.must("PUT", "sys/step-down")

    def _arguments(self) -> list[str]:
        words = super()._arguments()
        path = self.directory / "openbao.json"
        config = json.loads(path.read_text())
        cluster = f"127.0.0.1:{free_port()}"
        config["listener"]["tcp"]["cluster_address"] = cluster
        config["cluster_addr"] = f"https://{cluster}"
        raft = config["storage"]["raft"]
        raft["node_id"] = self.directory.name
        if self._first is not None:
            assert self.tls is not None
            raft["retry_join"] = [{"leader_api_addr": self._first.address, "leader_ca_cert_file": str(self.tls.ca_file)}]
        path.write_text(json.dumps(config))
        return words

    def _initialise_and_unseal(self) -> None:
        if self._first is None:
            super()._initialise_and_unseal()
            return
        self.unseal_key, self.root_token = self._first.unseal_key, self._first.root_token
        self._wait(lambda: self.request("GET", "sys/seal-status", token="")[1].get("initialized") is True)
        self._wait(self._unsealed)

    def _unsealed(self) -> bool:
        """Give the key until the leader has let this node in."""
        self.request("PUT", "sys/unseal", {"key": self.unseal_key}, token="")
        return self.request("GET", "sys/health?standbyok=true", token="")[0] == 200


@contextlib.contextmanager
def cluster(directory: Path, tls: Tls) -> Iterator[list[Node]]:
    """Run three nodes, the first of which leads."""
    with contextlib.ExitStack() as ending:
        nodes: list[Node] = []
        for number in range(3):
            nodes.append(ending.enter_context(Node(directory / f"node-{number}", tls, nodes[0] if nodes else None)))
            if number == 0:
                stable = {"server_stabilization_time": "1s"}  # until a node that has joined may vote
                nodes[0].must("POST", "sys/storage/raft/autopilot/configuration", stable)
        wait_until(lambda: len(voters(nodes[0])) == len(nodes), 60)
        yield nodes


def voters(node: Node) -> list[str]:
    """Return the nodes whose votes count."""
    servers = node.must("GET", "sys/storage/raft/configuration")["data"]["config"]["servers"]
    return [each["node_id"] for each in servers if each["voter"]]


def leader(nodes: Sequence[Node]) -> Node:
    """Return who leads, once somebody does."""
    (found,) = wait_until(lambda: [each for each in nodes if each.leads], 60)
    return found
