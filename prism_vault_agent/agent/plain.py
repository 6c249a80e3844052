"""Parts of the model as plain data, as a worker's job and the agent's journals have them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import DataclassInstance

    from prism_vault_agent.scope import Binding


def flat(value: DataclassInstance) -> dict[str, Any]:
    """Return the fields of a dataclass with what they hold; ``asdict`` would copy that deeply, for each of many."""
    return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}


def bound(bindings: Iterable[Binding]) -> list[list[Any]]:
    """Return each binding's name, reference, and what is wanted there; ``wanted_of`` reads the last."""
    return [[each.name, str(each.reference), each.wanted and dataclasses.asdict(each.wanted)] for each in bindings]
