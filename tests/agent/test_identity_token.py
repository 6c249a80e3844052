"""The agent's credential at central: a token that OpenBao signs, minted anew in time and when central refuses it."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

import pytest

from tests.support.agent import AgentProcess
from tests.support.central import CentralProcess
from tests.support.own_agent import asked, own_agent
from tests.support.stack import Stack, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

TRUE = ("--scope", "web", "--timeout", "20s", "--", "/bin/true")


@pytest.fixture(scope="module")
def stacked() -> Iterator[Stack]:
    with stack(reservation_ttl="30s") as made:
        yield made


@contextlib.contextmanager
def _identity(made: Stack, *, ttl: str = "1h", subject: str = "") -> Iterator[AgentProcess]:
    """Run an agent whose credential at a central of its own is an identity token of its login."""
    made.openbao.identity_role("hosts", ttl=ttl)
    role_id, secret_id = made.openbao.approle("identity", ["prism-vault"])
    body = {"role_id": role_id.read_text(), "secret_id": secret_id.read_text()}
    entity = made.openbao.must("POST", "auth/approle/login", body)["auth"]["entity_id"]
    directory = made.directory / f"central-{secrets.token_hex(3)}"
    directory.mkdir(mode=0o700)
    with CentralProcess(
        directory,
        issuer={"url": f"{made.openbao.address}/v1/identity/oidc", "audience": "prism-vault-central"},
        subjects=[{"subject": subject or entity, "host": "server2", "projects": ["prism"]}],
    ) as central:
        files = (str(role_id), str(secret_id))
        with own_agent(made, files=files, central=central, central_lines='identity_role = "hosts"\ntimeout = "2s"') as agent:
            agent.config.write_text(agent.config.read_text().replace('host = "server1"', 'host = "server2"'))
            agent.stop()
            yield agent.start(ready=not subject)


def test_an_identity_token_is_the_agents_credential_and_is_minted_anew(stacked: Stack) -> None:
    """Central knows the host by a token that OpenBao signed; it is replaced at two thirds of its life, before it ends."""
    since = len(stacked.to_openbao.seen)
    with _identity(stacked, ttl="6s") as agent:

        def minted_twice_more() -> bool:
            done = agent.exec(*TRUE)
            assert done.returncode == 0, done
            return len(asked(stacked, "identity/oidc/token/hosts", since)) >= 3

        wait_until(minted_twice_more, 60)
        assert {event["host_id"] for event in agent.central.events()} == {"server2"}


def test_f28_an_identity_token_that_central_refuses_is_minted_anew(stacked: Stack) -> None:
    """A 401 makes the agent ask for another identity token at once, and the exec that met it succeeds."""
    with _identity(stacked) as agent:
        assert agent.exec(*TRUE).returncode == 0
        # OpenBao's keys are new: what was signed by the old ones is not believed any more.
        stacked.openbao.must("POST", "identity/oidc/key/hosts/rotate", {"verification_ttl": "0s"})
        agent.central.restart()
        done = agent.exec(*TRUE)
        assert done.returncode == 0, (done, agent.log[-2000:])


def test_f28_a_host_that_central_does_not_know_gets_nothing(stacked: Stack) -> None:
    """An identity token of another entity than the one that is registered is refused: exit 75, nothing runs, no row."""
    with _identity(stacked, subject="someone-else") as agent:
        done = agent.exec("--scope", "web", "--", "/bin/echo", "ran")
        assert (done.returncode, done.stdout) == (75, "")
        assert "status 401" in done.stderr
        assert agent.central.events() == []
