"""An agent with given scopes, and what a command that runs under it sees: its environment, byte for byte."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
from typing import TYPE_CHECKING, Any

from prism_vault_agent.exec.environment import read_block
from tests.agent.asking import last_audit_id, rows
from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.central import CentralProcess
    from tests.support.openbao import OpenBao

Done = subprocess.CompletedProcess[bytes]

_numbers = itertools.count(1)
# A loaded machine takes its time, and none of these tests is about that.
PATIENT = ("--timeout", "60s")


@contextlib.contextmanager
def started(
    place: Path, openbao: OpenBao, central: CentralProcess, scopes: Mapping[str, Mapping[str, Any]], **options: Any
) -> Iterator[AgentProcess]:
    """Run an agent with these scopes (name to what stands in it) in a directory of its own."""
    directory = place / f"s{next(_numbers)}"
    directory.mkdir()
    agent = AgentProcess(directory, openbao, central, **options)
    for name, table in scopes.items():
        agent.scope(name, **table)
    try:
        yield agent.start()
    finally:
        agent.kill()


def run(agent: AgentProcess, *words: str, env: Mapping[Any, Any] | None = None, **options: Any) -> Done:
    """Run ``prism-vault exec WORDS`` and return how it ended, in bytes."""
    variables: dict[Any, Any] = {**agent.environment(), **(env or {})}
    return subprocess.run(
        [*options.pop("before", ()), LAUNCHER, "exec", *PATIENT, *words],
        env=variables,
        capture_output=True,
        text=False,
        check=False,
        timeout=100,
        **options,
    )


def child_environment(
    agent: AgentProcess, *scopes: str, words: tuple[str, ...] = (), env: Mapping[Any, Any] | None = None, **options: Any
) -> dict[bytes, bytes]:
    """Return the environment of a command that runs with ``scopes``, as the kernel tells it."""
    named = [word for scope in scopes for word in ("--scope", scope)]
    done = run(agent, *named, *words, "--", "/bin/cat", "/proc/self/environ", env=env, **options)
    assert done.returncode == 0, done.stderr
    return read_block(done.stdout)


def ours(environment: Mapping[bytes, bytes], agent: AgentProcess) -> dict[bytes, bytes]:
    """Return what is not of the small environment that ``run`` starts everything with."""
    return {name: value for name, value in environment.items() if name.decode("latin-1") not in agent.environment()}


def refused(agent: AgentProcess, *words: str, status: int, kinds: list[str], **options: Any) -> tuple[str, list[dict[str, Any]]]:
    """Run what must end with ``status``, without a child, as rows of these ``kinds``; return the line and the rows.

    Values that the caller may not see are ``hidden``: they must be in neither.
    """
    hidden: list[str] = options.pop("hidden", [])
    done = run(agent, *words, "--", "/bin/echo", "the command ran", **options)
    line = done.stderr.decode()
    assert (done.returncode, done.stdout) == (status, b""), line
    assert line.count("\n") == 1 and line.startswith("prism-vault: "), line
    wait_until(lambda: len(rows(agent.central, last_audit_id(line))) >= len(kinds), 60)  # the last one was not waited for
    found = rows(agent.central, last_audit_id(line))
    assert [row["kind"] for row in found] == kinds, line
    for value in hidden:
        assert value not in line and all(value not in row["body"] for row in found)
    return line, found
