"""The commands that show and steer an agent, against a real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.agent.conftest import MakeAgent
    from tests.cli.conftest import Run
    from tests.support.agent import AgentProcess


@pytest.fixture(scope="module")
def told(agent: AgentProcess) -> dict[str, str]:
    """The environment that names the agent's socket."""
    return {"PRISM_VAULT_SOCKET": agent.socket}


@pytest.fixture
def sleeper(agent: AgentProcess) -> Iterator[subprocess.Popen[str]]:
    """A command that runs with secrets until it is ended."""
    process = agent.spawn("--scope", "web", "--run-ref", "run-7", "--", "sleep", "600")
    wait_until(lambda: any(run["pid"] == process.pid for run in agent.status()["runs"]))
    yield process
    process.kill()
    process.communicate()


def test_status_shows_the_agent_and_its_runs(agent: AgentProcess, run: Run, told, sleeper):
    """``status`` names the agent, its state, its scopes and every run with purpose, run reference, pid and age."""
    shown = run("status", **told)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "vault    logged in, token ends in " in shown.stdout
    assert "central  reachable, 0 records waiting" in shown.stdout
    (line,) = [line for line in shown.stdout.splitlines() if f" {sleeper.pid} " in line]
    assert line.split()[:4] == ["web", "test", "run-7", "-"]
    assert f" {os.getuid()} " in line
    assert "operator" in line
    assert "pva_" in line


def test_status_as_json_is_the_agents_own_answer(agent: AgentProcess, run: Run, told):
    """``status --json`` prints one JSON object with the fields that the socket's API promises."""
    status = json.loads(run("status", "--json", **told).stdout)
    assert {"version", "host", "pid", "started_at", "vault", "central", "workers", "scopes", "runs", "config", "socket"} <= set(
        status
    )
    assert status["socket"]["ours"] is True


def test_an_option_goes_before_the_environment(agent: AgentProcess, run: Run, tmp_path):
    """--socket names the agent whatever PRISM_VAULT_SOCKET says."""
    wrong = str(tmp_path / "none.sock")
    assert run("status", "--socket", agent.socket, PRISM_VAULT_SOCKET=wrong).returncode == 0
    failed = run("status", PRISM_VAULT_SOCKET=wrong)
    assert failed.returncode == 69
    assert failed.stderr == (
        f"prism-vault: no agent answers on {wrong}; start it with 'prism-vault agent' (or systemctl start prism-vault-agent)\n"
    )


def test_plan_shows_names_and_sources_without_values(agent: AgentProcess, run: Run, told):
    """``plan`` says what a command would get and why it may; it reads nothing, and leaves no row."""
    before = len(agent.central.events())
    shown = run("plan", "web", **told)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "allowed for a caller of kind operator, purpose test" in shown.stdout
    assert "URL   vault://secret/web#url" in shown.stdout
    assert "canary" not in shown.stdout
    plan = json.loads(run("plan", "web", "--purpose", "test", "--json", **told).stdout)
    assert (plan["allowed"], plan["pristine"]) == (True, False)
    assert plan["bindings"] == [{"name": "URL", "reference": "vault://secret/web#url"}]
    assert len(agent.central.events()) == before


def test_plan_names_the_rule_that_denies(run: Run, told):
    """A denied plan exits with 77 and names the rule and how to satisfy it."""
    shown = run("plan", "web", "--purpose", "debug", **told)
    assert shown.returncode == 77
    assert shown.stdout.startswith("denied by rule purpose_not_allowed")
    assert shown.stderr == "prism-vault: scope web: debug is not one of its purposes; use one of: test\n"
    assert run("plan", "web", "--purpose", "debug", "--json", **told).returncode == 77
    assert run("plan", "nothing", **told).returncode == 77


def test_revoke_ends_a_run(agent: AgentProcess, run: Run, told, sleeper):
    """``revoke`` ends the processes of the run that is named, says how, and the run is gone."""
    shown = run("revoke", "--run-ref", "run-7", **told)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"pid {sleeper.pid}: " in shown.stdout
    assert sleeper.wait(20) == -signal.SIGTERM
    assert not [one for one in agent.status()["runs"] if one["pid"] == sleeper.pid]


def test_revoke_of_nothing_is_told(run: Run, told):
    """A reference that no run has is a usage error, never silence."""
    failed = run("revoke", "--run-ref", "no-such-run", **told)
    assert failed.returncode == 64
    assert failed.stderr == "prism-vault: no run has that reference; see prism-vault status\n"


def test_what_is_no_agent_is_told(run: Run, tmp_path):
    """A file, and a socket of something else, are not taken for an agent."""
    file = tmp_path / "file"
    file.touch()
    assert run("status", "--socket", str(file)).returncode == 69
    place = str(tmp_path / "s")
    listen = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); s.accept()[0].send(b'no\\n')"
    )
    other = subprocess.Popen([sys.executable, "-c", listen, place])
    wait_until((tmp_path / "s").exists)
    failed = run("status", "--socket", place)
    other.wait(20)
    assert failed.returncode == 76
    assert "is not an agent of this version; restart the agent" in failed.stderr


