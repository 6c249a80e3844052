"""Central under its own unit on a booted systemd: every bound of the unit holds, and central lives within them."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.audit.event import Chain, new_id
from tests.central.host import fields
from tests.e2e.server1 import AGENT, SERVER1
from tests.support.booted import INSTALLED, Booted
from tests.support.certificates import Tls
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

UNIT = "prism-vault-central.service"
USER = "prism-vault-central"
CONFIG = "/etc/prism-vault/central.toml"
PORT = 8310
OPERATOR = "o" * 43
SETTINGS = f"""
listen = "127.0.0.1:{PORT}"
database = "/var/lib/prism-vault-central/audit.db"
tls_cert = "/etc/prism-vault/central.crt"
tls_key = "/etc/prism-vault/central.key"
[[tokens]]
name = "ops"
sha256 = "{hashlib.sha256(OPERATOR.encode()).hexdigest()}"
role = "operator"
projects = ["*"]
{SERVER1}"""


class Central:
    """Central in its container, as an operator sets it up by the how-to, and as a client on its machine reaches it."""

    def __init__(self, booted: Booted, tls: Tls) -> None:
        self.booted = booted
        self._tls = tls
        self._context = ssl.create_default_context(cafile=tls.ca_file)
        self.chain = Chain("server1", new_id())
        booted.run(f"{INSTALLED}/bin/prism-vault", "install", "systemd", "central")
        booted.run("install", "-d", "-m", "700", "-o", USER, "-g", USER, "/var/lib/prism-vault-central")
        self.put(CONFIG, SETTINGS.encode())
        self.certify("central")

    def put(self, path: str, content: bytes) -> None:
        """Write a file of central's user's, which nobody else reads."""
        self.booted.run("install", "-D", "-m", "600", "-o", USER, "-g", USER, "/dev/null", path)
        self.booted.path(path).write_bytes(content)

    def certify(self, name: str) -> None:
        """Put a new certificate in place."""
        cert, key = self._tls.issue(name, "127.0.0.1")
        self.put("/etc/prism-vault/central.key", key.read_bytes())
        self.put("/etc/prism-vault/central.crt", cert.read_bytes())

    @contextlib.contextmanager
    def asked(self, method: str, path: str, token: str = OPERATOR, body: bytes = b"") -> Iterator[http.client.HTTPResponse]:
        """Ask central, and give the answer while its connection is open."""
        with (
            self.booted.connection(PORT) as bare,
            self._context.wrap_socket(bare, server_hostname="127.0.0.1") as secured,
            contextlib.closing(http.client.HTTPConnection("127.0.0.1")) as connection,
        ):
            connection.sock = secured
            connection.request(method, path, body, {"Authorization": f"Bearer {token}"})
            yield connection.getresponse()

    def ask(self, method: str, path: str, token: str = OPERATOR, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        """Return the status and the body of an answer."""
        with self.asked(method, path, token, body) as answer:
            return answer.status, json.loads(answer.read())

    def ready(self) -> bool:
        """Tell whether central says that it can work."""
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def reserve(self) -> None:
        """Have a reservation of server1's taken."""
        body = self.chain.seal(fields("reserved", new_id()))
        status, answer = self.ask("POST", "/v1/audit/reservations", AGENT, body)
        assert status == 201, answer
        self.chain.accept(body)

    def serial(self) -> str:
        """Return the serial number of the certificate that is served."""
        with self.booted.connection(PORT) as bare, self._context.wrap_socket(bare, server_hostname="127.0.0.1") as secured:
            return str(secured.getpeercert()["serialNumber"])  # type: ignore[index]

    def show(self, name: str) -> str:
        """Return a property of the unit."""
        return self.booted.show(UNIT, name)

    def systemctl(self, verb: str, *, check: bool = True) -> int:
        """Do something to the unit, and return the exit status of ``systemctl``."""
        return self.booted.run("systemctl", verb, UNIT, check=check).returncode


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Central]:
    """Return central as it is installed, on a machine of its own; its database has no tables yet."""
    with Booted(tmp_path_factory.mktemp("booted")) as booted:
        yield Central(booted, Tls(tmp_path_factory.mktemp("tls")))


