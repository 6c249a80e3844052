"""The agent's token: renewed, replaced, given back; fetched by each kind of credential; never picked up from the surroundings."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.agent import POLICY, AgentProcess
from tests.support.central import CentralProcess
from tests.support.fault_proxy import Fault, Seen, always, times
from tests.support.stack import Stack, is_login, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

TRUE = ("--scope", "web", "--timeout", "20s", "--", "/bin/true")


@pytest.fixture(scope="module")
def stacked() -> Iterator[Stack]:
    with stack(reservation_ttl="30s") as made:
        yield made


@contextlib.contextmanager
def _agent(made: Stack, *, more: str = "", files: tuple[str, str] | None = None, **options: Any) -> Iterator[AgentProcess]:
    """Run an agent behind the proxy with an AppRole role of its own; options are those of the role and of ``AgentProcess``."""
    passed = {name: options.pop(name) for name in ("central", "central_lines", "before", "auth") if name in options}
    name = f"role-{secrets.token_hex(4)}"
    role_id, secret_id = files or tuple(map(str, made.openbao.approle(name, ["prism-vault"], **options)))
    passed.setdefault("auth", f'method = "approle"\nrole_id_file = "{role_id}"\nsecret_id_file = "{secret_id}"\n{more}')
    with made.second(vault_address=made.to_openbao.address, **passed) as agent:
        agent.secret_id = secret_id  # type: ignore[attr-defined]  # of this test
        yield agent


def _logged(agent: AgentProcess, event: str) -> list[dict[str, Any]]:
    """Return what the agent has logged under this name."""
    lines = [json.loads(line) for line in agent.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def _lives(made: Stack, accessor: str) -> bool:
    return made.openbao.request("POST", "auth/token/lookup-accessor", {"accessor": accessor})[0] == 200


def _asked(made: Stack, path: str, since: int) -> list[Seen]:
    return [seen for seen in made.to_openbao.seen[since:] if seen.path == f"/v1/{path}"]


def test_f15_a_token_is_renewed_at_two_thirds_of_its_life(stacked: Stack) -> None:
    """A token of 3 s lives on under one login: each renewal comes after three fifths of its life, and before its end."""
    since = len(stacked.to_openbao.seen)
    with _agent(stacked, token_ttl="3s") as agent:
        wait_until(lambda: len(_asked(stacked, "auth/token/renew-self", since)) >= 3, 30)
        assert agent.exec(*TRUE).returncode == 0
        (login,) = _asked(stacked, "auth/approle/login", since)
        at = [login.at, *(seen.at for seen in _asked(stacked, "auth/token/renew-self", since))]
        assert all(later - earlier >= 0.6 * 3 for earlier, later in itertools.pairwise(at))
        assert len(_logged(agent, "login.done")) == 1


def test_f15_a_token_that_nears_its_last_end_is_replaced_and_then_revoked(stacked: Stack) -> None:
    """Before max ttl the agent logs in anew, changes over without a gap, and gives the old token back."""
    with _agent(stacked, token_ttl="6s", token_max_ttl="12s") as agent:
        wait_until(lambda: _logged(agent, "login.done"))
        first = _logged(agent, "login.done")[0]["accessor"]

        def replaced() -> bool:
            done = agent.exec(*TRUE)
            assert done.returncode == 0, done
            return len(_logged(agent, "login.done")) >= 2

        wait_until(replaced, 60)
        wait_until(lambda: first in [each["accessor"] for each in _logged(agent, "token.revoked")])
        assert not _lives(stacked, first)
        assert agent.exec(*TRUE).returncode == 0
        assert not _logged(agent, "login.failed")


def test_a_token_that_cannot_be_renewed_is_replaced(stacked: Stack) -> None:
    """A batch of lives without renewal is a login for each; no exec falls into a gap between two of them."""
    with _agent(stacked, token_ttl="3s", token_max_ttl="3s") as agent:

        def replaced() -> bool:
            done = agent.exec(*TRUE)
            assert done.returncode == 0, done
            return len(_logged(agent, "login.done")) >= 3

        wait_until(replaced, 60)


def test_f8_a_token_of_few_uses_is_replaced_when_it_is_used_up(stacked: Stack) -> None:
    """A token that may be used three times costs more logins, and no exec."""
    with _agent(stacked, token_num_uses=3) as agent:
        for _ in range(5):
            done = agent.exec("--scope", "web", "--timeout", "30s", "--", "/bin/true")
            assert done.returncode == 0, (done, agent.log[-2000:])
        assert len(_logged(agent, "login.done")) > 1


def test_f1_logins_back_off_and_recover(stacked: Stack) -> None:
    """Against a provider that is away the pause between logins grows; who wants a token then waits a second, not the pause."""
    with stacked.to_openbao.failing(always(Fault("reset"))), contextlib.ExitStack() as ending:
        agent = ending.enter_context(_agent(stacked))
        wait_until(lambda: len(_logged(agent, "login.failed")) >= 4, 60)
        pauses = [each["retry_in"] for each in _logged(agent, "login.failed")]
        assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
        assert agent.status()["vault"]["state"] == "logged_out"
        stacked.to_openbao.decide = lambda _: None
        done = agent.exec(*TRUE)
        assert done.returncode == 0, (done, agent.log)
        assert agent.status()["vault"]["last_error"] == ""
        with stacked.to_openbao.failing(times(1, Fault("reset"), is_login)):
            _revoke(stacked, agent)
            assert agent.exec(*TRUE).returncode == 0
        assert _logged(agent, "login.failed")[-1]["retry_in"] == 1.0


def _revoke(made: Stack, agent: AgentProcess) -> None:
    accessor = _logged(agent, "login.done")[-1]["accessor"]
    made.openbao.must("POST", "auth/token/revoke-accessor", {"accessor": accessor})


def test_a_refused_login_is_told_and_mended_while_the_agent_serves(stacked: Stack) -> None:
    """With ``keep-trying`` a wrong secret-id leaves the agent serving typed errors; the right one makes it ready."""
    role_id, secret_id = map(str, stacked.openbao.approle("mended", ["prism-vault"]))
    right = stacked.openbao.credential("mended.secret-id", "wrong")
    with _agent(stacked, files=(role_id, secret_id)) as agent:
        wait_until(lambda: agent.status()["vault"]["last_error"])
        done = agent.exec("--scope", "web", "--timeout", "1s", "--", "/bin/echo", "ran")
        assert (done.returncode, done.stdout) == (75, "")
        assert _logged(agent, "render.failed")[-1]["reason"] in ("login_refused", "cancelled")
        assert agent.process is not None
        right.write_text(stacked.openbao.must("POST", "auth/approle/role/mended/secret-id", {})["data"]["secret_id"])
        wait_until(lambda: agent.status()["ready"], 60)
        assert agent.exec(*TRUE).returncode == 0


def test_on_failure_exit_ends_the_agent_with_the_refusal(stacked: Stack) -> None:
    """With ``exit`` a refused login ends the agent with 77 and the line that says why; nothing of the credential is told."""
    role_id, secret_id = map(str, stacked.openbao.approle("leaving", ["prism-vault"]))
    stacked.openbao.credential("leaving.secret-id", "wrong-CANARY")
    with _agent(stacked, files=(role_id, secret_id), more='on_failure = "exit"') as agent:
        assert agent.process is not None
        assert agent.process.wait(30) == 77
        last = agent.log.splitlines()[-1]
        assert last.startswith("prism-vault: ")
        assert "refuses our login at auth/approle" in last
        assert "CANARY" not in agent.log


def test_on_failure_exit_does_not_end_for_a_provider_that_is_away(stacked: Stack) -> None:
    """``exit`` is for refusals: a provider that cannot be reached is tried again all the same."""
    with (
        stacked.to_openbao.failing(times(2, Fault("answer", status=503), is_login)),
        _agent(stacked, more='on_failure = "exit"') as agent,
    ):
        wait_until(lambda: agent.status()["ready"], 30)
        assert len(_logged(agent, "login.failed")) == 2


def test_the_token_is_given_back_at_shutdown(stacked: Stack) -> None:
    """After a stop in good order OpenBao knows the agent's token no more."""
    with _agent(stacked) as agent:
        wait_until(lambda: agent.status()["ready"])
        accessor = _logged(agent, "login.done")[0]["accessor"]
        assert _lives(stacked, accessor)
        assert agent.stop() == 0
        assert not _lives(stacked, accessor)


