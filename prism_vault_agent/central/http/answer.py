"""What FastAPI's routes have in common: reading rows in a thread, and answers as JSON."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from prism_vault_agent.central.log.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

Found = TypeVar("Found")


async def look(engine: Engine, question: Callable[[Connection], Found]) -> Found:
    """Return what ``question`` finds, asked in a thread. Raises :class:`StorageError` where the database cannot be read."""

    def ask() -> Found:
        with engine.connect() as connection:
            return question(connection)

    try:
        return await asyncio.to_thread(ask)
    except SQLAlchemyError as error:
        raise StorageError(type(error).__name__) from error


def as_json(content: dict[str, Any], status: int = 200, **headers: str) -> Response:
    """Return an answer. Header names are written with ``_`` for ``-``."""
    return Response(
        json.dumps(content),
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
        "application/json",
    )
