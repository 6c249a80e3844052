"""The agent's token: renewed, replaced, given back; fetched by each kind of credential; never picked up from the surroundings."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.agent.session import Session
from prism_vault_agent.config.settings import AuthSettings
from tests.support.agent import POLICY, AgentProcess
from tests.support.fault_proxy import Fault, always, times
from tests.support.own_agent import asked, logged, own_agent
from tests.support.stack import Stack, is_login, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

TRUE = ("--scope", "web", "--timeout", "20s", "--", "/bin/true")


@pytest.fixture(scope="module")
def stacked() -> Iterator[Stack]:
    with stack(reservation_ttl="30s") as made:
        yield made


def _lives(made: Stack, accessor: str) -> bool:
    return made.openbao.request("POST", "auth/token/lookup-accessor", {"accessor": accessor})[0] == 200


def test_f15_a_token_is_renewed_at_two_thirds_of_its_life(stacked: Stack) -> None:
    """A token of 6 s lives on under one login: each renewal comes after three fifths of its life, and before its end."""
    since = len(stacked.to_openbao.seen)
    with own_agent(stacked, token_ttl="6s") as agent:
        wait_until(lambda: len(asked(stacked, "auth/token/renew-self", since)) >= 2, 30)
        assert agent.exec(*TRUE).returncode == 0
        (login,) = asked(stacked, "auth/approle/login", since)
        at = [login.at, *(seen.at for seen in asked(stacked, "auth/token/renew-self", since))]
        assert all(later - earlier >= 0.6 * 6 for earlier, later in itertools.pairwise(at))
        assert len(logged(agent, "login.done")) == 1


def test_f15_a_token_that_nears_its_last_end_is_replaced_and_then_revoked(stacked: Stack) -> None:
    """Before max ttl the agent logs in anew, changes over without a gap, and gives the old token back."""
    with own_agent(stacked, token_ttl="6s", token_max_ttl="12s") as agent:
        wait_until(lambda: logged(agent, "login.done"))
        first = logged(agent, "login.done")[0]["accessor"]

        def replaced() -> bool:
            done = agent.exec(*TRUE)
            assert done.returncode == 0, done
            return len(logged(agent, "login.done")) >= 2

        wait_until(replaced, 60)
        wait_until(lambda: first in [each["accessor"] for each in logged(agent, "token.revoked")])
        assert not _lives(stacked, first)
        assert agent.exec(*TRUE).returncode == 0
        assert not logged(agent, "login.failed")


def test_a_token_that_cannot_be_renewed_is_replaced(stacked: Stack) -> None:
    """A batch of lives without renewal is a login for each; no exec falls into a gap between two of them."""
    with own_agent(stacked, token_ttl="3s", token_max_ttl="3s") as agent:

        def replaced() -> bool:
            done = agent.exec(*TRUE)
            assert done.returncode == 0, done
            return len(logged(agent, "login.done")) >= 3

        wait_until(replaced, 60)


def test_f8_a_token_of_few_uses_is_replaced_when_it_is_used_up(stacked: Stack) -> None:
    """A token that may be used three times costs more logins, and no exec."""
    with own_agent(stacked, token_num_uses=3) as agent:
        for _ in range(5):
            done = agent.exec("--scope", "web", "--timeout", "30s", "--", "/bin/true")
            assert done.returncode == 0, (done, agent.log[-2000:])
        assert len(logged(agent, "login.done")) > 1


def test_f1_logins_back_off_and_recover(stacked: Stack) -> None:
    """Against a provider that is away the pause between logins grows; who wants a token then waits a second, not the pause."""
    with stacked.to_openbao.failing(always(Fault("reset"))), contextlib.ExitStack() as ending:
        agent = ending.enter_context(own_agent(stacked))
        wait_until(lambda: len(logged(agent, "login.failed")) >= 4, 60)
        pauses = [each["retry_in"] for each in logged(agent, "login.failed")]
        assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
        assert agent.status()["vault"]["state"] == "logged_out"
        stacked.to_openbao.decide = lambda _: None
        done = agent.exec(*TRUE)
        assert done.returncode == 0, (done, agent.log)
        assert agent.status()["vault"]["last_error"] == ""
        with stacked.to_openbao.failing(times(1, Fault("reset"), is_login)):
            _revoke(stacked, agent)
            assert agent.exec(*TRUE).returncode == 0
        assert logged(agent, "login.failed")[-1]["retry_in"] == 1.0


def _revoke(made: Stack, agent: AgentProcess) -> None:
    accessor = logged(agent, "login.done")[-1]["accessor"]
    made.openbao.must("POST", "auth/token/revoke-accessor", {"accessor": accessor})


def test_a_refused_login_is_told_and_mended_while_the_agent_serves(stacked: Stack) -> None:
    """With ``keep-trying`` a wrong secret-id leaves the agent serving typed errors; the right one makes it ready."""
    role_id, secret_id = map(str, stacked.openbao.approle("mended", ["prism-vault"]))
    right = stacked.openbao.credential("mended.secret-id", "wrong")
    with own_agent(stacked, files=(role_id, secret_id)) as agent:
        wait_until(lambda: agent.status()["vault"]["last_error"])
        done = agent.exec("--scope", "web", "--timeout", "1s", "--", "/bin/echo", "ran")
        assert (done.returncode, done.stdout) == (75, "")
        assert logged(agent, "render.failed")[-1]["reason"] in ("login_refused", "cancelled")
        right.write_text(stacked.openbao.must("POST", "auth/approle/role/mended/secret-id", {})["data"]["secret_id"])
        wait_until(lambda: agent.status()["ready"], 60)
        assert agent.exec(*TRUE).returncode == 0


def test_on_failure_exit_ends_the_agent_with_the_refusal(stacked: Stack) -> None:
    """With ``exit`` a refused login ends the agent with 77 and the line that says why; nothing of the credential is told."""
    role_id, secret_id = map(str, stacked.openbao.approle("leaving", ["prism-vault"]))
    stacked.openbao.credential("leaving.secret-id", "wrong-CANARY")
    with own_agent(stacked, files=(role_id, secret_id), more='on_failure = "exit"') as agent:
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
        own_agent(stacked, more='on_failure = "exit"') as agent,
    ):
        wait_until(lambda: agent.status()["ready"], 30)
        assert len(logged(agent, "login.failed")) == 2


def test_the_token_is_given_back_at_shutdown(stacked: Stack) -> None:
    """After a stop in good order OpenBao knows the agent's token no more."""
    with own_agent(stacked) as agent:
        wait_until(lambda: agent.status()["ready"])
        accessor = logged(agent, "login.done")[0]["accessor"]
        assert _lives(stacked, accessor)
        assert agent.stop() == 0
        assert not _lives(stacked, accessor)


