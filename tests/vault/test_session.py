"""The token's life after the login, against a real OpenBao."""

from __future__ import annotations

import pytest

from prism_vault_agent.errors import Denied, ProviderUnavailable, TokenExpired
from prism_vault_agent.vault import session
from tests.support.openbao import OpenBao
from tests.support.processes import free_port
from tests.support.vault import soon, transport
from tests.support.waiting import wait_until


def test_renewing_gives_the_new_life(bao: OpenBao) -> None:
    """A renewal answers for how long the token lives now, cut short by its max ttl."""
    client = transport(bao.address)
    assert session.renew(client, bao.token(["default"], ttl="20m"), soon()) == 1200
    assert session.renew(client, bao.token(["default"], ttl="20m", explicit_max_ttl="21m"), soon()) in range(1190, 1261)


def test_a_token_that_cannot_be_renewed_is_told(bao: OpenBao) -> None:
    """A token that is not renewable is a denial that logging in anew may mend, not a dead token."""
    with pytest.raises(Denied) as refused:
        session.renew(transport(bao.address), bao.token(["default"], ttl="20m", renewable=False), soon())
    assert not isinstance(refused.value, TokenExpired)
    assert refused.value.reason == "token_refused"


def test_lookup_tells_the_remaining_life(bao: OpenBao) -> None:
    """A look-up gives the same facts as a login."""
    token = bao.token(["default"], ttl="20m")
    facts = session.lookup(transport(bao.address), token, soon())
    assert facts.value == token
    assert 1190 <= facts.seconds <= 1200
    assert facts.renewable


def test_a_revoked_token_takes_its_children_with_it(bao: OpenBao) -> None:
    """After a revocation the token and what it made are dead; revoking again says so."""
    bao.policy("make-children", 'path "auth/token/create" { capabilities = ["create", "update"] }')
    client, token = transport(bao.address), bao.token(["make-children"])
    child = bao.must("POST", "auth/token/create", {}, token=token)["auth"]["client_token"]
    session.revoke_self(client, token, soon())
    assert bao.request("GET", "auth/token/lookup-self", token=child)[0] == 403
    for act in (session.revoke_self, session.renew, session.lookup):
        with pytest.raises(TokenExpired):
            act(client, token, soon())


def test_a_token_is_revoked_by_its_accessor_where_policy_lets_us(bao: OpenBao) -> None:
    """The right to revoke by accessor is needed and enough."""
    bao.policy("revoke", 'path "auth/token/revoke-accessor" { capabilities = ["update"] }')
    victim = bao.must("POST", "auth/token/create", {})["auth"]
    client = transport(bao.address)
    with pytest.raises(Denied) as refused:
        session.revoke_accessor(client, bao.token(["default"]), victim["accessor"], soon())
    assert refused.value.reason == "provider_policy"
    session.revoke_accessor(client, bao.token(["revoke"]), victim["accessor"], soon())
    assert bao.request("GET", "auth/token/lookup-self", token=victim["client_token"])[0] == 403


def test_an_expired_token_is_told_from_a_denial(bao: OpenBao) -> None:
    """A token whose time is over is dead, not denied."""
    client, token = transport(bao.address), bao.token(["default"], ttl="1s", renewable=False)
    wait_until(lambda: bao.request("GET", "auth/token/lookup-self", token=token)[0] == 403)
    with pytest.raises(TokenExpired):
        session.renew(client, token, soon())


def test_a_provider_that_is_gone_is_the_same_typed_error_here() -> None:
    """Through hvac, an unreachable provider is what it is everywhere."""
    with pytest.raises(ProviderUnavailable):
        session.renew(transport(f"http://127.0.0.1:{free_port()}"), "hvs.CANARY", soon(0.5))
