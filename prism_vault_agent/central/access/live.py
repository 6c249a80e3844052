"""The policies and service tokens that hold now, in memory: every request asks for them, every replica follows the rows."""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.central.access import policy_rows, token_rows
from prism_vault_agent.central.access.policy import Policies, Policy
from prism_vault_agent.central.log.store import StorageError
from prism_vault_agent.central.storage import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Engine

    from prism_vault_agent.central.access.policy_rows import Change
    from prism_vault_agent.central.access.token_rows import Token

# How soon a change is seen whose signal does not reach us: one of another process in a file, or a lost notification.
LOOK_SECONDS: Final = 1.0
# For how long what was seen last is still believed. A replica that cannot look allows nothing.
BELIEVED_SECONDS: Final = 15.0


class Live:
    """What the rows of policies and tokens say, with the policies of the configuration."""

    def __init__(self, engine: Engine, configured: Sequence[Policy]) -> None:
        """Follow the rows through ``engine``, which is nobody else's. ``news`` is called when there were new ones."""
        self._engine = engine
        self._configured = tuple(configured)
        self.news: Callable[[], None] = lambda: None
        self._thread = ThreadPoolExecutor(1, "access")  # of our own, so that slow questions to the log hold nothing up
        self._looking = asyncio.Lock()
        self._wake = asyncio.Event()
        self._looked = -BELIEVED_SECONDS
        self._present: dict[str, Change] = {}
        self._count = 0
        self._policies = Policies(0, self._configured)
        self._tokens: Mapping[str, Token] = {}

    @property
    def policies(self) -> Policies:
        """The policies that hold. Raises :class:`StorageError` where they could not be looked at of late."""
        self._require_fresh()
        return self._policies

    def token(self, sha256: str) -> Token | None:
        """Return the token of a hash, revoked or not. Raises :class:`StorageError` where none could be looked for of late."""
        self._require_fresh()
        return self._tokens.get(sha256)

    @property
    def tokens(self) -> list[Token]:
        """Every token that was ever made, as last seen."""
        return list(self._tokens.values())

    def wake(self) -> None:
        """Look at the rows soon: something was told about policies or tokens."""
        self._wake.set()

    async def run(self) -> None:
        """Follow the rows until cancelled. A database that cannot be used now is tried again at the next turn."""
        log = structlog.get_logger("access")
        while True:
            try:
                await self.look()
            except StorageError as error:
                log.error("access_not_read", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()

    async def look(self) -> None:
        """Take over what the rows say. Raises :class:`StorageError` where they cannot be read; what was seen stays."""
        async with self._looking:
            self._wake.clear()
            began = time.monotonic()
            try:
                changes, count, tokens = await asyncio.get_running_loop().run_in_executor(self._thread, self._read)
            except SQLAlchemyError as error:
                raise StorageError(type(error).__name__) from error
            self._looked = began
            if changes:
                self._take_policies(changes)
            if tokens is not None:
                self._take_tokens(count, tokens)
            if changes or tokens is not None:
                self.news()

    async def follow(self) -> None:
        """Take over what was just changed here. Where the rows cannot be read now, the next look does it."""
        with contextlib.suppress(StorageError):
            await self.look()

    def close(self) -> None:
        """End the thread and close the connection."""
        self._thread.shutdown()
        self._engine.dispose()

    def _read(self) -> tuple[Sequence[Change], int, list[Token] | None]:
        """Return the new changes of policies, how many rows of tokens there are, and all tokens where some are new."""
        with self._engine.connect() as connection:
            changes = policy_rows.read(connection, after=self._policies.version)
            count = connection.execute(select(func.count()).select_from(schema.token)).scalar() or 0
            return changes, count, token_rows.read(connection) if count != self._count else None

    def _take_policies(self, changes: Sequence[Change]) -> None:
        """Let the last change of each name hold; one that is not on the log only takes away."""
        for change in changes:
            self._present[change.name] = change
            if not change.believed:
                structlog.get_logger("access").critical("policy_not_recorded", version=change.version, name=change.name)
        self._policies = Policies(changes[-1].version, (*self._configured, *holding(self._present.values())))

    def _take_tokens(self, count: int, tokens: Sequence[Token]) -> None:
        for token in tokens:
            if not token.believed and token.sha256 not in self._tokens:
                structlog.get_logger("access").critical("token_not_recorded", name=token.grant.name)
        self._count = count
        self._tokens = {token.sha256: token for token in tokens}

    def _require_fresh(self) -> None:
        if time.monotonic() - self._looked > BELIEVED_SECONDS:
            raise StorageError("AccessNotRead")


def holding(changes: Iterable[Change]) -> list[Policy]:
    """Return what the last change of each name lets hold."""
    last = {change.name: change for change in changes}
    return [Policy(each.name, each.version, each.rule) for each in last.values() if each.rule is not None and each.believed]
