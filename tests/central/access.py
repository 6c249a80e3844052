"""An operator who makes tokens and policies, and what they then allow."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from tests.support.central import ALLOW_ALL

if TYPE_CHECKING:
    import httpx2

    from tests.support.central import CentralProcess

    Headers = dict[str, str] | None
NUMBERS = itertools.count(1)
RULE = {**ALLOW_ALL[0], "project": "prism", "environment": "lan", "scopes": ["extra"]}


def make(central: CentralProcess, maker: str | None = None, **more: Any) -> httpx2.Response:
    """Ask for an operator's token of project prism, by default as the operator of everything; ``more`` adds or replaces."""
    asked = {"name": f"token-{next(NUMBERS)}", "role": "operator", "projects": ["prism"], "expires_in": 600}
    with central.client(maker) as client:
        return client.post("/v1/tokens", json={**asked, **more})


def made(central: CentralProcess, maker: str | None = None, **more: Any) -> dict[str, Any]:
    """Return the answer to a token that was made."""
    answer = make(central, maker, **more)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


def code(central: CentralProcess, token: str, path: str = "/v1/audit/events") -> str:
    """Return ``ok`` where a token may read ``path``, else the code of the problem."""
    with central.client(token) as client:
        answer = client.get(path)
    return "ok" if answer.status_code == 200 else str(answer.json()["code"])


def new_name() -> str:
    """Return a name that no policy had before."""
    return f"policy-{next(NUMBERS)}"


def put(central: CentralProcess, name: str, *, by: str | None = None, headers: Headers = None, **more: Any) -> httpx2.Response:
    """Set a policy of project prism that allows scope ``extra``; ``more`` replaces parts of the rule."""
    with central.client(by) as client:
        return client.put(f"/v1/policies/{name}", json={**RULE, **more}, headers=headers)


def remove(
    central: CentralProcess, name: str, *, by: str | None = None, headers: dict[str, str] | None = None
) -> httpx2.Response:
    """Remove a policy."""
    with central.client(by) as client:
        return client.delete(f"/v1/policies/{name}", headers=headers)


def get(central: CentralProcess, path: str = "", *, by: str | None = None, **query: Any) -> dict[str, Any]:
    """Return what a reading route of policies tells."""
    with central.client(by) as client:
        answer = client.get(f"/v1/policies{path}", params=query)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told
