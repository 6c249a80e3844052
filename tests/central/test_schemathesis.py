"""A served central against its own description: whatever is asked, the answer is one that OpenAPI tells, and never a 5xx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from prism_vault_agent.central.access.permission import NEEDS
from prism_vault_agent.central.http.reading import LONGEST_WAIT
from tests.support.soak import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemathesis import Case
    from schemathesis.schemas import APIOperation

    from tests.support.central import CentralProcess

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
WAITS = [str(seconds) for seconds in range(LONGEST_WAIT + 1)]
STREAM = "/v1/signals"  # has no end; tests/central/test_signal_stream.py asks it


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("role", ["operator", "agent", "nobody"])
def test_every_answer_is_described(central: CentralProcess, role: str, mode: GenerationMode):
    """Each operation, asked with what its schema allows, or with what it does not, gives a described status, type and body.

    What the schema does not allow is answered with a problem: nothing is taken that is not described.
    """
    token = {"operator": central.operator_token, "agent": central.agent_tokens["server1"], "nobody": "none"}[role]
    asked = set()
    for operation in operations(central):
        if operation.path == STREAM or (mode.is_negative and not takes_anything(operation)):
            continue
        asked.add(operation.path)

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=count(6, 300) if reads(operation, role) else 6,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Case[Any]) -> None:
            if str(case.query.get("wait")) in WAITS:
                case.query["wait"] = 0  # a long poll is no error, and no test's time
            answer = case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, checks=CHECKS)
            if wrong(case):
                assert 400 <= answer.status_code < 500, (answer.status_code, case.as_curl_command())
                assert answer.headers["content-type"] == ["application/problem+json"], case.as_curl_command()

        ask()

    assert len(asked) > 10


def operations(central: CentralProcess) -> Iterator[APIOperation[Any, Any, Any, Any]]:
    """Yield what a served central says that it can be asked."""
    with central.client("none") as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    schema.config.update(base_url=central.url)
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        yield result.ok()


def reads(operation: APIOperation[Any, Any, Any, Any], role: str) -> bool:
    """Tell whether an operation looks at what this role sends; else it refuses who asks, whatever that is."""
    need = NEEDS[operation.method.upper(), operation.path]
    return need is None or role in need.roles


def takes_anything(operation: APIOperation[Any, Any, Any, Any]) -> bool:
    """Tell whether an operation has input at all, so that some of it can be wrong."""
    return any(len(part) for part in (operation.path_parameters, operation.query, operation.headers, operation.body))


def wrong(case: Case[Any]) -> bool:
    """Tell whether a part that the operation reads is not as the schema says: path, body, or a query of plain values.

    Of headers it reads those of the protocol alone. How a list or an object would be said in a query, nothing says.
    """
    assert case.meta is not None
    wrong = {place for place, part in case.meta.components.items() if part.mode.is_negative} - {ParameterLocation.HEADER}
    if not len(case.operation.query) or not all(isinstance(value, str | int) for value in case.query.values()):
        wrong.discard(ParameterLocation.QUERY)
    return bool(wrong)