def test_a_shutdown_does_not_wait_for_a_provider_that_is_away(stacked: Stack) -> None:
    """A token that cannot be given back is told in the log and left to its ttl; the agent ends all the same."""
    with stacked.to_openbao.failing(lambda _: None), own_agent(stacked) as agent:
        wait_until(lambda: agent.status()["ready"])
        stacked.to_openbao.decide = always(Fault("hang"))
        assert agent.stop() == 0
        assert logged(agent, "token.revoke_failed")


def test_a_token_of_a_file_is_used_and_not_revoked(stacked: Stack) -> None:
    """A token that something else keeps is used, renewed by nobody's wish but ours, and never given back."""
    stacked.openbao.policy("prism-vault", POLICY)
    made = stacked.openbao.must("POST", "auth/token/create", {"policies": ["prism-vault"], "ttl": "1h"})["auth"]
    file = stacked.openbao.credential("kept.token", made["client_token"])
    with own_agent(stacked, auth=f'method = "token_file"\ntoken_file = "{file}"') as agent:
        assert agent.exec(*TRUE).returncode == 0
        assert agent.stop() == 0
    assert _lives(stacked, made["accessor"])


def _wrapped(made: Stack, role: str) -> tuple[str, str]:
    """Make a role and deliver its secret-id wrapped; return the files."""
    role_id, secret_id = made.openbao.approle(role, ["prism-vault"])
    answer = made.openbao.must("POST", f"auth/approle/role/{role}/secret-id", {}, headers={"X-Vault-Wrap-TTL": "5m"})
    secret_id.write_text(answer["wrap_info"]["token"])
    return str(role_id), str(secret_id)


