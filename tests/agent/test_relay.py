"""An agent without a network: it reaches Vault and central by a socket for each, over TLS with the server itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.agent.asking import processes
from tests.agent.test_certificate_alone import EXEC, Place
from tests.support.agent import LAUNCHER
from tests.support.certificates import Tls
from tests.support.fake_server import FakeServer, always, answer
from tests.support.relay import relay
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agent import AgentProcess
    from tests.support.openbao import OpenBao

pytestmark = [pytest.mark.root, pytest.mark.namespaces, pytest.mark.tool("systemd-analyze")]

ALONE = (str(shutil.which("unshare")), "--net", "--")


class Relayed:
    """An agent in a network of its own with nothing in it, and the directory of its relays."""

    def __init__(self, place: Path, openbao: OpenBao) -> None:
        self.made = Place(place, openbao)
        self.directory = place / "relay"
        self.directory.mkdir(mode=0o700)
        self.openbao = openbao
        self.way = contextlib.ExitStack()
        self.agent: AgentProcess

    @contextlib.contextmanager
    def running(self) -> Iterator[Relayed]:
        """Run central, both relays and the agent."""
        with self.made.central, relay(self.directory, self.openbao.address), self.way:
            self.lead()
            options = {"agent": f'relay = "{self.directory}"', "before": ALONE, "vault": 'timeout = "2s"'}
            self.agent = self.made.agent("relayed", "server1.prism.test", **options)
            with self.agent:
                yield self

    def lead(self, to: str = "") -> Path:
        """Have the relay for central lead there, or to another server; what went through it before is cut."""
        self.way.close()
        return self.way.enter_context(relay(self.directory, self.made.central.url, to))


def doctor(agent: AgentProcess) -> subprocess.CompletedProcess[str]:
    """Run ``prism-vault doctor`` with this agent's configuration, from where there is a network."""
    words = [LAUNCHER, "doctor", "--config", str(agent.config)]
    return subprocess.run(words, env=agent.environment(), capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def relayed(place, openbao) -> Iterator[Relayed]:
    """The agent, ready."""
    with Relayed(place / "relayed", openbao).running() as found:
        yield found


def test_all_that_it_asks_goes_by_the_relays(relayed):
    """Without a network an exec gives the value, its rows are on the log, signals come, and the log is proved."""
    agent = relayed.agent
    done = agent.exec(*EXEC)

    assert (done.returncode, done.stdout) == (0, "canary-5b1d77e0\n"), (done, agent.log[-2000:])
    wait_until(lambda: ("server1", "success") in relayed.made.rows())
    wait_until(lambda: agent.status()["signals"]["connected"])
    wait_until(lambda: agent.status()["log"]["state"] == "proved")
    for pid in processes(agent).values():
        assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
        routes = Path(f"/proc/{pid}/net/route").read_text().splitlines()[1:]
        assert routes == []


def test_without_its_relay_a_server_is_away_and_that_is_told(relayed):
    """Where no socket leads to central nothing is released, and the line names the unit to start."""
    name = relayed.made.central.url.rpartition("/")[2]
    relayed.way.close()
    done = relayed.agent.exec(*EXEC)
    assert (done.returncode, done.stdout) == (75, "")
    told = f"no relay listens at {relayed.directory}/{name}: systemctl enable --now prism-vault-relay@{name}.socket"
    assert told in done.stderr
    relayed.agent.hang_up()
    wait_until(lambda: '"event":"relay.missing"' in relayed.agent.log.replace(" ", ""))
    assert [line for line in relayed.agent.log.splitlines() if "relay.missing" in line and told in line]
    found = doctor(relayed.agent)
    assert (found.returncode, f"(needed): {told}\n" in found.stdout) == (78, True), found
    relayed.lead()
    wait_until(lambda: relayed.agent.exec(*EXEC).returncode == 0)


def test_doctor_asks_as_the_agent_does(relayed):
    """What ``doctor`` says of the servers is what their relays lead to, over TLS with the servers."""
    lines = doctor(relayed.agent).stdout.splitlines()
    assert [line.split()[0] for line in lines if "the provider answers" in line or "central answers" in line] == ["holds"] * 2


def test_a_relay_that_leads_elsewhere_is_not_trusted(relayed, tmp_path):
    """A relay sees TLS and no more: a server that cannot show the name gets no request."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Tls(tmp_path / "other").issue("server", "127.0.0.1"))
    with FakeServer(always(answer(b"{}")), context=context) as other:
        relayed.lead(urlsplit(other.address).netloc)
        done = relayed.agent.exec(*EXEC)
        assert (done.returncode, done.stdout) == (75, "")
        assert "central cannot be reached (" in done.stderr
        wait_until(lambda: other.connections > 0)
        assert other.received == b""
    relayed.lead()
    wait_until(lambda: relayed.agent.exec(*EXEC).returncode == 0)