@pytest.fixture
def running(central: Central) -> Central:
    """Return central running, and ready."""
    if central.show("ActiveState") != "active":
        as_user = ["runuser", "-u", USER, "--"]
        central.booted.run(*as_user, f"{INSTALLED}/bin/prism-vault", "central", "migrate", "--config", CONFIG)
        central.systemctl("start")
    wait_until(central.ready, 30)
    return central


def test_a_database_without_tables_is_told_and_not_tried_again(central):
    """Without ``central migrate`` the unit fails at once with 78 and a line that says what to do, and is not restarted."""
    central.systemctl("start", check=False)
    wait_until(lambda: central.show("ActiveState") == "failed", 30)

    assert (central.show("ExecMainStatus"), central.show("NRestarts")) == ("78", "0")
    assert f"run prism-vault central migrate --config {CONFIG}" in central.booted.journal(UNIT)
    central.systemctl("reset-failed")


def test_central_works_within_the_bounds_of_its_unit(running):
    """Central takes records and proves them; it has no capability, core or further system call, and writes nowhere else."""
    running.reserve()
    pid = running.show("MainPID")
    status = dict(
        line.split(":\t", 1) for line in running.booted.path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    limits = re.sub(" +", " ", running.booted.path(f"/proc/{pid}/limits").read_text())
    inside = ["nsenter", "--target", pid, "--mount", "--"]
    places = ("/etc", "/usr", "/opt/prism-vault", "/var/lib", "/home", "/etc/prism-vault")
    written = {place: running.booted.run(*inside, "touch", f"{place}/written", check=False).returncode for place in places}

    assert (status["CapBnd"], status["CapEff"]) == ("0" * 16, "0" * 16)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "Max core file size 0 0 " in limits
    assert re.search(r"Max open files (\d+) \1 ", limits), "it uses all that it may have"
    assert running.booted.path(f"/proc/{pid}/environ").stat().st_uid == 0, "it is not dumpable"
    assert written == dict.fromkeys(places, 1)
    wait_until(lambda: running.ask("GET", "/v1/audit/checkpoint")[0] == 200)


def test_a_reload_takes_a_new_certificate(running):
    """``systemctl reload`` serves a renewed certificate from the next connection on, by the same process."""
    before, pid = running.serial(), running.show("MainPID")
    running.certify("renewed")
    running.systemctl("reload")

    wait_until(lambda: running.serial() != before)
    assert running.show("MainPID") == pid


def test_a_stop_drains(running):
    """``systemctl stop`` ends central with 0, with a stream whose reader is gone without a word; what was taken is there."""
    for _ in range(10):
        running.reserve()
    before = running.booted.journal(UNIT)
    with running.asked("GET", "/v1/signals", AGENT) as stream:
        assert stream.status == 200
        running.systemctl("stop")
    told = running.booted.journal(UNIT).removeprefix(before)

    assert '"event": "stopped"' in told
    assert f"{UNIT}: Deactivated successfully." in told
    assert '"severity": "ERROR"' not in told, "nothing was cut off"
    running.systemctl("start")
    wait_until(running.ready, 30)
    status, head = running.ask("GET", "/v1/audit/head", AGENT)
    assert (status, head["seq"], head["hash"]) == (200, running.chain.seq, running.chain.head)


def test_a_killed_central_is_started_again(running):
    """After SIGKILL systemd starts central anew, and it goes on where the log stands."""
    running.reserve()
    before = running.show("MainPID")
    running.booted.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", UNIT)

    wait_until(lambda: running.show("MainPID") not in ("0", before) and running.ready(), 30)
    running.reserve()
