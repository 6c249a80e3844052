"""Identity tokens of OpenBao or Vault (``identity/oidc``), verified against the issuer's published keys."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx2
import jwt

from prism_vault_agent.central.access.identity import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.central.access_settings import Issuer

ALGORITHMS: Final = ("ES256", "RS256", "EdDSA")
REQUIRED: Final = ("exp", "iat", "sub", "aud", "iss")
LEEWAY: Final = 10.0
# How long the keys are believed without a look at the issuer, while it answers.
FRESH: Final = 300.0
FETCHES_A_MINUTE: Final = 6
FETCH_SECONDS: Final = 3.0
PROBE_SECONDS: Final = 5.0
LARGEST_KEYS: Final = 256 * 1024
_UNFETCHED: Final = (httpx2.HTTPError, OSError, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError)


class IssuerUnavailable(Exception):
    """The issuer's keys cannot be had, so the token is neither believed nor refused."""


class Vouched(NamedTuple):
    """What a token says that holds: for whom it is, when it ends (seconds since 1970), and by which key it is signed."""

    subject: str
    expires: float
    kid: str


class TokenIssuer:
    """One issuer and its keys. They are asked for anew after five minutes and for an unknown key id: six times a minute at most.

    While the issuer is away, the keys that it told last are believed, and nobody who has a token of theirs waits for it.
    """

    def __init__(self, settings: Issuer, clock: Callable[[], float] = time.monotonic) -> None:
        """Believe tokens of exactly this issuer and audience. Nothing is fetched yet. ``clock`` gives seconds."""
        self._settings = settings
        context: ssl.SSLContext | bool = True
        if settings.url.startswith("https:"):
            context = ssl.create_default_context(cafile=settings.ca_file or None)
        self._client = httpx2.AsyncClient(verify=context, timeout=FETCH_SECONDS, trust_env=False, follow_redirects=False)
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = self._probed = -math.inf
        self._away = False
        self._fetches: deque[float] = deque()
        self._fetching: asyncio.Task[None] | None = None

    async def verify(self, token: str) -> Vouched:
        """Return what a token says.

        Raises :class:`Unauthenticated` for a token that does not hold, :class:`IssuerUnavailable` where its key is not known
        and the issuer cannot be asked.
        """
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise Unauthenticated("algorithm")
            kid = str(header.get("kid", ""))
            if not await self.knows(kid):
                if self._away or not self._keys:
                    raise IssuerUnavailable
                raise Unauthenticated("unknown_key")
            key = self._keys[kid]
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._settings.audience,
                issuer=self._settings.url,
                leeway=LEEWAY,
                options={"require": list(REQUIRED)},
            )
            return Vouched(str(claims["sub"]), float(claims["exp"]), kid)
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("token_expired") from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated("wrong_audience") from None
        except jwt.InvalidIssuerError:
            raise Unauthenticated("wrong_issuer") from None
        except jwt.PyJWTError:
            raise Unauthenticated("token_invalid") from None

    async def knows(self, kid: str) -> bool:
        """Tell whether the issuer has a key of this id, asking it where that is unknown or too long ago."""
        if kid in self._keys and (self._away or self._clock() - self._fetched <= FRESH):
            if self._clock() - self._fetched > FRESH:
                self._ask()
            return True
        if self._fetching is not None:
            await asyncio.shield(self._fetching)  # what it brings may be older than the key
        if (kid not in self._keys or self._clock() - self._fetched > FRESH) and (fetching := self._ask()) is not None:
            await asyncio.shield(fetching)
        return kid in self._keys

    async def reachable(self) -> bool:
        """Tell whether the keys are known, or can be had now; asked at most every five seconds while they cannot."""
        if not self._keys and self._clock() - self._probed > PROBE_SECONDS:
            self._probed = self._clock()
            await asyncio.shield(self._fetching or self._begin())
        return bool(self._keys)

    async def close(self) -> None:
        """Close the connection to the issuer."""
        if self._fetching is not None:
            self._fetching.cancel()
        await self._client.aclose()

    def _ask(self) -> asyncio.Task[None] | None:
        """Return the fetch under way or a new one; None where that is beyond the rate, so that nobody can flood the issuer."""
        if self._fetching is not None:
            return self._fetching
        now = self._clock()
        while self._fetches and now - self._fetches[0] > 60:
            self._fetches.popleft()
        if len(self._fetches) >= FETCHES_A_MINUTE:
            return None
        self._fetches.append(now)
        return self._begin()

    def _begin(self) -> asyncio.Task[None]:
        self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        """Take the issuer's present keys in place of the ones we know; where they cannot be had, those stay."""
        began = self._clock()
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                self._keys = await self._published()
            self._fetched, self._away = began, False
        except _UNFETCHED:
            self._away = True
        finally:
            self._fetching = None

    async def _published(self) -> dict[str, jwt.PyJWK]:
        async with self._client.stream("GET", self._settings.url + "/.well-known/keys") as answer:
            answer.raise_for_status()
            content = b""
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > LARGEST_KEYS:
                    raise ValueError
        keys = jwt.PyJWKSet.from_dict(json.loads(content)).keys
        return {key.key_id: key for key in keys if key.key_id and key.algorithm_name in ALGORITHMS}
