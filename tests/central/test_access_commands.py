"""``prism-vault central token`` and ``policy`` as an operator types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.central.access import code, new_name
from tests.central.host import Host
from tests.support.central import CentralProcess

ALLOW = "--project prism --environment lan --scope extra --host * --kind service --purpose service".split()
ASK = "--project prism --environment lan --scope extra --host server1 --kind service".split()


def command(central: CentralProcess, *words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``prism-vault central WORDS``, by default with the operator's token."""
    environment = {
        **os.environ,
        "PRISM_VAULT_CENTRAL_URL": central.url,
        "PRISM_VAULT_OPERATOR_TOKEN": central.operator_token if token is None else token,
    }
    run = [sys.executable, "-m", "prism_vault_agent", "central", *words]
    return subprocess.run(run, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_a_token_is_made_listed_and_revoked(central):
    """``create`` prints the token alone on stdout; it works until ``revoke``; ``list`` shows who made it and its state."""
    created = command(central, "token", "create", "cli-1", "--role", "operator", "--project", "prism", "--expires", "1h")
    token = created.stdout.strip()
    believed = code(central, token)
    revoked = command(central, "token", "revoke", "cli-1")
    listed = command(central, "token", "list")
    line = next(line for line in listed.stdout.splitlines() if "cli-1" in line)

    assert (created.returncode, believed, revoked.returncode) == (0, "ok", 0)
    assert code(central, token) == "token_revoked"
    assert "audit:read" in line
    assert "revoked by test-operator" in line
    assert token not in created.stderr + listed.stdout


def test_the_first_token_is_made_in_the_database(tmp_path):
    """With ``--config`` a token is made without any credential, believed by the central that runs, and its row says by whom."""
    with CentralProcess(tmp_path) as central:
        words = ["token", "create", "root", "--role", "operator", "--project", "*", "--scope", "tokens:write"]
        made = command(central, *words, "--config", str(central.config_file), token="")
        again = command(central, *words, "--database", str(central.database), token="")
        token = made.stdout.strip()
        second = command(central, "token", "create", "two", "--role", "operator", "--project", "*", "--scope", "policy:write",
                         "--expires", "never", token=token)  # fmt: skip
        (row,) = central.events(kind="admin")

    assert made.returncode == 0
    assert (again.returncode, again.stdout) == (77, "")
    assert second.returncode == 77
    assert row["fields"]["by"] == {"name": f"uid {os.geteuid()}", "by": "database"}


def test_what_is_wrong_is_told_in_one_line(central):
    """Wrong words and requests that central refuses have their status, one line and no token."""
    create = ["token", "create", "x", "--role", "operator", "--project", "prism"]
    for words, status in (
        ([*create, "--expires", "soon"], 64),
        ([*create, "--scope", "hunter2"], 64),
        ([*create, "--scope", "audit:append", "--database", "/nonexistent"], 64),
        (["token", "revoke", "nobody"], 66),
        (["policy", "history", "nobody"], 66),
        (["policy", "remove", "config:1"], 64),
        (["policy", "set", "x", *ALLOW, "--if-version", "99"], 64),
    ):
        ended = command(central, *words)
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (status, "", 1), (words, ended)


def test_a_policy_is_set_explained_and_removed(central):
    """``set`` allows at once, ``explain`` says by which policy or fails with 77, ``history`` has every version."""
    name = new_name()
    before = command(central, "policy", "explain", *ASK, "--purpose", "service")
    done = command(central, "policy", "set", name, *ALLOW, "--if-version", "0")
    why = command(central, "policy", "explain", *ASK, "--purpose", "service")
    host = Host(central)
    status = host.send(host.make("reserved", scopes=["extra"])).status_code
    gone = command(central, "policy", "remove", name)
    history = json.loads(command(central, "policy", "history", name, "--json").stdout)["versions"]

    assert (before.returncode, done.returncode, why.returncode, gone.returncode) == (77, 0, 0, 0)
    assert name in why.stdout
    assert status == 201
    assert [version["removed"] for version in history] == [False, True]
    assert "config:1" in command(central, "policy", "list").stdout
