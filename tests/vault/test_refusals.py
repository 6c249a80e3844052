"""A refusal by the real OpenBao: denied, or a dead token (F7, F8)."""

from __future__ import annotations

import pytest

from prism_vault_agent.errors import Denied, TokenExpired
from prism_vault_agent.vault import reading
from tests.support.counting_proxy import CountingProxy
from tests.support.openbao import OpenBao
from tests.support.vault import bind, read, soon, transport
from tests.support.waiting import wait_until


def test_a_policy_denial_is_asked_about_once_and_never_retried(bao: OpenBao) -> None:
    """A living token's 403 is one read and one question about the token, then a denial that names the reference (F7)."""
    bao.kv_put("secret/denied", {"k": "CANARY"})
    bao.policy("other", 'path "secret/data/other" { capabilities = ["read"] }')
    with CountingProxy(bao.port) as proxy, pytest.raises(Denied) as refused:
        reading.read(transport(proxy.address), bao.token(["other"]), bind(K="secret/denied#k"), deadline=soon())
    assert not isinstance(refused.value, TokenExpired)
    assert refused.value.reason == "provider_policy"
    assert "vault://secret/denied" in refused.value.line()
    assert [line.split("/v1/")[1] for line in proxy.lines] == [
        "sys/internal/ui/mounts/secret/denied",
        "secret/data/denied",
        "auth/token/lookup-self",
    ]


def test_a_denial_is_a_denial_where_the_token_may_not_even_look_itself_up(bao: OpenBao) -> None:
    """A living token without the default policy is not taken for a dead one."""
    bao.policy("narrow", 'path "secret/data/narrow" { capabilities = ["read"] }')
    bao.kv_put("secret/narrow", {"k": "v"})
    token = bao.token(["narrow"], no_default_policy=True)
    with pytest.raises(Denied) as refused:
        read(bao, token, bind(K="secret/wide#k"), mounts={"secret/": 2})
    assert not isinstance(refused.value, TokenExpired)
    assert read(bao, token, bind(K="secret/narrow#k")).values == {"K": "v"}


def test_a_mount_that_does_not_exist_is_a_denial_that_says_so(bao: OpenBao, token: str) -> None:
    """The server hides missing mounts behind 403; the message tells to check the mount's name."""
    with pytest.raises(Denied) as refused:
        read(bao, token, bind(K="nowhere/a#k"))
    assert "mount" in refused.value.line()


@pytest.mark.parametrize("death", ["revoked", "expired", "used up", "garbage"])
def test_a_dead_token_is_told_from_a_denial(death: str, bao: OpenBao, token: str) -> None:
    """Expired, revoked, used up and unknown tokens ask for a new login, with or without known mounts (F8)."""
    bao.kv_put("secret/alive", {"k": "v"})
    dead = {"revoked": token, "garbage": "hvs.garbage"}.get(death, "")
    if death == "revoked":
        bao.must("POST", "auth/token/revoke", {"token": dead})
    elif death == "expired":
        dead = bao.token(["read-secret"], ttl="1s")
        wait_until(lambda: bao.request("GET", "auth/token/lookup-self", token=dead)[0] == 403)
    elif death == "used up":
        dead = bao.token(["read-secret"], num_uses=1)
        assert read(bao, dead, bind(K="secret/alive#k"), mounts={"secret/": 2}).values == {"K": "v"}
    for mounts in (None, {"secret/": 2}):
        with pytest.raises(TokenExpired):
            read(bao, dead, bind(K="secret/alive#k"), mounts=mounts)
