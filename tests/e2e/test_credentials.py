"""Credentials of units on a booted systemd: it asks the agent, and no file of ours is made; who is not systemd gets nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.agent_unit import AGENT, CREDENTIALS, ETC, FILES, HELPER, HELPER_SOCKET, SOCKET
from tests.support.roots import HERE
from tests.support.signalled import evidence, order
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.agent_unit import AgentUnit

UNIT = "api.service"
UNITS = f"{HELPER}.d/units.conf"
PATH = "/run/prism-vault/credentials.sock"
# Asks as systemd does, at an address of its own choosing; says how much came, and whether any of it was not NUL.
ASKER = f"""
import socket, sys
asking = socket.socket(socket.AF_UNIX)
asking.bind(b"\\0" + sys.argv[1].encode()) if sys.argv[1] else None
asking.connect("{PATH}")
asking.shutdown(socket.SHUT_WR)
told = b"".join(iter(lambda: asking.recv(65536), b""))
print(len(told), bool(told.strip(b"\\0")))
"""
REFUSED = "1048577 False\n"


class Api:
    """``api.service``, a unit of a user, that gets the credentials of scope ``api``."""

    def __init__(self, host: AgentUnit) -> None:
        self.host = host
        self.value = f"{host.canary}-1\n\tsecond line\r\n\0 \x7f\x80\xff \u20ac \U0001f511\n"
        host.booted.path("/root/ask.py").write_text(ASKER)
        self.denials = 0
        self.denials = len(self.denied())
        self.store(self.value)
        self.configure()
        self.unit()

    def store(self, value: str) -> None:
        """Make this the newest value."""
        self.host.openbao.kv_put("secret/api", {"key": value, "other": self.host.value("api", 0)})

    def configure(self, unit: str = UNIT, more: str = "", keys: str = "") -> None:
        """Write the scope, for a unit, with further ``keys``, and wait until it is in use."""
        path = self.host.booted.path(f"{ETC}/scopes.d/api.toml")
        text = (
            f'[scopes.api]\nproject = "prism"\nenvironment = "lan"\npurposes = ["service"]\ngrace = "1s"\n{keys}'
            f'callers = [{{ kind = "service", unit = "{unit}" }}]\n'
            '[scopes.api.env]\nKEY = "vault://secret/api#key"\nOTHER = "vault://secret/api#other"\n'
            '[[scopes.api.credentials]]\nname = "key"\nvariable = "KEY"\n'
            f'[[scopes.api.credentials]]\nname = "other.env"\nformat = "json"\n{more}'
        )
        if not path.exists() or path.read_text() != text:
            before, new = self.loads(), path.with_suffix(".new")
            new.write_text(text)
            new.rename(path)  # at once: half a file may be a configuration too, and one that is loaded
            wait_until(lambda: self.loads() > before)

    def loads(self) -> int:
        """Return how often the agent has applied a configuration."""
        found = [event["fields"] for event in self.host.central.events() if event["fields"]["kind"] == "admin"]
        return sum(each["reason"] == "config_applied" for each in found)

    def unit(self, name: str = UNIT, user: str = "nobody", more: str = "") -> None:
        """Have systemd know the unit."""
        self.host.unit(
            name,
            f"[Service]\nType=exec\nUser={user}\nLoadCredential=key:{PATH}\nLoadCredential=other.env:{PATH}\n"
            f"ExecStart=/bin/sleep infinity\n{more}\n",
        )

    def start(self, name: str = UNIT) -> bool:
        """Start the unit anew, and tell whether it has."""
        self.host.booted.run("systemctl", "reset-failed")
        return self.host.systemctl("restart", name, check=False) == 0

    def credential(self, credential: str = "key", unit: str = UNIT) -> bytes:
        """Return a credential, as the unit finds it."""
        return self.host.booted.path(f"/run/credentials/{unit}/{credential}").read_bytes()

    def held(self) -> list[dict[str, Any]]:
        """Return the unit's runs, as ``status`` shows them."""
        return [run for run in self.host.status()["runs"] if run["unit"] == UNIT]

    def asks(self, address: str, *before: str) -> str:
        """Return what a process of ours is told that asks at this address."""
        return self.host.booted.run(*before, "python3", "/root/ask.py", address).stdout

    def denied(self) -> list[dict[str, Any]]:
        """Return the denials on the log since this unit was made."""
        found = [event["fields"] for event in self.host.central.events() if event["fields"]["kind"] == "denied"]
        return found[self.denials :]


