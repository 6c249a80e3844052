"""What was read and stands no longer: its runs end within one poll (F14, G6), and nothing goes back to an older value (F16)."""

from __future__ import annotations

import contextlib
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.asking import eventually, rows
from tests.agent.started import PATIENT, child_environment, ours, refused, started
from tests.support.fault_proxy import Fault, FaultProxy, always

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.support.agent import AgentProcess
    from tests.support.openbao import OpenBao

POLICY = """
path "held/data/*" { capabilities = ["read"] }
path "held/metadata/*" { capabilities = ["read"] }
path "held/metadata/closed" { capabilities = ["deny"] }
"""
NAMES = ("deleted", "destroyed", "erased", "rotated", "closed", "late", "stale", "anew", "pinned")


@pytest.fixture(scope="module")
def proxy(openbao) -> Iterator[FaultProxy]:
    """What stands between the agent and OpenBao and can answer in its place."""
    with FaultProxy(openbao.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def agent(place, openbao, central, proxy) -> Iterator[AgentProcess]:
    """An agent that looks every second whether what it gave out still stands."""
    openbao.mount_kv("held")
    openbao.policy("held", POLICY)
    role_id, secret_id = openbao.approle("held", ["held"])
    auth = f'method = "approle"\nrole_id_file = "{role_id}"\nsecret_id_file = "{secret_id}"\n'
    scopes: dict[str, dict[str, Any]] = {name: {"env": {"V": f"vault://held/{name}#v"}} for name in NAMES}
    scopes["late"]["poll"] = "60s"
    scopes["pinned"] = {"env": {"V": "vault://held/pinned#v?version=1"}}
    for name in NAMES:
        openbao.kv_put(f"held/{name}", {"v": "1"})
    with started(place, openbao, central, scopes, vault_address=proxy.address, auth=auth, vault='poll = "1s"') as agent:
        yield agent


@contextlib.contextmanager
def running(agent: AgentProcess, scope: str) -> Iterator[subprocess.Popen[str]]:
    """Have a command run with a scope, watched by the agent."""
    child = agent.spawn(*PATIENT, "--scope", scope, "--", "/bin/sleep", "600")
    try:
        eventually(lambda: any(each["pid"] == child.pid for each in agent.status()["runs"]))
        yield child
    finally:
        child.kill()
        child.communicate()


def delete(openbao: OpenBao) -> None:
    """Delete the newest version."""
    openbao.must("DELETE", "held/data/deleted")


def destroy(openbao: OpenBao) -> None:
    """Destroy the version for good."""
    openbao.must("PUT", "held/destroy/destroyed", {"versions": [1]})


def erase(openbao: OpenBao) -> None:
    """Delete the secret with all of its versions."""
    openbao.must("DELETE", "held/metadata/erased")


@pytest.mark.parametrize(
    ("scope", "withdraw", "reason"),
    [("deleted", delete, "secret_deleted"), ("destroyed", destroy, "secret_destroyed"), ("erased", erase, "secret_no_such_path")],
)
def test_f14_a_run_ends_when_its_secret_is_withdrawn(agent, openbao, scope, withdraw, reason):
    """A run whose secret is deleted, destroyed or erased at the provider is ended, with a row that says why; others live."""
    with running(agent, scope) as child, running(agent, "rotated") as other:
        audit_id = next(each["id"] for each in agent.status()["runs"] if each["pid"] == child.pid)
        withdraw(openbao)
        eventually(lambda: child.poll() is not None)
        assert child.returncode == -signal.SIGTERM
        eventually(lambda: rows(agent.central, audit_id)[-1]["kind"] == "cleared")
        assert rows(agent.central, audit_id)[-1]["fields"]["reason"] == reason
        assert other.poll() is None


def test_a_newer_version_or_closed_metadata_withdraws_nothing(agent, openbao, proxy):
    """A newer version, or metadata that we may not read, ends no run."""
    with running(agent, "rotated") as rotated, running(agent, "closed") as closed:
        openbao.kv_put("held/rotated", {"v": "2"})
        openbao.must("DELETE", "held/data/closed")
        before = proxy.count(lambda seen: "/metadata/" in seen.path)
        eventually(lambda: proxy.count(lambda seen: "/metadata/" in seen.path) >= before + 4)
        assert rotated.poll() is None and closed.poll() is None
    assert child_environment(agent, "rotated")[b"V"] == b"2"


def test_a_version_with_an_end_is_withdrawn_at_its_end(agent, openbao):
    """A version that is to be deleted at a time to come lives until then, and is withdrawn then, however seldom it is polled."""
    openbao.must("POST", "held/metadata/late", {"delete_version_after": "8s"})
    openbao.kv_put("held/late", {"v": "short"})
    with running(agent, "late") as child:
        eventually(lambda: child.poll() is not None)
    assert child.returncode == -signal.SIGTERM


def test_a_failing_poll_ends_nothing_and_is_asked_again(agent, openbao, proxy):
    """While metadata cannot be read nobody is ended for that; the next poll finds what was withdrawn meanwhile."""
    openbao.kv_put("held/deleted", {"v": "again"})
    with running(agent, "deleted") as child:
        fault = always(Fault("answer", status=500), lambda seen: "/metadata/" in seen.path)
        with proxy.failing(fault):
            openbao.must("DELETE", "held/data/deleted")
            eventually(lambda: '"watch.path_failed"' in agent.log)
            assert child.poll() is None
        eventually(lambda: child.poll() is not None)


def test_one_bad_secret_holds_up_no_other(agent, openbao, proxy):
    """A path whose metadata cannot be asked for is told once and left for later; what else was withdrawn is found."""
    openbao.kv_put("held/deleted", {"v": "again"})
    with running(agent, "rotated") as bad, running(agent, "deleted") as other:
        fault = always(Fault("answer", status=200, body=b"{}"), lambda seen: seen.path.endswith("/metadata/rotated"))
        with proxy.failing(fault):
            eventually(lambda: _told(agent, "watch.path_failed", "held/rotated"))
            openbao.must("DELETE", "held/data/deleted")
            eventually(lambda: other.poll() is not None)
            assert bad.poll() is None
        eventually(lambda: _told(agent, "watch.path_answers", "held/rotated"))
        assert len(_told(agent, "watch.path_failed", "held/rotated")) == 1


def _told(agent: AgentProcess, event: str, path: str) -> list[str]:
    return [line for line in agent.log.splitlines() if f'"{event}"' in line and path in line]


def test_f16_an_older_version_after_a_newer_one_is_refused(agent, openbao, proxy):
    """A lagging replica that answers an older version than the agent has seen makes a temporary error, and no run."""
    openbao.kv_put("held/stale", {"v": "new"})
    assert ours(child_environment(agent, "stale"), agent) == {b"V": b"new"}
    old = openbao.must("GET", "held/data/stale?version=1")
    fault = always(Fault("answer", status=200, body=json.dumps(old).encode()), lambda seen: seen.path.endswith("/data/stale"))
    with proxy.failing(fault):
        line, found = refused(agent, "--scope", "stale", status=75, kinds=["reserved", "failure"])
    assert "version 1 of vault://held/stale, after a later one" in line
    assert found[1]["fields"]["reason"] == "stale_read"
    assert ours(child_environment(agent, "stale"), agent) == {b"V": b"new"}


def test_f16_a_secret_written_anew_and_a_pinned_version_are_not_stale(agent, openbao):
    """A path that was erased and written again counts from 1 again, and a pinned version is what was asked for."""
    openbao.kv_put("held/anew", {"v": "2"})
    assert child_environment(agent, "anew")[b"V"] == b"2"
    openbao.must("DELETE", "held/metadata/anew")
    openbao.kv_put("held/anew", {"v": "first again"})
    assert child_environment(agent, "anew")[b"V"] == b"first again"
    openbao.kv_put("held/pinned", {"v": "2"})
    assert child_environment(agent, "pinned")[b"V"] == b"1"
