"""Identity tokens while the keys of a real OpenBao change: rotated, withdrawn, asked for in a flood, or not to be had."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from typing import TYPE_CHECKING

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from prism_vault_agent.central.access.identity import Unauthenticated
from prism_vault_agent.central.access.issuer import FETCH_SECONDS, FRESH, IssuerUnavailable, TokenIssuer
from prism_vault_agent.central.access_settings import Issuer
from tests.central.provider import AUDIENCE, STEADY, Provider, kid
from tests.support.central import CentralProcess
from tests.support.fault_proxy import Fault, always
from tests.support.soak import count
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


@pytest.fixture
def provider(login) -> Provider:
    """Return a host's login with a key of its own."""
    return Provider(login)


@pytest.fixture
def central(provider, tmp_path) -> Iterator[CentralProcess]:
    """Return a central that knows server1 by its entity, and has asked for no keys yet."""
    subjects = [{"subject": provider.login.entity, "host": "server1", "projects": ["prism"]}]
    with CentralProcess(tmp_path, issuer=provider.settings, subjects=subjects) as running:
        yield running


def answer(central: CentralProcess, token: str) -> str:
    """Return ``ok`` where the token is believed, else the status and code of the problem."""
    with central.client(token) as client:
        told = client.get("/v1/audit/head")
    if told.status_code == 503:
        assert int(told.headers["retry-after"]) >= 1
    return "ok" if told.status_code == 200 else f"{told.status_code} {told.json()['code']}"


def test_a_rotated_key_is_believed_after_one_look(central, provider):
    """Over three rotations a token by the new key is believed at once, with one look at the issuer at most; old ones stay."""
    tokens = [provider.mint()]
    assert answer(central, tokens[0]) == "ok"
    for _ in range(3):
        tokens.append(provider.rotate())
        before = provider.asked
        assert answer(central, tokens[-1]) == "ok"
        assert provider.asked - before <= 1

    assert provider.asked >= 2  # OpenBao publishes the next key beforehand, but not the one after it
    assert [answer(central, token) for token in tokens] == ["ok"] * 4


def _delete(provider: Provider) -> None:
    """Let tokens be signed by another key, and delete the one before."""
    other = f"{provider.role}-next"
    provider.login.bao.must("POST", f"identity/oidc/key/{other}", {"algorithm": "ES256", "allowed_client_ids": ["*"]})
    provider.login.bao.must("POST", f"identity/oidc/role/{provider.role}", {"key": other, "client_id": AUDIENCE, "ttl": "1h"})
    provider.login.bao.must("DELETE", f"identity/oidc/key/{provider.role}")


def _let_end(provider: Provider) -> None:
    """Rotate the key, and wait until its verification_ttl has ended, which OpenBao looks at once a minute."""
    before = kid(provider.mint())
    provider.rotate("1s")
    provider.rotate()  # by a key that nobody has seen
    wait_until(lambda: before not in provider.published(), 100)


@pytest.mark.parametrize("withdraw", [_delete, _let_end][: count(1, 2)])
def test_a_withdrawn_key_ends_its_tokens(central, provider, withdraw):
    """Once central has seen that the issuer has a key no longer, a token by it is refused, though it was believed before."""
    old = provider.mint()
    assert answer(central, old) == "ok"
    withdraw(provider)
    assert answer(central, provider.mint()) == "ok"

    assert answer(central, old) == "401 unknown_key"


@pytest.mark.parametrize("way", ["reset", "hang"])
def test_while_the_issuer_is_away_known_keys_do(central, provider, way):
    """With an issuer that is away or silent, new tokens by known keys are believed, others get 503, and its return is noticed."""
    assert answer(central, provider.mint()) == "ok"
    provider.rotate()
    with provider.login.keys.failing(always(Fault(way))):
        unknown = provider.rotate()
        assert answer(central, unknown) == "503 issuer_unavailable"
        assert answer(central, provider.mint(STEADY)) == "ok"

    assert answer(central, unknown) == "ok"


class Clock:
    """A clock that stands still unless it is told to go."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


@contextlib.asynccontextmanager
async def issuer(provider: Provider, clock: Callable[[], float]):
    made = TokenIssuer(Issuer(**provider.settings), clock)
    try:
        yield made
    finally:
        await made.close()


async def outcome(made: TokenIssuer, token: str) -> str:
    try:
        return (await made.verify(token)).subject
    except Unauthenticated as error:
        return error.reason
    except IssuerUnavailable:
        return "unavailable"


def forged(provider: Provider) -> str:
    """Return a token that nobody's key of OpenBao has signed."""
    claims = jwt.decode(provider.mint(STEADY), options={"verify_signature": False})
    return jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": secrets.token_hex(8)})


def test_a_flood_of_unknown_keys_is_six_looks_a_minute(provider):
    """However many tokens name keys that nobody has, OpenBao is asked six times a minute at most; true tokens are believed."""

    async def script() -> None:
        clock, tokens, true = Clock(), [forged(provider) for _ in range(100)], provider.mint(STEADY)
        async with issuer(provider, clock) as made:
            for minute in (1, 2):
                told = Counter(await asyncio.gather(*(outcome(made, token) for token in [*tokens, true])))
                told.update([await outcome(made, token) for token in tokens])
                assert told == {"unknown_key": 200, provider.login.entity: 1}
                assert provider.asked - before == 6 * minute
                clock.now += 61

    before = provider.asked
    asyncio.run(script())


def test_keys_are_looked_at_again_after_five_minutes(provider):
    """A withdrawn key is believed for five minutes after the last look at most, also where no unknown one makes us look."""

    async def script() -> None:
        clock, token = Clock(), provider.mint()
        async with issuer(provider, clock) as made:
            assert await outcome(made, token) == provider.login.entity
            _delete(provider)
            clock.now += FRESH
            assert await made.knows(kid(token))
            clock.now += 1
            assert not await made.knows(kid(token))
            assert await outcome(made, token) == "unknown_key"

    asyncio.run(script())


def test_old_keys_serve_until_the_issuer_is_back(provider):
    """With the issuer away for hours what it told last is believed, nobody waits for it, and what it tells then holds."""

    async def script() -> None:
        clock, token = Clock(), provider.mint()
        async with issuer(provider, clock) as made:
            assert await outcome(made, token) == provider.login.entity
            _delete(provider)
            clock.now += 2 * 3600
            with provider.login.keys.failing(always(Fault("reset"))):
                assert await outcome(made, token) == provider.login.entity
            with provider.login.keys.failing(always(Fault("hang"))):
                for _ in range(20):
                    clock.now += 61
                    async with asyncio.timeout(FETCH_SECONDS - 0.2):
                        assert await outcome(made, token) == provider.login.entity
            await _until(lambda: made.knows(kid(token)), clock)
            assert await outcome(made, token) == "unknown_key"

    asyncio.run(script())


async def _until(known: Callable[[], Awaitable[bool]], clock: Clock) -> None:
    """Return once a key is not known any more, minutes passing."""
    async with asyncio.timeout(30):
        while await known():
            clock.now += 61
            await asyncio.sleep(0.01)