@pytest.fixture
def api(host: AgentUnit) -> Any:
    """Return the unit, stopped, with its first value."""
    host.booted.run("systemctl", "start", AGENT)
    wait_until(lambda: host.status()["ready"])
    made = Api(host)
    yield made
    host.systemctl("stop", UNIT, check=False)
    wait_until(lambda: not made.held())


def test_a_unit_gets_its_credentials(api):
    """A value is there to the byte, and all values as a file has them, in systemd's own memory; on the record, and in status."""
    assert api.start(), api.host.booted.journal(AGENT)
    assert api.credential() == api.value.encode()
    assert api.host.value("api", 0).encode() in api.credential("other.env")
    assert not api.host.booted.path(f"{FILES}/api").exists(), "no file of ours"
    assert api.host.booted.run("stat", "-fc", "%T", f"/run/credentials/{UNIT}").stdout in ("ramfs\n", "tmpfs\n")

    reserved = sorted(api.host.rows("reserved", "api")[-2:], key=lambda row: len(row["bindings"]))
    assert [(row["mode"], row["caller"]["kind"], row["caller"]["unit"], row["caller"]["uid"]) for row in reserved] == [
        ("credential", "service", UNIT, 0)
    ] * 2
    assert [[binding["name"] for binding in row["bindings"]] for row in reserved] == [["KEY"], ["KEY", "OTHER"]]
    released = {row["reservation"] for row in api.host.rows("success", "api")[-2:]}
    assert released == {row["reservation"] for row in reserved}
    assert [(run["pid"], run["scopes"]) for run in api.held()] == [(int(api.host.pid(UNIT)), ["api"])] * 2
    told = api.host.command("plan", "api", check=False).stdout
    assert f"{UNIT}  key" in told


def test_a_rotation_restarts_the_unit_where_its_scope_says_so(api):
    """``restart``: systemd starts the unit anew, once for all of its credentials, which are the new ones then; the log tells."""
    api.configure(keys='on_rotate = "restart"\nrotate_limits = { min_interval = "0s" }\n')
    api.host.unit(UNITS, (HERE / "systemd" / UNITS).read_text())
    api.host.systemctl("stop", HELPER)
    assert api.start(), api.host.booted.journal(AGENT)
    before, audit_ids = api.host.pid(UNIT), {run["id"] for run in api.held()}
    api.store("newer")
    api.host.command("rotate", "api")
    wait_until(lambda: len(api.held()) == 2 and not audit_ids & {run["id"] for run in api.held()}, 60)
    wait_until(lambda: api.host.active(UNIT), 60)
    assert (api.credential(), api.host.pid(UNIT) == before) == (b"newer", False)
    assert [run["stale"] for run in api.held()] == [[], []]

    def told() -> list[dict[str, Any]]:
        found = [event["fields"] for event in api.host.central.events() if event["fields"].get("reason") == "run_rotated"]
        return sorted(found, key=lambda row: row["message"])

    wait_until(lambda: len(told()) == 2, 60)
    rows = told()
    assert [row["message"] for row in rows] == sorted(f"{audit_id}: restart unit, secret/api" for audit_id in audit_ids)
    assert [list(row["stages"]) for row in rows] == [["switched"]] * 2 and all(row["stages"]["switched"] > 0 for row in rows)
    api.host.without(UNITS)
    api.host.systemctl("stop", HELPER)


def test_a_stop_ends_what_was_given(api):
    """When the unit is stopped its credentials are gone, it is in the status no more, and the log has the end."""
    assert api.start()
    api.host.systemctl("stop", UNIT)

    wait_until(lambda: not api.held())
    wait_until(lambda: api.host.ended("exited", "api"))
    given = {row["reservation"] for row in api.host.rows("success", "api")}
    wait_until(lambda: given <= {row["reservation"] for row in api.host.rows("cleared", "api")})


