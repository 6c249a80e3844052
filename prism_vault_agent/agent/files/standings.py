"""How it stands with each consumer, kept in a file of the agent's state, so that the next agent knows who is still to be told.

JSON without values: scope, consumer, and the fields of ``Standing``. Mode 0600. What it says of files that are not there any more
is dropped when it is read: files are in memory, and this is not.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.agent.kept import keep
from prism_vault_agent.notify.due import Standing

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from prism_vault_agent.scope import ScopeName

log = structlog.get_logger()

LARGEST: Final = 64 * 1024 * 1024


class Standings:
    """The standings by scope and consumer."""

    def __init__(self, path: str) -> None:
        """Keep them in ``path``, whose directory exists."""
        self._path = path
        self._kept: dict[ScopeName, dict[str, Standing]] = {}
        self._texts: dict[ScopeName, str] = {}
        self._saved = True

    def load(self, scopes: Container[ScopeName]) -> None:
        """Read what an earlier agent kept of these scopes. What cannot be read is as if nothing had been kept."""
        try:
            with open(self._path, "rb") as file:
                plain = json.loads(file.read(LARGEST))
            found = {scope: {name: _standing(each) for name, each in kept.items()} for scope, kept in plain.items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("notify.forgotten", path=self._path, error=type(error).__name__, message="who is not told yet is not known")
            return
        self._kept = {scope: kept for scope, kept in found.items() if scope in scopes}
        self._saved = False

    def of(self, scope: ScopeName, consumer: str) -> Standing | None:
        """Return how it stands; None where nothing is known of it."""
        return self._kept.get(scope, {}).get(consumer)

    def put(self, scope: ScopeName, consumer: str, standing: Standing) -> None:
        """Note how it stands from now on."""
        if self.of(scope, consumer) != standing:
            self._kept.setdefault(scope, {})[consumer] = standing
            self._changed(scope)

    def keep(self, scope: ScopeName, consumers: Iterable[str]) -> None:
        """Forget the consumers of a scope that are not among these."""
        gone = self._kept.get(scope, {}).keys() - set(consumers)
        for consumer in gone:
            del self._kept[scope][consumer]
        if gone:
            self._changed(scope)

    def forget(self, scope: ScopeName) -> None:
        """Forget all consumers of a scope."""
        if self._kept.pop(scope, None):
            self._changed(scope)

    def save(self) -> None:
        """Write what changed, whole or not at all. A disk that does not take it is told; the agent goes on with what it knows."""
        if self._saved:
            return
        for scope in self._kept.keys() - self._texts.keys():
            kept = {consumer: asdict(each) for consumer, each in self._kept[scope].items()}
            self._texts[scope] = f"{json.dumps(scope)}: {json.dumps(kept)}"
        try:
            keep(self._path, "{" + ",\n".join(self._texts.values()) + "}\n")
        except OSError as error:
            message = "an agent that is killed now forgets whom to tell"
            log.error("notify.not_kept", path=self._path, errno=error.errno, message=message)
            return
        self._saved = True

    def _changed(self, scope: ScopeName) -> None:
        self._texts.pop(scope, None)
        self._saved = False


def _standing(plain: dict[str, object]) -> Standing:
    return Standing(**{**plain, "begun": tuple(plain["begun"])})  # type: ignore[arg-type]  # a wrong type is caught by who reads
