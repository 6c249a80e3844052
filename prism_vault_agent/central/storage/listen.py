"""Hears what other replicas tell on a channel of PostgreSQL's (NOTIFY), with one connection for each replica."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Callable

NAME: Final = "prism-vault central listens"
RETRY_SECONDS: Final = 1.0
# A connection that only listens would not notice that the other side is gone.
_KEPT_ALIVE: Final = "connect_timeout=5 keepalives_idle=10 keepalives_interval=5 keepalives_count=3"


async def listen(database: str, channel: str, told: Callable[[str], None]) -> None:
    """Call ``told`` with the channel whenever something was told on it, until cancelled.

    A connection that is lost is made again; ``told`` is called then too, because nothing was heard meanwhile.
    """
    log = structlog.get_logger("listen")
    while True:
        try:
            where = make_conninfo(database, application_name=NAME, **conninfo_to_dict(_KEPT_ALIVE))
            async with await psycopg.AsyncConnection.connect(where, autocommit=True) as connection:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                told(channel)
                async for _ in connection.notifies():
                    told(channel)
        except (psycopg.Error, OSError) as error:
            log.warning("listening_failed", channel=channel, error=type(error).__name__)
        await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter is no secret
