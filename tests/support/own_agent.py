"""Agents with a role of their own behind a stack's proxy, and what they did."""

from __future__ import annotations

import contextlib
import json
import secrets
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agent import AgentProcess
    from tests.support.fault_proxy import Seen
    from tests.support.stack import Stack


@contextlib.contextmanager
def own_agent(made: Stack, *, more: str = "", files: tuple[str, str] | None = None, **options: Any) -> Iterator[AgentProcess]:
    """Run an agent behind the proxy with an AppRole role of its own; options are those of the role and of ``AgentProcess``."""
    passed = {name: options.pop(name) for name in ("central", "central_lines", "before", "auth") if name in options}
    name = f"role-{secrets.token_hex(4)}"
    role_id, secret_id = files or tuple(map(str, made.openbao.approle(name, ["prism-vault"], **options)))
    passed.setdefault("auth", f'method = "approle"\nrole_id_file = "{role_id}"\nsecret_id_file = "{secret_id}"\n{more}')
    with made.second(vault_address=made.to_openbao.address, **passed) as agent:
        agent.secret_id = secret_id  # type: ignore[attr-defined]  # of this test
        yield agent


def logged(agent: AgentProcess, event: str) -> list[dict[str, Any]]:
    """Return what the agent has logged under this name."""
    lines = [json.loads(line) for line in agent.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def asked(made: Stack, path: str, since: int) -> list[Seen]:
    """Return the requests for ``path`` at OpenBao behind the first ``since``."""
    return [seen for seen in made.to_openbao.seen[since:] if seen.path == f"/v1/{path}"]
