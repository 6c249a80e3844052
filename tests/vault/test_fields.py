"""Fields of an answer, taken with their type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from prism_vault_agent.errors import ProtocolError
from prism_vault_agent.vault import fields

WRONG: list[tuple[Callable[[dict[str, Any], str], object], list[Any]]] = [
    (fields.mapping, [None, [], "CANARY", 1]),
    (fields.text, [None, 1, ["CANARY"], {"CANARY": 1}]),
    (fields.texts, ["CANARY", [1], {"CANARY": 1}]),
    (fields.flag, ["CANARY", 1, ["CANARY"]]),
    (fields.seconds, [None, "60", 1.5, True, -1, -(2**63)]),
]


@pytest.mark.parametrize(("take", "value"), [(take, value) for take, values in WRONG for value in values])
def test_a_field_of_another_type_is_a_protocol_error(take: Callable[..., object], value: object) -> None:
    """The error names the field and nothing of what it held."""
    with pytest.raises(ProtocolError) as refused:
        take({"wanted": value}, "wanted")
    assert "wanted" in refused.value.line()
    assert "CANARY" not in refused.value.line()


@pytest.mark.parametrize(("given", "taken"), [(0, 0), (3600, 3600), (2**63, 315_360_000)])
def test_a_duration_is_clamped(given: int, taken: int) -> None:
    """No duration of an answer is negative or longer than ten years, whatever the server says (F13)."""
    assert fields.seconds({"ttl": given}, "ttl") == taken


def test_what_may_be_missing_has_its_default() -> None:
    """Null and missing are the same, where a field may be missing."""
    for data in ({}, {"f": None}):
        assert (fields.text(data, "f", ""), fields.texts(data, "f"), fields.flag(data, "f")) == ("", (), False)