def test_a_shutdown_does_not_wait_for_a_provider_that_is_away(stacked: Stack) -> None:
    """A token that cannot be given back is told in the log and left to its ttl; the agent ends all the same."""
    with stacked.to_openbao.failing(lambda _: None), _agent(stacked) as agent:
        wait_until(lambda: agent.status()["ready"])
        stacked.to_openbao.decide = always(Fault("hang"))
        assert agent.stop() == 0
        assert _logged(agent, "token.revoke_failed")


def test_a_token_of_a_file_is_used_and_not_revoked(stacked: Stack) -> None:
    """A token that something else keeps is used, renewed by nobody's wish but ours, and never given back."""
    stacked.openbao.policy("prism-vault", POLICY)
    made = stacked.openbao.must("POST", "auth/token/create", {"policies": ["prism-vault"], "ttl": "1h"})["auth"]
    file = stacked.openbao.credential("kept.token", made["client_token"])
    with _agent(stacked, auth=f'method = "token_file"\ntoken_file = "{file}"') as agent:
        assert agent.exec(*TRUE).returncode == 0
        assert agent.stop() == 0
    assert _lives(stacked, made["accessor"])


def _wrapped(made: Stack, role: str) -> tuple[str, str]:
    """Make a role and deliver its secret-id wrapped; return the files."""
    role_id, secret_id = made.openbao.approle(role, ["prism-vault"])
    answer = made.openbao.must("POST", f"auth/approle/role/{role}/secret-id", {}, headers={"X-Vault-Wrap-TTL": "5m"})
    secret_id.write_text(answer["wrap_info"]["token"])
    return str(role_id), str(secret_id)


