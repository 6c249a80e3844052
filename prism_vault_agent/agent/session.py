"""The agent's token at the provider: logged in, renewed at two thirds of its life, replaced before its end, revoked at shutdown.

The token is the one secret that the front keeps. It is fetched and used by workers; nothing is ever picked up from the
environment or the home directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.agent.agent_token import Held
from prism_vault_agent.errors import Denied, PrismVaultError, ProviderUnavailable, TokenExpired

if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.agent.workers import Workers
    from prism_vault_agent.config.settings import AuthSettings

log = structlog.get_logger()

BACKOFF_FIRST: Final = 1.0
BACKOFF_LONGEST: Final = 300.0
JOB_SECONDS: Final = 10.0
SHORTEST_WAIT: Final = 0.2
PROBE_SECONDS: Final = 2.0
WHOLE: Final = 0.9


class Session:
    """A login that is kept alive. ``on_failure`` of the settings says what a refused login means: ``refused`` is told of it."""

    def __init__(self, workers: Workers, auth: AuthSettings) -> None:
        """Log in with ``auth`` through ``workers``."""
        self._workers = workers
        self._auth = auth
        self._held: Held | None = None
        self._identities: dict[str, tuple[str, float]] = {}
        self._changed = asyncio.Event()
        self._again = asyncio.Event()
        self._wanted = asyncio.Event()
        self._lost = asyncio.Event()
        self.last_error: PrismVaultError | None = None
        self.in_use: Callable[[str], bool] = lambda _: False
        self.refused: Callable[[str], None] = lambda _: None

    @property
    def accessor(self) -> str:
        """The accessor of the token; empty where there is none."""
        return self._held.accessor if self._held else ""

    def is_ours(self, accessor: str) -> bool:
        """Tell whether a token is the one that we have, or one that is not ours to revoke."""
        return accessor == self.accessor or self._auth.method == "token_file"

    def facts(self, token: str) -> tuple[str, tuple[str, ...]]:
        """Return the accessor and the policies of a token of ours; nothing for one that has been replaced since."""
        held = self._held
        return (held.accessor, held.policies) if held and held.token == token else ("", ())

    @property
    def state(self) -> str:
        """``logged_in`` or ``logged_out``."""
        return "logged_in" if self._held else "logged_out"

    @property
    def expires_in(self) -> float | None:
        """Seconds until the token ends; None where there is none or it does not end."""
        ends = self._held.ends if self._held else None
        return None if ends is None else max(0.0, ends - time.monotonic())

    @property
    def reachable(self) -> bool:
        """Whether the provider answered when it was last asked."""
        return not self._lost.is_set()

    def lost(self, error: ProviderUnavailable) -> None:
        """Say that the provider did not answer: it is asked again and again from now on, until it does."""
        self.last_error = error
        self._lost.set()

    async def probe(self) -> None:
        """Find out when a provider that did not answer is back, until cancelled."""
        while True:
            await self._lost.wait()
            await asyncio.sleep(PROBE_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311 - jitter is no secret
            try:
                await self._workers.job({"do": "health"}, time.monotonic() + JOB_SECONDS)
            except PrismVaultError as error:
                self.last_error = error
            else:
                self.last_error = None
                self._lost.clear()

    async def token(self, deadline: float) -> str:
        """Return a token that is thought to live, waiting for a login under way until ``deadline`` (CLOCK_MONOTONIC)."""
        while self._held is None:
            self._wanted.set()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                error = self.last_error
                raise ProviderUnavailable(
                    "the agent is not logged in" + (f": {error.message}" if error else ""),
                    mend=(error.mend if error else "") or "see prism-vault status",
                    reason=error.reason if isinstance(error, Denied) else "logged_out",
                ) from None
        return self._held.token

    def expired(self, token: str) -> None:
        """Say that the provider called ``token`` dead: a new login starts at once, unless one has happened since."""
        if self._held is not None and self._held.token == token:
            self._forget()
            self._again.set()

    async def identity(self, role: str, deadline: float) -> str:
        """Return an identity token of ``role``, minted anew after two thirds of its life."""
        value, renew_at = self._identities.get(role, ("", 0.0))
        if time.monotonic() >= renew_at:
            token = await self.token(deadline)
            try:
                answer = await self._workers.job({"do": "identity", "token": token, "role": role}, deadline)
            except TokenExpired as error:
                self.expired(token)
                told = "the agent's token has ended; a new login is under way"
                raise ProviderUnavailable(told, mend="retry", reason="logged_out") from error
            value = answer["value"]
            self._identities[role] = (value, time.monotonic() + answer["seconds"] * 2 / 3)
        return value

    def forget_identity(self, role: str) -> None:
        """Mint a new identity token at the next call: central refused the one it has."""
        self._identities.pop(role, None)

    async def run(self) -> None:
        """Keep logged in until cancelled. Raises the login's error where ``on_failure`` is ``exit``."""
        pause = BACKOFF_FIRST
        while True:
            try:
                await self._log_in()
                pause = BACKOFF_FIRST
                await self._keep()
            except PrismVaultError as error:
                self.last_error = error
                log.warning("login.failed", reason=error.reason, message=error.message, retry_in=round(pause, 1))
                if error.exit_status != ProviderUnavailable.exit_status and self._auth.on_failure != "keep-trying":
                    if self._auth.on_failure == "exit":
                        raise
                    self.refused("login_refused")
                await self._back_off(pause * random.uniform(0.75, 1.25), error)  # noqa: S311 - jitter is no secret
                pause = min(pause * 2, BACKOFF_LONGEST)

    async def _back_off(self, seconds: float, error: PrismVaultError) -> None:
        """Wait before the next login; a second is enough where the provider was merely away and somebody wants a token."""
        if isinstance(error, ProviderUnavailable):
            await asyncio.sleep(min(seconds, BACKOFF_FIRST))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(seconds - BACKOFF_FIRST, 0)):
                    await self._wanted.wait()
        else:
            await asyncio.sleep(seconds)
        self._wanted.clear()

    async def _log_in(self) -> None:
        answer = await self._workers.job({"do": "login"}, time.monotonic() + JOB_SECONDS)
        before, seconds = self._held, int(answer["seconds"])
        ends = time.monotonic() + seconds if seconds else None
        renewable, policies = bool(answer["renewable"]), tuple(answer["policies"])
        self._held = Held(answer["value"], answer["accessor"], seconds, renewable, ends, policies)
        self._again.clear()
        self.last_error = None
        self._lost.clear()
        self._changed.set()
        self._identities.clear()
        log.info(
            "login.done",
            method=self._auth.method,
            accessor=self._held.accessor,
            seconds=seconds,
            renewable=self._held.renewable,
        )
        if before is not None and before.token != self._held.token:
            await self._give_back(before)

    async def _keep(self) -> None:
        """Renew until the token cannot be made to live longer; return when it is time to log in anew."""
        while (held := self._held) is not None:
            if held.ends is None:
                await self._again.wait()
                return
            remaining = held.ends - time.monotonic()
            wait = max(SHORTEST_WAIT, remaining * random.uniform(0.6, 2 / 3))  # noqa: S311 - jitter is no secret
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._again.wait()
                    return
            if not held.renewable or not await self._renew(held):
                # Max ttl is near, or renewing is not possible: a new login while the old token still lives.
                return

    async def _renew(self, held: Held) -> bool:
        """Renew the token; tell whether it lives on as long as at first, so that its max ttl has not cut it short."""
        try:
            answer = await self._workers.job({"do": "renew", "token": held.token}, time.monotonic() + JOB_SECONDS)
        except ProviderUnavailable as error:
            self.last_error = error
            log.warning("renewal.failed", reason=error.reason, message=error.message)
            return held.ends is not None and held.ends - time.monotonic() > held.seconds / 10
        except PrismVaultError as error:
            log.warning("renewal.refused", reason=error.reason, message=error.message)
            self._forget()
            return False
        held.ends = time.monotonic() + answer["seconds"]
        return bool(answer["seconds"] >= held.seconds * WHOLE)

    def _forget(self) -> None:
        self._held = None
        self._changed.clear()  # the same event for ever: somebody may be waiting for it already
        self._identities.clear()

    async def revoke(self) -> None:
        """Give the token back at shutdown."""
        held = self._held
        self._forget()
        if held is not None:
            await self._give_back(held)

    async def _give_back(self, held: Held) -> None:
        """Revoke a token of ours; one that cannot be reached is logged and left to its ttl. A token file's is not ours.

        One on which leases hang that somebody holds is left, too: who gives back the last of them, gives it back.
        """
        if self._auth.method == "token_file":
            return
        if self.in_use(held.accessor):
            log.info("token.left", accessor=held.accessor, message="leases that are in use end with it")
            return
        try:
            await self._workers.job({"do": "revoke", "token": held.token}, time.monotonic() + 2.0)
            log.info("token.revoked", accessor=held.accessor)
        except PrismVaultError as error:
            log.warning("token.revoke_failed", accessor=held.accessor, reason=error.reason)