def test_a_restart_gets_the_newest(api):
    """After a rotation a restart of the unit has the new value, and what the start before was given is over on the log."""
    assert api.start()
    before = {run["id"] for run in api.held()}
    api.store(f"{api.host.canary}-2")
    assert api.credential() == api.value.encode(), "what it was given stays"
    assert api.start()

    assert api.credential() == f"{api.host.canary}-2".encode()
    wait_until(lambda: not before & {run["id"] for run in api.held()})
    assert len(api.held()) == 2


def test_what_is_denied_does_not_start(api):
    """A unit that no scope names does not start; the agent's log says why, and the denial is on the record."""
    api.configure(unit="another.service")
    assert not api.start()

    assert api.host.booted.show(UNIT, "ExecMainStatus") == "243", "CREDENTIALS"
    wait_until(lambda: re.search(rf"no scope has a credential \S+ for unit {UNIT}", api.host.booted.journal(AGENT)))
    denied = wait_until(api.denied)[0]
    assert (denied["reason"], denied["caller"]["unit"]) == ("unknown_credential", UNIT)
    assert "Failed at step CREDENTIALS" in api.host.booted.journal(UNIT)


def test_without_central_nothing_starts(api):
    """While central is away the unit does not start, and has no value; afterwards it does."""
    api.host.central.stop()
    assert not api.start()
    assert not api.host.booted.path(f"/run/credentials/{UNIT}").exists()
    api.host.central.start()

    wait_until(lambda: api.host.status()["ready"])
    assert api.start()
    assert api.credential() == api.value.encode()


def test_an_agent_that_is_killed_gives_no_empty_credential(api):
    """A unit that waits while the agent is killed is refused by the next one, and does not start with nothing in its place."""
    api.host.central.pause()
    api.host.booted.run("systemctl", "reset-failed")
    api.host.booted.run("systemctl", "restart", "--no-block", UNIT)
    wait_until(lambda: api.host.booted.show(AGENT, "NFileDescriptorStore") != "0")
    api.host.signal("KILL")
    wait_until(lambda: api.host.booted.show(UNIT, "ActiveState") == "failed")
    api.host.central.resume()

    assert api.host.booted.show(UNIT, "ExecMainStatus") == "243"
    assert "the agent was killed" in api.host.booted.journal(AGENT)
    wait_until(lambda: api.host.booted.show(AGENT, "NFileDescriptorStore") == "0")
    wait_until(lambda: api.host.status()["ready"])
    assert api.start()
    assert api.credential() == api.value.encode()


def test_what_cannot_be_read_does_not_start(api):
    """A secret that is gone keeps the unit from starting: it is not started with an empty credential."""
    api.host.openbao.kv_put("secret/api", {"other": "left"})
    assert not api.start()
    assert api.host.booted.show(UNIT, "ExecMainStatus") == "243"
    wait_until(lambda: "no_such_key" in [row["reason"] for row in api.host.rows("failure", "api")])


def test_nobody_else_can_connect(api):
    """The socket is root's alone; were it not, another user that asks as systemd does is refused, on the record."""
    address = f"0123456789abcdef/unit/{UNIT}/key"
    as_nobody = ("runuser", "-u", "nobody", "--")
    closed = api.host.booted.run(*as_nobody, "python3", "-c", ASKER, address, check=False)
    assert "PermissionError" in closed.stderr
    api.host.booted.run("chmod", "666", PATH)
    told = api.host.booted.run(*as_nobody, "python3", "-c", ASKER, address).stdout
    api.host.booted.run("chmod", "600", PATH)

    assert told == REFUSED
    denied = wait_until(api.denied)[0]
    assert (denied["reason"], denied["caller"]["uid"]) == ("not_systemd", 65534)


