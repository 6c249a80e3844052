"""What ``GET /v1/signals`` answers where it does not stream: the refusals that the OpenAPI document tells, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.central.access import made
from tests.central.test_schemathesis import CHECKS, STREAM, operations

if TYPE_CHECKING:
    from tests.support.central import CentralProcess

BEYOND = "9" * 18


@pytest.mark.parametrize(
    ("headers", "query", "status", "code"),
    [
        ({"Last-Event-ID": "seven"}, {}, 400, "query"),
        ({"Last-Event-ID": "-1"}, {}, 400, "query"),
        ({"Last-Event-ID": "1.5"}, {}, 400, "query"),
        ({"Last-Event-ID": "9" * 40}, {}, 400, "query"),
        ({"Last-Event-ID": BEYOND}, {}, 409, "ahead"),
        ({"Last-Event-ID": str(2**63 - 1)}, {}, 409, "ahead"),
        ({"Last-Event-ID": str(2**63)}, {}, 400, "query"),
        ({}, {"after": "seven"}, 400, "query"),
        ({}, {"after": BEYOND}, 409, "ahead"),
        ({}, {"epoch": "0" * 31}, 400, "query"),
        ({}, {"epoch": "G" * 32}, 400, "query"),
        ({}, {"since": "7"}, 400, "query"),
        ({"Last-Event-ID": "0"}, {"epoch": "?"}, 400, "query"),
    ],
)
def test_a_wrong_position_is_a_described_problem(
    central: CentralProcess, headers: dict[str, str], query: dict[str, str], status: int, code: str
):
    """A position that is none, or is ahead of the log, gives the status, type, headers and body that are described."""
    assert answer(central, central.agent_tokens["server1"], headers, query) == (status, code)


def test_who_may_not_follow_is_told_so(central: CentralProcess):
    """No credential, an unknown one, one without the scope and one that is revoked are refused as described."""
    narrow = made(central, scopes=["audit:read"])
    assert answer(central, "none") == (401, "unknown_token")
    assert answer(central, narrow["token"]) == (403, "insufficient_scope")
    with central.client() as client:
        assert client.delete(f"/v1/tokens/{narrow['name']}").status_code == 200
    assert answer(central, narrow["token"])[0] == 401


def answer(central: CentralProcess, token: str, headers: dict[str, str] | None = None, query: Any = None) -> tuple[int, str]:
    """Return status and code of an answer that ends, once it was held against the description."""
    (operation,) = (each for each in operations(central) if each.path == STREAM)
    case = operation.Case(headers={**(headers or {}), "Authorization": f"Bearer {token}"}, query=query or {})
    with central.client(token) as client:
        sent = client.get(STREAM, params=query or {}, headers=headers or {})
    case.validate_response(sent, checks=CHECKS)
    assert sent.headers["content-type"] == "application/problem+json"
    return sent.status_code, sent.json()["code"]
