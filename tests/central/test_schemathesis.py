"""A served central against its own description: whatever is asked, the answer is one that OpenAPI tells, and never a 5xx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.soak import count

if TYPE_CHECKING:
    from schemathesis import Case

    from tests.support.central import CentralProcess

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
STREAM = "/v1/signals"  # has no end; tests/central/test_signal_stream.py asks it


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("role", ["operator", "agent", "nobody"])
def test_every_answer_is_described(central: CentralProcess, role: str):
    """Each operation, asked with what its schema allows and what it does not, gives a described status, type and body."""
    token = {"operator": central.operator_token, "agent": central.agent_tokens["server1"], "nobody": "none"}[role]
    with central.client("none") as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    schema.config.update(base_url=central.url)
    asked = set()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        if operation.path == STREAM:
            continue
        asked.add(operation.path)

        @given(case=operation.as_strategy())
        @settings(
            max_examples=count(6, 300),
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Case[Any]) -> None:
            if str(case.query.get("wait", "")).isdigit():
                case.query["wait"] = 0  # a long poll is no error, and no test's time
            case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, checks=CHECKS)

        ask()

    assert len(asked) > 10