@pytest.mark.parametrize(
    ("address", "before"),
    [
        (f"0123456789abcdef/unit/{UNIT}/key", []),
        (f"0123456789abcdef/unit/{UNIT}/key", ["systemd-run", "--pipe", "--wait", "--quiet"]),
        ("", []),
        (f"0123456789abcdef/user/{UNIT}/key", []),
        (f"0123456789abcdef/unit/{UNIT}/", []),
        (f"0123456789abcdef/unit/x/{UNIT}/key", []),
    ],
    ids=["root", "another unit", "no address", "another kind", "no name", "too many parts"],
)
def test_root_outside_of_the_unit_gets_nothing(api, address, before):
    """A root process that binds the address of a unit it is not in, or no such address, is refused, on the record."""
    assert api.start()
    assert api.asks(address, *before) == REFUSED
    assert wait_until(api.denied)[0]["reason"] == "not_systemd"


def test_who_asks_starts_the_agent(api):
    """A unit that starts while the agent does not run is given its credentials by the one that systemd starts for it."""
    api.host.systemctl("stop", UNIT)
    api.host.systemctl("stop", AGENT)
    assert not api.host.active(AGENT)
    assert api.start()

    assert api.credential() == api.value.encode()
    told = api.host.status()
    assert (told["socket"]["ours"], told["credentials_socket"]) == (True, {"path": PATH, "ours": True})


@pytest.mark.parametrize("how", ["restarted", "killed"])
def test_the_next_agent_knows_what_units_hold(api, how):
    """After a restart of the agent, and after SIGKILL, a unit runs on and is in the status; a revocation still ends it."""
    assert api.start()
    before = api.held()
    agent = api.host.pid()
    if how == "killed":
        api.host.signal("KILL")
        wait_until(lambda: api.host.pid() not in ("0", agent) and api.host.active(AGENT))
    else:
        api.host.systemctl("restart", AGENT)
    same = ("id", "pid", "scopes", "unit")

    assert [{key: run[key] for key in same} for run in api.held()] == [{key: run[key] for key in same} for run in before]
    assert api.host.active(UNIT)
    wait_until(lambda: api.host.status()["ready"])
    order(api.host.central, "revocations", scope="api")
    wait_until(lambda: not api.host.active(UNIT))


def test_what_ended_between_two_agents_is_recorded(api):
    """A unit that is stopped while no agent runs is over on the log, and in no status, once there is one again."""
    assert api.start()
    given = {run["id"].removeprefix("pva_") for run in api.held()}
    api.host.booted.run("systemctl", "stop", SOCKET, CREDENTIALS, AGENT)
    api.host.systemctl("stop", UNIT)
    api.host.booted.run("systemctl", "start", SOCKET, CREDENTIALS)

    assert api.held() == []
    wait_until(lambda: given <= {row["reservation"] for row in api.host.rows("cleared", "api")})
    assert {row["reason"] for row in api.host.rows("cleared", "api") if row["reservation"] in given} == {"exited"}


def test_a_revocation_ends_the_unit(api):
    """A revocation ends every process of a unit, of another user by the helper, and systemd then takes the credentials away."""
    api.unit(more="ExecStartPost=/bin/sh -c 'trap \"\" TERM; sleep infinity & '")
    assert api.start()
    number = order(api.host.central, "revocations", scope="api")

    wait_until(lambda: not api.host.active(UNIT))
    (found,) = wait_until(lambda: [each for each in evidence(api.host.central, number)["hosts"] if each["state"] == "cleared"])
    assert (found["ended"], found["left"]) == (2, 0)
    assert not api.host.booted.path(f"/run/credentials/{UNIT}").exists()


def test_what_a_revocation_cannot_end_is_told(api):
    """A unit whose processes may not be signalled, without a helper, stays in the status, and central is told that it does."""
    assert api.start()
    api.host.booted.run("systemctl", "stop", HELPER_SOCKET, HELPER)
    number = order(api.host.central, "revocations", scope="api")

    (found,) = wait_until(lambda: [each for each in evidence(api.host.central, number)["hosts"] if each["state"] == "failed"])
    assert found["failed"] == 2
    assert api.host.active(UNIT)
    assert len(api.held()) == 2
    api.host.booted.run("systemctl", "start", HELPER_SOCKET)
