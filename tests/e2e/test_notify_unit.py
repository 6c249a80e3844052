"""Units of a booted systemd are told of a rotation by the agent under its shipped unit, once polkit lets it, as told."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.agent_unit import AGENT, FILES, SOCKET, AgentUnit
from tests.support.booted import INSTALLED, Booted
from tests.support.central import CentralProcess
from tests.support.openbao import OpenBao
from tests.support.roots import HERE, POLKIT
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES = "/etc/polkit-1/rules.d/50-prism-vault.rules"
UNIT = """\
[Unit]
Requires=prism-vault-render@{name}.service
After=prism-vault-render@{name}.service
[Service]
Type=exec
EnvironmentFile={files}/{name}/web.env
ExecStart=/bin/sleep infinity
ExecReload=/bin/sh -c 'echo reloaded >> /run/{name}.reloads; test ! -e /run/{name}.broken'
"""


class Consumers:
    """The machine, with units that read the files of a scope of their own name and are told of it."""

    def __init__(self, host: AgentUnit) -> None:
        self.host = host
        self.numbers: dict[str, int] = {}

    def unit(self, name: str, action: str, **limits: str) -> str:
        """Make a unit and its scope, and start it; return the name."""
        self.host.unit(f"{name}.service", UNIT.format(name=name, files=FILES))
        self.scope(name, action, **limits)
        wait_until(lambda: name in [each["name"] for each in self.host.status()["scopes"]])
        self.host.systemctl("start", f"{name}.service")
        return name

    def scope(self, name: str, action: str, **limits: str) -> None:
        """Write the scope; ``limits`` are TOML."""
        more = "".join(f", {key} = {value}" for key, value in limits.items())
        notify = f'{{ unit = "{name}.service", action = "{action}", min_interval = "0s"{more} }}'
        self.host.scope(name, f"notify = {notify}")
        self.numbers[name] = 1

    def rewrite(self, name: str, old: str, new: str) -> None:
        """Change the file of a scope."""
        path = self.host.booted.path(f"/etc/prism-vault/scopes.d/{name}.toml")
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def rotate(self, name: str) -> None:
        """Give the secret a new value, and wait until it is in the file."""
        self.numbers[name] += 1
        self.host.rotate(name, self.numbers[name])
        wait_until(lambda: self.host.holds(name, self.numbers[name]))

    def reloads(self, name: str) -> int:
        """Return how often the unit was reloaded."""
        path = self.host.booted.path(f"/run/{name}.reloads")
        return path.read_text().count("\n") if path.exists() else 0

    def told(self, name: str) -> dict[str, Any]:
        """Return what status says of the unit."""
        (rendered,) = (each for each in self.host.status()["files"] if each["scope"] == name)
        (found,) = rendered["consumers"]
        return dict(found)

    def noted(self, reason: str, name: str) -> list[str]:
        """Return the messages of the rows of this reason about a scope."""
        rows = [event["fields"] for event in self.host.central.events()]
        return [row["message"] for row in rows if row.get("reason") == reason and row["message"].startswith(f"{name}: ")]

    def permit(self, *names: str) -> None:
        """Have polkit permit units by the rule of the how-to, which names one."""
        page = (HERE / "docs/systemd.md").read_text()
        rule = page.partition("```js\n")[2].partition("```")[0]
        assert rule.startswith(f"// {RULES}\n") and '["web.service"]' in rule
        units = ", ".join(f'"{name}.service"' for name in names)
        self.host.booted.path(RULES).write_text(rule.replace('"web.service"', units))
        self.host.systemctl("restart", "polkit.service")


@pytest.fixture(scope="module")
def consumers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consumers]:
    """A machine with polkit, on which the agent is set up as the how-to says."""
    own = tmp_path_factory.mktemp("central")
    with (
        OpenBao(tmp_path_factory.mktemp("openbao")) as openbao,
        CentralProcess(own) as central,
        Booted(tmp_path_factory.mktemp("booted"), our_network=True, more=POLKIT) as booted,
    ):
        host = AgentUnit(booted, openbao, central)
        wait_until(lambda: host.status()["ready"])
        yield Consumers(host)


def test_without_leave_the_refusal_is_told_and_recorded(consumers):
    """An agent that is not root is refused by systemd: status and the log say so, and how to mend it; the rule mends it."""
    name = consumers.unit("refused", "reload")
    consumers.rotate(name)
    wait_until(lambda: consumers.told(name)["failures"])
    assert consumers.told(name)["error"].startswith("systemd refuses: ")
    assert "systemd refuses: " in consumers.host.command("status").stdout
    wait_until(lambda: consumers.noted("notify_failed", name))
    assert "polkit rule of docs/systemd.md" in consumers.told(name)["error"]
    assert "polkit rule of docs/systemd.md" in consumers.host.booted.journal(AGENT)
    assert consumers.reloads(name) == 0
    consumers.permit("other")
    consumers.rotate(name)
    wait_until(lambda: consumers.told(name)["failures"] >= 2, 60)
    assert consumers.reloads(name) == 0, "a rule for another unit is none for this one"
    consumers.permit(name)
    wait_until(lambda: consumers.reloads(name) == 1, 60)
    wait_until(lambda: consumers.noted("notified", name))
    assert consumers.told(name)["error"] == ""


def test_a_rotation_reloads_a_unit(consumers):
    """The unit's own ``ExecReload=`` runs once for a rotation, and not for its start; its process goes on."""
    consumers.permit("reloaded")
    name = consumers.unit("reloaded", "reload-or-restart")
    pid = consumers.host.pid(f"{name}.service")
    assert consumers.reloads(name) == 0
    consumers.rotate(name)
    wait_until(lambda: consumers.noted("notified", name))
    assert (consumers.reloads(name), consumers.host.pid(f"{name}.service")) == (1, pid)