WRAPPED_BY = 'secret_id_wrapped_by = "auth/approle/role/{}/secret-id"'


def test_a_wrapped_secret_id_logs_in(stacked: Stack) -> None:
    """A secret-id that was wrapped where it should be is unwrapped once and used."""
    with own_agent(stacked, files=_wrapped(stacked, "wrapped"), more=WRAPPED_BY.format("wrapped")) as agent:
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
    with own_agent(stacked, files=files, more=WRAPPED_BY.format(role if wrong == "interception" else "another")) as agent:
        wait_until(lambda: agent.status()["vault"]["last_error"])
        assert logged(agent, "login.failed")[0]["reason"] == wrong
        done = agent.exec("--scope", "web", "--timeout", "2s", "--", "/bin/echo", "ran")
        assert (done.returncode, done.stdout) == (75, "")
        agent.stop()
    rows = stacked.rows(before)
    assert [row["kind"] for row in rows] == ["reserved", "failure"]


def test_a_token_of_the_surroundings_is_never_used(stacked: Stack) -> None:
    """Neither VAULT_TOKEN nor BAO_TOKEN nor ~/.vault-token is sent or helps an agent whose own login is refused."""
    bait = stacked.openbao.token(["root"])
    role_id, secret_id = map(str, stacked.openbao.approle("baited", ["prism-vault"]))
    stacked.openbao.credential("baited.secret-id", "wrong")
    before = ("/usr/bin/env", f"VAULT_TOKEN={bait}", f"BAO_TOKEN={bait}", f"HOME={stacked.directory}")
    for name in (".vault-token", ".bao-token"):
        (stacked.directory / name).write_text(bait)
    since = len(stacked.to_openbao.seen)
    with own_agent(stacked, files=(role_id, secret_id), before=before) as agent:
        wait_until(lambda: len(logged(agent, "login.failed")) >= 2, 30)
        assert agent.status()["vault"]["state"] == "logged_out"
    for seen in stacked.to_openbao.seen[since:]:
        assert bait not in str(seen.headers)
        assert bait.encode() not in seen.body


def test_whoever_waits_for_a_login_is_woken_by_it() -> None:
    """However often the token is lost while somebody waits for one, the next login wakes everybody who waits."""

    class Answering:
        """Workers whose every login succeeds; what a provider cannot be made to do is to fail in this very moment."""

        async def job(self, message: dict[str, Any], _deadline: float) -> dict[str, Any]:
            return {"value": message["do"], "accessor": "a", "seconds": 60, "renewable": True, "policies": []}

    async def play() -> list[str]:
        session = Session(Answering(), AuthSettings("token_file", "token"))  # type: ignore[arg-type]
        deadline = asyncio.get_running_loop().time() + 20
        waiting = []
        for _ in range(3):
            waiting.append(asyncio.create_task(session.token(deadline)))
            await asyncio.sleep(0)
            session._forget()
        await session._log_in()
        return list(await asyncio.gather(*waiting))

    assert asyncio.run(play()) == ["login"] * 3


def test_whoever_asks_for_a_token_that_was_given_back_waits_and_holds_up_nobody() -> None:
    """A shutdown gives the token back; who asks for one after that waits to its deadline, and the loop turns meanwhile."""

    class Answering:
        """Workers whose every job succeeds; a real provider cannot be made to answer in this very moment."""

        async def job(self, message: dict[str, Any], _deadline: float) -> dict[str, Any]:
            return {"value": message["do"], "accessor": "a", "seconds": 60, "renewable": True, "policies": []}

    async def play() -> None:
        session = Session(Answering(), AuthSettings("approle", "approle"))  # type: ignore[arg-type]
        await session._log_in()
        await session.revoke()
        waiting = asyncio.create_task(session.token(asyncio.get_running_loop().time() + 60))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        waiting.cancel()

    asyncio.run(play())
