"""T9: on a booted systemd that writes core dumps into its journal, environment and all, no crash leaves a secret there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.support.agent_unit import AGENT, ETC, RENDER, WEB
from tests.support.core_pattern import core_handler
from tests.support.systemd_coredump import WORDS, put_into
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.agent_unit import AgentUnit

CONTROL = "control.service"
COMMAND = "command.service"


def dumps(web: AgentUnit) -> list[dict[str, Any]]:
    """Return what the journal has of core dumps."""
    lines = web.booted.run("journalctl", "--output=json", "--all", "--no-pager", "MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1")
    return [json.loads(line) for line in lines.stdout.splitlines()]


def crash(web: AgentUnit, unit: str) -> str:
    """Have the process of a unit crash, wait until systemd knows, and return its PID."""
    pid = web.pid(unit)
    web.booted.run("systemctl", "kill", "--kill-who=main", "--signal=SEGV", unit)
    wait_until(lambda: web.pid(unit) != pid)
    return pid


def test_t9_no_crash_leaves_a_secret_in_the_journal(web):
    """A crash of a plain unit puts its environment there; of the agent, a unit with a rendered file, a command: nothing."""
    control = f"control-{web.canary[::-1]}"
    web.unit(CONTROL, f"[Service]\nType=exec\nLimitCORE=infinity\nEnvironment=CONTROL={control}\nExecStart=/bin/sleep infinity\n")
    web.unit(
        COMMAND,
        "[Service]\nType=exec\nLimitCORE=infinity\n"
        "ExecStart=/opt/prism-vault/bin/prism-vault exec --scope command -- /bin/sleep infinity\n",
    )
    web.scope("command")
    scope = web.booted.path(f"{ETC}/scopes.d/command.toml")
    scope.write_text(scope.read_text().replace("prism-vault-render@command.service", COMMAND))
    wait_until(lambda: "command" in [each["name"] for each in web.status()["scopes"]])
    for unit in (CONTROL, COMMAND):
        web.systemctl("start", unit)
    wait_until(lambda: [run for run in web.status()["runs"] if run["command"] == "sleep"])
    assert web.given(COMMAND) == web.value("command", 1)
    with core_handler(put_into(web.booted), WORDS) as directory:
        first = crash(web, CONTROL)
        wait_until(lambda: control in json.dumps(dumps(web)))
        crashed = [crash(web, unit) for unit in (WEB, COMMAND, AGENT)]
        web.systemctl("start", CONTROL)
        last = crash(web, CONTROL)
        wait_until(lambda: last in [dump["COREDUMP_PID"] for dump in dumps(web)])
        handled = (directory / "noted").read_text().split()
    told = web.booted.run("journalctl", "--output=json", "--all", "--no-pager").stdout

    assert sorted(handled) == sorted([first, last]) and not {*crashed} & {*handled}
    assert [dump["COREDUMP_PID"] for dump in dumps(web)] == [first, last]
    assert web.canary not in told
    web.systemctl("stop", RENDER)
