"""A host that central knows by its client certificate and nothing else: no token at the provider's, and none in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tests.central.test_mtls import client, configured, issued
from tests.support.agent import AgentProcess
from tests.support.central import CentralProcess
from tests.support.certificates import Tls
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.openbao import OpenBao

EXEC = ("--scope", "web", "--", "/bin/sh", "-c", "echo $URL")


class Place:
    """A central with ``[mtls]``, its own authority and one for clients, and an agent that has a certificate alone."""

    def __init__(self, directory: Path, openbao: OpenBao) -> None:
        self.tls = Tls(directory / "pki")
        self.clients = directory / "clients.pem"
        self.directory = directory
        self.openbao = openbao
        self.tls.ca.cert_pem.write_to_path(self.clients)
        (directory / "central").mkdir(mode=0o700)
        more = configured(self.tls, self.clients)
        self.central = CentralProcess(directory / "central", agents={"server1": ["other"]}, more=more)

    def agent(self, name: str, certificate: str, **options: Any) -> AgentProcess:
        """Return an agent, not started, with a certificate for a name; its files have the agent's name."""
        cert_file, key_file = self.tls.issue(name, certificate)
        lines = f'ca_file = "{self.tls.ca_file}"\ncert_file = "{cert_file}"\nkey_file = "{key_file}"\ntimeout = "2s"'
        directory = self.directory / name
        directory.mkdir(mode=0o700)
        made = AgentProcess(directory, self.openbao, self.central, role=name, token=False, central_lines=lines, **options)
        return made.scope("web", {"URL": "vault://secret/web#url"})

    def rows(self) -> list[tuple[str, str]]:
        """Return host and kind of each row, as the operator of a certificate reads them."""
        with client(self.central, issued(self.tls, "ops.prism.test")) as operator:
            return [(row["host_id"], row["kind"]) for row in operator.get("/v1/audit/events?limit=1000").json()["events"]]


@pytest.fixture(scope="module")
def made(place, openbao) -> Iterator[Place]:
    found = Place(place / "certified", openbao)
    with found.central:
        yield found


@pytest.fixture(scope="module")
def agent(made) -> Iterator[AgentProcess]:
    """Return the agent of server1, ready."""
    with made.agent("alone", "server1.prism.test") as running:
        yield running


def test_a_certificate_is_enough(made, agent):
    """With a certificate alone, an exec gives the value, its rows are the host's, and signals and proofs come too."""
    done = agent.exec(*EXEC)

    assert (done.returncode, done.stdout) == (0, "canary-5b1d77e0\n"), (done, agent.log[-2000:])
    wait_until(lambda: ("server1", "success") in made.rows())
    wait_until(lambda: agent.status()["signals"]["connected"])
    assert agent.status()["log"]["state"] == "proved"


def test_direct_does_with_it_too(made, agent):
    """``exec --direct`` shows the same certificate, and no token."""
    before = made.rows().count(("server1", "success"))
    done = agent.exec("--direct", "--config", str(agent.config), *EXEC, env={"PRISM_VAULT_SOCKET": "/nonexistent"})

    assert (done.returncode, done.stdout) == (0, "canary-5b1d77e0\n"), done
    assert made.rows().count(("server1", "success")) == before + 1


def test_a_certificate_of_nobody_gets_nothing(made):
    """A certificate that central has no entry for: 75, the line says so, and nothing runs."""
    running = made.agent("nobody", "elsewhere.prism.test", log_key=False).start(ready=False)
    try:
        done = running.exec(*EXEC)
    finally:
        running.stop()

    assert (done.returncode, done.stdout) == (75, "")
    assert "status 401 (unknown_certificate)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_renewed_certificate_is_used_without_a_restart(made, agent):
    """An authority that central believes no more refuses the host; a new certificate in the same files serves at once."""
    other = trustme.CA()
    other.cert_pem.write_to_path(made.clients)
    made.central.restart()
    try:
        done = agent.exec(*EXEC)
        assert (done.returncode, done.stdout) == (75, ""), done
        assert "does it believe our certificate?" in done.stderr
        assert done.stderr.count("\n") == 1
        renewed = other.issue_cert("server1.prism.test")
        (made.tls.directory / "alone.key").write_bytes(renewed.private_key_pem.bytes())
        assert agent.exec(*EXEC).returncode == 75  # a key that is not the certificate's changes nothing
        (made.tls.directory / "alone.pem").write_bytes(renewed.cert_chain_pems[0].bytes())
        wait_until(lambda: agent.exec(*EXEC).returncode == 0, 60)
    finally:
        made.tls.ca.cert_pem.write_to_path(made.clients)
        made.central.restart()