def _wrapped_by(role: str) -> str:
    return f'secret_id_wrapped_by = "auth/approle/role/{role}/secret-id"'


def test_a_wrapped_secret_id_logs_in(stacked: Stack) -> None:
    """A secret-id that was wrapped where it should be is unwrapped once and used."""
    with _agent(stacked, files=_wrapped(stacked, "wrapped"), more=_wrapped_by("wrapped")) as agent:
        assert agent.exec(*TRUE).returncode == 0


@pytest.mark.parametrize("wrong", ["interception", "wrong_wrapping"])
def test_f17_a_wrapped_secret_id_that_someone_else_had_is_an_alarm(stacked: Stack, wrong: str) -> None:
    """One that was unwrapped already, or wrapped elsewhere, is not used; status, log and the row of every exec say why."""
    role = f"alarm-{wrong}".replace("_", "-")
    files = _wrapped(stacked, role)
    before = len(stacked.rows())
    if wrong == "interception":
        with open(files[1]) as file:
            stacked.openbao.must("POST", "sys/wrapping/unwrap", token=file.read())
    with _agent(stacked, files=files, more=_wrapped_by(role if wrong == "interception" else "another")) as agent:
        wait_until(lambda: agent.status()["vault"]["last_error"])
        assert _logged(agent, "login.failed")[0]["reason"] == wrong
        done = agent.exec("--scope", "web", "--timeout", "2s", "--", "/bin/echo", "ran")
        assert (done.returncode, done.stdout) == (75, "")
        agent.stop()
    rows = stacked.rows(before)
    assert [row["kind"] for row in rows] == ["reserved", "failure"]


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
        with _agent(made, files=files, central=central, central_lines='identity_role = "hosts"\ntimeout = "2s"') as agent:
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
            return len(_asked(stacked, "identity/oidc/token/hosts", since)) >= 3

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


def test_a_token_of_the_surroundings_is_never_used(stacked: Stack) -> None:
    """Neither VAULT_TOKEN nor BAO_TOKEN nor ~/.vault-token is sent or helps an agent whose own login is refused."""
    bait = stacked.openbao.token(["root"])
    role_id, secret_id = map(str, stacked.openbao.approle("baited", ["prism-vault"]))
    stacked.openbao.credential("baited.secret-id", "wrong")
    before = ("/usr/bin/env", f"VAULT_TOKEN={bait}", f"BAO_TOKEN={bait}", f"HOME={stacked.directory}")
    for name in (".vault-token", ".bao-token"):
        (stacked.directory / name).write_text(bait)
    since = len(stacked.to_openbao.seen)
    with _agent(stacked, files=(role_id, secret_id), before=before) as agent:
        wait_until(lambda: len(_logged(agent, "login.failed")) >= 2, 30)
        assert agent.status()["vault"]["state"] == "logged_out"
    for seen in stacked.to_openbao.seen[since:]:
        assert bait not in str(seen.headers)
        assert bait.encode() not in seen.body
