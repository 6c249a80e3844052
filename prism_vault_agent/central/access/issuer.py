"""Identity tokens of OpenBao or Vault (``identity/oidc``), verified against the issuer's published keys."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import httpx2
import jwt

from prism_vault_agent.central.access.identity import Unauthenticated

if TYPE_CHECKING:
    from prism_vault_agent.central.access_settings import Issuer

ALGORITHMS: Final = ("ES256", "RS256", "EdDSA")
REQUIRED: Final = ("exp", "iat", "sub", "aud", "iss")
LEEWAY: Final = 10.0
FRESH: Final = 300.0
FETCHES_A_MINUTE: Final = 6
PROBE_SECONDS: Final = 5.0
LARGEST_KEYS: Final = 256 * 1024
_UNFETCHED: Final = (httpx2.HTTPError, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError)


class IssuerUnavailable(Exception):
    """The issuer's keys cannot be had, so the token is neither believed nor refused."""


class TokenIssuer:
    """One issuer and its keys. An unknown key id asks for the keys again, at most six times a minute."""

    def __init__(self, settings: Issuer) -> None:
        """Believe tokens of exactly this issuer and audience. Nothing is fetched yet."""
        self._settings = settings
        context: ssl.SSLContext | bool = True
        if settings.url.startswith("https:"):
            context = ssl.create_default_context(cafile=settings.ca_file or None)
        self._client = httpx2.AsyncClient(verify=context, timeout=3.0, trust_env=False, follow_redirects=False)
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = -FRESH
        self._probed = -PROBE_SECONDS
        self._fetches: deque[float] = deque()
        self._fetching = asyncio.Lock()

    async def verify(self, token: str) -> tuple[str, float]:
        """Return the subject of a token and when it ends (seconds since 1970).

        Raises :class:`Unauthenticated` for a token that does not hold, :class:`IssuerUnavailable` where no keys are
        known and none can be had.
        """
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise Unauthenticated("algorithm")
            key = await self._key(str(header.get("kid", "")))
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._settings.audience,
                issuer=self._settings.url,
                leeway=LEEWAY,
                options={"require": list(REQUIRED)},
            )
            return str(claims["sub"]), float(claims["exp"])
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("token_expired") from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated("wrong_audience") from None
        except jwt.InvalidIssuerError:
            raise Unauthenticated("wrong_issuer") from None
        except jwt.PyJWTError:
            raise Unauthenticated("token_invalid") from None

    async def reachable(self) -> bool:
        """Tell whether the keys are known, or can be had now; asked at most every five seconds while they cannot."""
        async with self._fetching:
            if not self._keys and time.monotonic() - self._probed > PROBE_SECONDS:
                self._probed = time.monotonic()
                with contextlib.suppress(*_UNFETCHED):
                    await self._fetch()
            return bool(self._keys)

    async def close(self) -> None:
        """Close the connection to the issuer."""
        await self._client.aclose()

    async def _key(self, kid: str) -> jwt.PyJWK:
        """Return the key of this id, fetching the keys where it is unknown or they are old."""
        async with self._fetching:  # who waited finds what the one before has fetched
            if (kid not in self._keys or time.monotonic() - self._fetched > FRESH) and self._may_fetch():
                try:
                    await self._fetch()
                except _UNFETCHED:
                    if not self._keys:
                        raise IssuerUnavailable from None
        if not self._keys:
            raise IssuerUnavailable
        if kid not in self._keys:
            raise Unauthenticated("unknown_key")
        return self._keys[kid]

    def _may_fetch(self) -> bool:
        """Tell whether another fetch is within the rate, so that made-up key ids cannot flood the issuer."""
        now = time.monotonic()
        while self._fetches and now - self._fetches[0] > 60:
            self._fetches.popleft()
        if len(self._fetches) >= FETCHES_A_MINUTE:
            return False
        self._fetches.append(now)
        return True

    async def _fetch(self) -> None:
        """Take the issuer's present keys in place of the ones we know."""
        async with self._client.stream("GET", self._settings.url + "/.well-known/keys") as answer:
            answer.raise_for_status()
            content = b""
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > LARGEST_KEYS:
                    raise ValueError
        keys = jwt.PyJWKSet.from_dict(json.loads(content)).keys
        self._keys = {key.key_id: key for key in keys if key.key_id and key.algorithm_name in ALGORITHMS}
        self._fetched = time.monotonic()