def test_a_restart_gives_the_new_value(consumers):
    """A unit that is restarted has the new value in its environment."""
    consumers.permit("restarted")
    name = consumers.unit("restarted", "restart")
    assert consumers.host.given(f"{name}.service") == consumers.host.value(name, 1)
    consumers.rotate(name)
    wait_until(lambda: consumers.noted("notified", name))
    assert consumers.host.given(f"{name}.service") == consumers.host.value(name, 2)


def test_a_reload_that_fails_is_a_failure(consumers):
    """A unit whose own reload fails is told by status and by a row, and is reloaded again until it works."""
    consumers.permit("broken")
    name = consumers.unit("broken", "reload")
    broken = consumers.host.booted.path(f"/run/{name}.broken")
    broken.touch()
    consumers.rotate(name)
    wait_until(lambda: consumers.told(name)["failures"])
    assert f"reload failed: Job for {name}.service failed" in consumers.told(name)["error"]
    wait_until(lambda: consumers.noted("notify_failed", name))
    broken.unlink()
    wait_until(lambda: consumers.noted("notified", name), 60)
    assert consumers.told(name)["error"] == ""


@pytest.mark.parametrize("action", ["reload", "restart", "reload-or-restart"])
def test_what_is_stopped_stays_stopped(consumers, action):
    """A unit that somebody stopped is not started by a rotation, and status says that it does not run."""
    name = f"stopped-{action}".replace("-", "_")
    consumers.permit(name)
    consumers.unit(name, action)
    consumers.host.systemctl("stop", f"{name}.service")
    consumers.rotate(name)
    wait_until(lambda: consumers.told(name)["note"] == "it does not run")
    assert not consumers.host.active(f"{name}.service")


def test_a_unit_that_fails_with_new_files_has_the_old_ones_back(consumers):
    """One that ends with the new file gets the old one back, and systemd starts it with that; a newer one is tried."""
    consumers.permit("judged")
    name = consumers.unit("judged", "restart")
    service = f"{name}.service"
    picky = "ExecStart=/bin/sh -c 'case $KEY in *-2) exit 1;; esac; exec sleep infinity'\nRestart=on-failure\nRestartSec=1s\n"
    consumers.host.unit(service, UNIT.format(name=name, files=FILES).replace("ExecStart=/bin/sleep infinity\n", picky))
    applied = consumers.host.booted.journal(AGENT).count("config.applied")
    consumers.rewrite(name, "[[scopes", '[scopes.judged.health]\nwithin = "20s"\n[[scopes')
    wait_until(lambda: consumers.host.booted.journal(AGENT).count("config.applied") > applied, 60)
    consumers.host.systemctl("restart", service)
    consumers.host.rotate(name, 2)
    wait_until(lambda: consumers.noted("files_rolled_back", name), 90)
    assert consumers.noted("files_rolled_back", name)[0].startswith(f"{name}: generation 2: ")
    assert consumers.host.holds(name, 1)
    wait_until(lambda: consumers.host.active(service), 60)
    consumers.numbers[name] = 2
    consumers.rotate(name)
    shown = consumers.host.status

    def told() -> dict[str, Any]:
        return next(each for each in shown()["files"] if each["scope"] == name)

    wait_until(lambda: not told()["judging"], 90)
    assert told()["rolled_back"] == "" and consumers.host.holds(name, 3)


def test_a_unit_that_there_is_not_is_a_failure(consumers):
    """A name that systemd does not know is told as such: it is misspelt more often than not."""
    name = consumers.unit("misspelt", "reload")
    consumers.rewrite(name, '"misspelt.service"', '"mispelt.service"')
    wait_until(lambda: consumers.told(name)["consumer"].startswith("unit mispelt"))
    consumers.rotate(name)
    wait_until(lambda: consumers.told(name)["error"].startswith("its unit is not-found; "))