@pytest.mark.root
def test_a_socket_that_is_closed_to_us_is_told(agent: AgentProcess, told):
    """Without the right to the socket the command says so, and who to ask."""
    from prism_vault_agent.cli import socket  # noqa: PLC0415 - in the child only
    from prism_vault_agent.errors import Denied  # noqa: PLC0415 - as above
    from tests.support.as_user import in_child  # noqa: PLC0415 - as above

    with pytest.raises(Denied, match="you may not use the agent's socket"):
        in_child(lambda: socket.ask(agent.socket, "GET", "/v1/status")[0])


def test_config_check_and_show(agent: AgentProcess, run: Run):
    """``config check`` says what is read; show prints it as JSON; both name the file that the agent uses."""
    config = str(agent.config)
    checked = run("config", "check", "--config", config)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout == f"{config}: valid, 2 files, 1 scopes\n"
    shown = json.loads(run("config", "show", PRISM_VAULT_CONFIG=config).stdout)
    assert shown["agent"]["socket"] == agent.socket
    assert shown["scopes"]["web"]["bindings"][0]["reference"] == {"path": "secret/web", "key": "url", "version": None}


def test_config_check_tells_everything_that_is_wrong(run: Run, tmp_path):
    """``check`` prints one line for each problem, with file and line, and exits with 78."""
    tmp_path.chmod(0o700)
    config = tmp_path / "agent.toml"
    config.write_text("[vault]\nadress = 1\n[central]\nurl = 2\n")
    config.chmod(0o600)
    failed = run("config", "check", "--config", str(config))
    assert failed.returncode == 78
    lines = failed.stderr.splitlines()
    assert [line.split(": ")[2] for line in lines] == ["vault.adress", "central.url", "vault.address", "vault.auth"]
    assert all(line.startswith(f"prism-vault: {config}:") for line in lines)


def test_the_schema_describes_every_key(run: Run):
    """``config schema`` is a JSON Schema in which every property has a description."""
    schema = json.loads(run("config", "schema").stdout)
    for name, section in {"": schema, **schema["$defs"]}.items():
        assert section["additionalProperties"] is False, name
        for key, value in section["properties"].items():
            assert "description" in value, f"{name}.{key}"


def test_doctor_on_a_healthy_host(agent: AgentProcess, run: Run):
    """With an agent, a provider and a central that work, everything that the configuration needs holds."""
    done = run("doctor", "--config", str(agent.config), "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    wanting = [check for check in checks.values() if check["needed"] and check["state"] == "does not hold"]
    assert wanting == []
    assert (done.returncode, done.stderr) == (0, "")
    for name in (
        "the provider answers",
        "central answers",
        "our clock and central's agree",
        "the agent serves on its own socket",
    ):
        assert checks[name]["state"] == "holds", checks[name]
    lines = run("doctor", "--config", str(agent.config)).stdout.splitlines()
    assert len(lines) == len(checks)
    assert all(line.startswith(("holds ", "does not hold ", "unknown ")) for line in lines)


def test_doctor_names_what_is_missing(make_agent: MakeAgent, run: Run):
    """What does not hold has its reason and its mend, and a needed one gives exit status 78."""
    agent = make_agent(vault_address="http://127.0.0.1:9", central_url="http://127.0.0.1:9")
    (agent.directory / "central.token").chmod(0o644)
    done = run("doctor", "--config", str(agent.config))
    assert done.returncode == 78
    lines = {line.split("  ", 2)[-1].strip(): line for line in done.stdout.splitlines()}
    for name, why in {
        "the provider answers (needed)": "127.0.0.1 cannot be reached (Connection refused); check [vault] address",
        "central answers (needed)": "127.0.0.1 cannot be reached (Connection refused); check [central] url",
        "central.token is ours alone (needed)": "mode 0644; chmod go= ",
        "the agent serves on its own socket": "no agent answers on",
    }.items():
        (line,) = [line for text, line in lines.items() if name in text]
        assert line.startswith("does not hold")
        assert why in line
    assert done.stderr.startswith("prism-vault: needed and does not hold: ")


def test_doctor_without_a_configuration(run: Run, tmp_path):
    """Without a valid configuration doctor still tells about the host, and says what is wrong."""
    done = run("doctor", "--config", str(tmp_path / "none.toml"))
    assert done.returncode == 78
    assert "there is no such configuration file; write one" in done.stdout
    assert "callers are known by process descriptor" in done.stdout


def test_the_agent_command_tells_a_bad_configuration(run: Run, tmp_path):
    """Nothing is started with a configuration that is not valid (F59)."""
    done = run("agent", "--config", str(tmp_path / "none.toml"))
    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
