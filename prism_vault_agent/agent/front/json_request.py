"""From the JSON of a request, except exec, to what it asks. Pure. Raises ``BadRequest`` for what it does not understand."""

from __future__ import annotations

import json
from typing import Any

from prism_vault_agent.agent.front.http import BadRequest
from prism_vault_agent.audit.target import ANY, Target
from prism_vault_agent.model import Request
from prism_vault_agent.scope import Purpose, ScopeName


def plan(body: bytes) -> Request:
    """Return the request that a plan is about."""
    asked = _object(body)
    scopes = asked.get("scopes", [])
    if not isinstance(scopes, list) or not all(isinstance(name, str) for name in scopes):
        raise BadRequest(400, "scopes is not a list of names")
    purpose = _text(asked, "purpose")
    return Request(
        scopes=tuple(ScopeName(name) for name in scopes),
        purpose=Purpose(purpose) if purpose else None,
        run_ref=_text(asked, "run_ref"),
        job_id=_text(asked, "job_id"),
    )


def diff(body: bytes) -> bool:
    """Return whether a plan is to tell what is rendered, too."""
    return _object(body).get("diff") is True


def target(body: bytes) -> Target:
    """Return what a rotation or a revocation on this host is about: a scope, a reference or a run."""
    asked = _object(body)
    conditions = {name: _text(asked, name) for name in ("scope", "reference", "run_ref")}
    try:
        return Target.parse(conditions, [ANY])
    except ValueError:
        raise BadRequest(400, "say a scope, a reference vault://MOUNT/PATH[#KEY], or a run_ref") from None


def clear(body: bytes) -> tuple[ScopeName, ...] | None:
    """Return the scopes that are to be cleared; None for all."""
    asked = _object(body)
    if asked.get("all") is True:
        return None
    return plan(body).scopes


def _object(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest(400, "the body is not JSON, or is nested too deeply") from None
    if not isinstance(asked, dict):
        raise BadRequest(400, "the body is not a JSON object")
    return asked


def _text(asked: dict[str, Any], key: str) -> str | None:
    text = asked.get(key)
    if text is not None and not isinstance(text, str):
        raise BadRequest(400, f"{key} is not text")
    return text