def test_the_agent_does_not_restart_itself(consumers):
    """An agent whose own unit is named would be told again by each agent after it: that is refused, and it runs on."""
    name = consumers.unit("itself", "restart")
    consumers.rewrite(name, f'"{name}.service"', f'"{AGENT}"')
    wait_until(lambda: consumers.told(name)["consumer"].startswith(f"unit {AGENT}"))
    agent = consumers.host.pid()
    consumers.rotate(name)
    wait_until(lambda: consumers.told(name)["error"].startswith("it is the agent's own unit"))
    assert consumers.host.pid() == agent


def test_an_agent_killed_before_it_told_leaves_it_to_the_next(consumers):
    """A generation that was switched, and whose agent was killed before it told, is told by the agent that systemd starts."""
    consumers.permit("survives")
    later = datetime.now() + timedelta(hours=11)  # noqa: DTZ005 - windows are in the host's time
    name = consumers.unit("survives", "reload", window=f'["{later:%H}:00-{later:%H}:30"]')
    consumers.rotate(name)
    wait_until(lambda: consumers.told(name)["due"])
    agent = consumers.host.signal("STOP")
    consumers.host.signal("KILL")
    wait_until(lambda: consumers.host.pid() not in ("0", agent) and consumers.host.active(AGENT))
    assert consumers.told(name)["due"] and consumers.reloads(name) == 0
    consumers.rewrite(name, f'window = ["{later:%H}:00-{later:%H}:30"]', "window = []")
    wait_until(lambda: consumers.reloads(name) == 1)
    wait_until(lambda: consumers.told(name)["due"] is False)


def test_a_command_that_logs_for_itself(consumers):
    """A command works within the bounds of the agent's unit, and logs by ``systemd-cat`` what the agent would discard."""
    name = "logs"
    words = ["/usr/bin/systemd-cat", "-t", "tells", "/bin/sh", "-c", "echo $PRISM_VAULT_SCOPE has $PRISM_VAULT_GENERATION"]
    consumers.host.scope(name, f"notify = {{ command = {json.dumps(words)} }}")
    consumers.numbers[name] = 1
    wait_until(lambda: name in [each["name"] for each in consumers.host.status()["scopes"]])
    consumers.host.systemctl("start", f"prism-vault-render@{name}.service")
    consumers.rotate(name)
    wait_until(lambda: consumers.noted("notified", name))
    logged = ["journalctl", "--identifier=tells", "--output=cat", "--no-pager"]
    wait_until(lambda: consumers.host.booted.run(*logged).stdout == f"{name} has 2\n")


def test_roots_agent_needs_no_leave(consumers):
    """An agent that is root reloads a unit that no rule of polkit names."""
    host, name = consumers.host, "roots"
    host.rotate(name, 1)
    host.unit(f"{name}.service", "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/touch /run/roots.reloaded\n")
    host.systemctl("start", f"{name}.service")
    for each in (SOCKET, AGENT):
        host.systemctl("stop", each)  # a host's name is for one agent at a time
    own = host.booted.path("/etc/roots")
    own.mkdir(mode=0o755)
    for each in ("role-id", "secret-id", "token"):
        host.booted.run("install", "-m", "600", f"/etc/prism-vault/{each}", f"/etc/roots/{each}")
    text = host.booted.path("/etc/prism-vault/agent.toml").read_text().replace("/etc/prism-vault/", "/etc/roots/")
    places = 'socket = "/run/roots/agent.sock"\nstate = "/var/lib/roots"\nfiles = "/run/roots/files"\n'
    (own / "agent.toml").write_text(
        text.replace("[agent]\n", f"[agent]\n{places}")
        + f'[scopes.{name}]\nproject = "prism"\nenvironment = "lan"\npurposes = ["service"]\n'
        + f'callers = [{{ kind = "service", uid = 0 }}]\n[scopes.{name}.env]\nKEY = "vault://secret/{name}#key"\n'
        + f'[[scopes.{name}.files]]\npath = "web.env"\nformat = "systemd"\nnotify = {{ unit = "{name}.service" }}\n'
    )
    command = [f"{INSTALLED}/bin/prism-vault", "agent", "--config", "/etc/roots/agent.toml"]
    host.booted.run("systemd-run", "--unit=roots-agent", "--property=Type=notify", *command)
    wait_until(lambda: host.command("render", "--socket", "/run/roots/agent.sock", name, check=False).returncode == 0)
    host.rotate(name, 2)
    wait_until(host.booted.path("/run/roots.reloaded").exists)
    wait_until(lambda: consumers.noted("notified", name))
    assert host.booted.path(f"/run/roots/files/{name}/web.env").read_text() == f'KEY="{host.value(name, 2)}"\n'
    host.systemctl("stop", "roots-agent.service")
    host.systemctl("start", AGENT)
