"""An agent under the units that ship, on a booted systemd that is set up as the how-to says; OpenBao and central are outside."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_vault_agent.central.signing import read_key
from tests.support.agent import HOST, POLICY
from tests.support.booted import INSTALLED, Booted
from tests.support.roots import HERE
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.central import CentralProcess
    from tests.support.openbao import OpenBao

AGENT = "prism-vault-agent.service"
SOCKET = "prism-vault-agent.socket"
HELPER = "prism-vault-helper.service"
HELPER_SOCKET = "prism-vault-helper.socket"
CREDENTIALS = "prism-vault-credentials.socket"
RENDER = "prism-vault-render@web.service"
WEB = "web.service"
DROP_IN = f"{AGENT}.d/test.conf"
USER = "prism-vault"
ETC = "/etc/prism-vault"
MOUNT = "run-prism\\x2dvault-files.mount"
FILES = "/run/prism-vault/files"
EXAMPLE = "web.service.d/prism-vault.conf"
CONSUMER = """\
[Service]
Type=exec
User=nobody
ExecStart=/bin/sleep infinity
"""


class AgentUnit:
    """The agent, and ``web.service``, which is started with the secret of scope ``web`` by the example drop-in."""

    def __init__(self, booted: Booted, openbao: OpenBao, central: CentralProcess) -> None:
        self.booted = booted
        self.openbao = openbao
        self.central = central
        self.canary = secrets.token_hex(16)
        self.command("install", "systemd")
        self._configure()
        self.command("install", "systemd")  # now that it is known which servers there are
        self.unit(EXAMPLE, (HERE / "systemd" / EXAMPLE).read_text())
        self.unit(WEB, CONSUMER)
        self.scope("web")
        booted.run("systemctl", "enable", "--now", SOCKET, CREDENTIALS, HELPER_SOCKET)

    def _configure(self) -> None:
        """Write the agent's configuration, which is root's, and its credentials, which are its own."""
        self.openbao.policy("prism-vault", POLICY)
        role_id, secret_id = self.openbao.approle(HOST, ["prism-vault"])
        given = {"role-id": role_id.read_text(), "secret-id": secret_id.read_text(), "token": self.central.agent_tokens[HOST]}
        for name, text in given.items():
            self.booted.run("install", "-m", "600", "-o", USER, "-g", USER, "/dev/null", f"{ETC}/{name}")
            self.booted.path(f"{ETC}/{name}").write_text(text)
        self.booted.path(f"{ETC}/agent.toml").write_text(
            f'[agent]\nhost = "{HOST}"\n'
            f'[vault]\naddress = "{self.openbao.address}"\npoll = "1s"\n'
            f'[vault.auth]\nmethod = "approle"\nrole_id_file = "{ETC}/role-id"\nsecret_id_file = "{ETC}/secret-id"\n'
            f'[central]\nurl = "{self.central.url}"\ntoken_file = "{ETC}/token"\n'
            f'log_key = "{read_key(self.central.key_file).verifying_key}"\n'
        )

    def unit(self, name: str, text: str) -> None:
        """Have systemd know a unit, or a drop-in of one."""
        path = self.booted.path(f"/etc/systemd/system/{name}")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.booted.run("systemctl", "daemon-reload")

    def without(self, name: str) -> None:
        """Have systemd forget a unit, or a drop-in of one."""
        self.booted.path(f"/etc/systemd/system/{name}").unlink()
        self.booted.run("systemctl", "daemon-reload")

    def scope(self, name: str, more: str = "") -> None:
        """Write a scope that its own unit may have rendered, with a secret of its own. ``more`` are lines of its file."""
        self.rotate(name, 1)
        self.booted.path(f"{ETC}/scopes.d/{name}.toml").write_text(
            f'[scopes.{name}]\nproject = "prism"\nenvironment = "lan"\npurposes = ["service"]\n'
            f'callers = [{{ kind = "service", unit = "prism-vault-render@{name}.service" }}]\n'
            f'[scopes.{name}.env]\nKEY = "vault://secret/{name}#key"\n'
            f'[[scopes.{name}.files]]\npath = "web.env"\nformat = "systemd"\n{more}\n'
        )

    def rotate(self, name: str, number: int) -> None:
        """Give the secret of a scope its value of this number."""
        self.openbao.kv_put(f"secret/{name}", {"key": self.value(name, number)})

    def value(self, name: str, number: int) -> str:
        """Return the value of this number."""
        return f"{self.canary}-{name}-{number}"

    def path(self, name: str = "web") -> Path:
        """Return where the file of a scope is for us."""
        return self.booted.path(f"{FILES}/{name}/web.env")

    def holds(self, name: str, number: int) -> bool:
        """Tell whether the file of a scope has the value of this number."""
        return self.path(name).read_text() == f'KEY="{self.value(name, number)}"\n'

    def systemctl(self, verb: str, unit: str, *, check: bool = True) -> int:
        """Do something to a unit, and return the exit status of ``systemctl``."""
        return self.booted.run("systemctl", verb, unit, check=check).returncode

    def active(self, unit: str) -> bool:
        """Tell whether a unit is active."""
        return self.booted.show(unit, "ActiveState") == "active"

    def pid(self, unit: str = AGENT) -> str:
        """Return the main process of a unit, as the container numbers it."""
        return self.booted.show(unit, "MainPID")

    def signal(self, name: str) -> str:
        """Send the agent's own process a signal; return which it was. One that is to stop has stopped then."""
        pid = self.pid()
        self.booted.run("systemctl", "kill", "--kill-who=main", f"--signal={name}", AGENT)
        if name == "STOP":
            stat = self.booted.path(f"/proc/{pid}/stat")
            wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        return pid

    def given(self, unit: str = WEB) -> str:
        """Return KEY in the environment of the process of a unit."""
        variables = self.booted.path(f"/proc/{self.pid(unit)}/environ").read_bytes().split(b"\0")
        return next(each.removeprefix(b"KEY=").decode() for each in variables if each.startswith(b"KEY="))

    def command(self, *words: str, check: bool = True) -> Any:
        """Run ``prism-vault WORDS`` as root, outside of any unit."""
        return self.booted.run(f"{INSTALLED}/bin/prism-vault", *words, check=check)

    def status(self) -> dict[str, Any]:
        """Return what the agent tells of itself, ready or not; that it is not, where it did not answer in time."""
        return dict(json.loads(self.command("status", "--json", check=False).stdout or '{"ready": false, "runs": []}'))

    def rows(self, kind: str, scope: str = "web") -> list[dict[str, Any]]:
        """Return the rows of a kind that the log has of a scope."""
        found = [event["fields"] for event in self.central.events()]
        return [each for each in found if each["kind"] == kind and each.get("scopes") == [scope]]

    def ended(self, reason: str, scope: str = "web") -> bool:
        """Tell whether the newest end of a scope's files on the log is for this reason."""
        return [row["reason"] for row in self.rows("cleared", scope)][-1:] == [reason]
