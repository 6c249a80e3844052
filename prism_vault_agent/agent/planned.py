"""The answer to ``/v1/plan``: what a render would give and why, what of it is out there, and what a rotation would do to that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prism_vault_agent.policy.credentials import credentials
from prism_vault_agent.policy.decide import Denial, decide
from prism_vault_agent.policy.reactions import reactions

if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.agent.files.requests import FileRequests
    from prism_vault_agent.agent.status import Status
    from prism_vault_agent.config.settings import Settings
    from prism_vault_agent.model import Caller, Request
    from prism_vault_agent.scope import Binding


async def plan(
    settings: Settings,
    caller: Caller,
    request: Request,
    *,
    status: Status,
    leased: Callable[[Binding], bool],
    files: FileRequests | None,
) -> dict[str, Any]:
    """Return it for this caller; ``files`` tell the differences where these are asked for. Reads no value, leaves no record."""
    told: dict[str, Any] = {}
    decision = decide(settings.scopes, caller, request)
    named = [settings.scopes[name] for name in dict.fromkeys(request.scopes) if name in settings.scopes]
    shown = [scope for scope in named if status.shows(scope, caller)]
    if isinstance(decision, Denial):
        told |= {"allowed": False, "rule": decision.rule, "message": decision.message, "mend": decision.mend}
        bindings = [binding for scope in shown for binding in scope.bindings]
    else:
        told |= {"allowed": True, "rule": "", "kind": decision.kind}
        told |= {"purpose": decision.purpose, "pristine": decision.pristine}
        bindings = list(decision.bindings)
        if files is not None:
            told["differences"] = await files.differences(decision)
    told["bindings"] = [
        {"name": each.name, "reference": str(each.reference), **({"leased": True} if leased(each) else {})} for each in bindings
    ]
    told["credentials"] = [each for scope in shown for each in credentials(scope)]
    told["reactions"] = [each for scope in shown for each in reactions(scope)]
    told["given"] = _given(status, settings, caller, {scope.name for scope in shown})
    return told


def _given(status: Status, settings: Settings, asker: Caller, names: set[Any]) -> list[dict[str, Any]]:
    """Return what is out there of these scopes and is the asker's business, as ``status`` tells it: files first."""
    files = [{**each, "scopes": [each["scope"]], "pid": None} for each in status.rendered(settings, asker)]
    return [each for each in (*files, *status.running(settings, asker)) if names & set(each["scopes"])]
