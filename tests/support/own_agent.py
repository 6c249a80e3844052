"""Agents with a role of their own behind a stack's proxy, what they did, and how an exec that fails ends."""

from __future__ import annotations

import contextlib
import json
import secrets
from typing import TYPE_CHECKING, Any

from tests.support import history

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agent import AgentProcess
    from tests.support.fault_proxy import Seen
    from tests.support.stack import Stack


@contextlib.contextmanager
def own_agent(made: Stack, *, more: str = "", files: tuple[str, str] | None = None, **options: Any) -> Iterator[AgentProcess]:
    """Run an agent behind the proxy with an AppRole role of its own; options are those of the role and of ``AgentProcess``."""
    passed = {name: options.pop(name) for name in ("central", "central_lines", "before", "auth", "host") if name in options}
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


def provider_end(
    made: Stack, status: int, reason: str, *told: str, scope: str = "web", options: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Run an exec that fails, and return the row of its end, which must be the only one and tell ``reason``."""
    before = len(made.settle())
    done = made.agent.exec("--scope", scope, *options, "--", "/bin/sh", "-c", 'echo "ran $CANARY"')
    assert (done.returncode, done.stdout) == (status, ""), (done, made.agent.log[-3000:])
    assert done.stderr.startswith(f"prism-vault: scope {scope}: ")
    assert done.stderr.count("\n") == 1
    assert made.canary not in done.stderr
    for each in told:
        assert each in done.stderr
    made.settle()
    rows = made.rows(before)
    end = rows[-1]
    assert history.kinds(rows) == ["reserved", "denied" if status == 77 else "failure"]
    assert end["reason"] == reason
    assert f"(pva_{end['reservation']})\n" in done.stderr
    return end
