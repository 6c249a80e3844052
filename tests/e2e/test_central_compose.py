"""Central as a Compose service, built and brought up by a real engine: ready, bounded, drained, and gone without a trace."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.audit.event import Chain, new_id
from tests.central.host import fields
from tests.e2e.server1 import AGENT, SERVER1
from tests.support.certificates import Tls
from tests.support.engine import BASE, Engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER = 10310
CONTAINER = "compose-central-1"
SETTINGS = f"""
listen = "0.0.0.0:8310"
database = "/var/lib/prism-vault-central/audit.db"
tls_cert = "/run/secrets/central.crt"
tls_key = "/run/secrets/central.key"
{SERVER1}"""


class Central:
    """The file of Compose with its secrets beside it, and central as its clients reach it."""

    def __init__(self, engine: Engine, directory: Path, tls: Tls) -> None:
        self.engine = engine
        self.file = directory / "compose" / "central.yaml"
        self._context = ssl.create_default_context(cafile=tls.ca_file)
        self.put("central.toml", SETTINGS.encode())
        self.put("central.crt", tls.cert_file.read_bytes())
        self.put("central.key", tls.key_file.read_bytes())
        self.compose("build")

    def put(self, name: str, content: bytes) -> None:
        """Write one of its secrets, which only its user reads."""
        path = self.file.with_name(name)
        path.unlink(missing_ok=True)
        path.touch(0o400)
        path.write_bytes(content)
        os.chown(path, USER, USER)

    def compose(self, *words: str, check: bool = True) -> str:
        """Run Compose and return what it prints."""
        done = self.engine.compose(self.file, *words, check=check, BASE=BASE, PIP_NO_INDEX="1", LISTEN="127.0.0.1:0")
        return done.stdout + done.stderr

    def up(self) -> None:
        """Bring it up, and wait until its health check says that it can work."""
        self.compose("up", "--detach", "--no-build", "--wait")

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        """Return the status and the body of an answer on the published port."""
        host, _, port = self.compose("port", "central", "8310").strip().rpartition(":")
        with contextlib.closing(http.client.HTTPSConnection(host, int(port), context=self._context, timeout=30)) as connection:
            connection.request(method, path, body, {"Authorization": f"Bearer {AGENT}"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())


@pytest.fixture(scope="module")
def central(images: tuple[Engine, Path], tmp_path_factory: pytest.TempPathFactory) -> Central:
    """Return central as an image that is built, and not up."""
    engine, sources = images
    return Central(engine, sources, Tls(tmp_path_factory.mktemp("tls")))


@pytest.fixture
def up(central: Central) -> Iterator[Central]:
    """Return central up and ready; it is taken down with its volume afterwards."""
    central.up()
    yield central
    central.compose("down", "--volumes")


def test_central_is_ready_within_its_bounds(up):
    """It is ready by its health check and to its clients, as a user without a capability, on a root that cannot be written."""
    found = up.engine.inspect(CONTAINER)
    inside = ("exec", CONTAINER, "/opt/prism-vault/bin/python", "-c")
    status = up.engine.docker(*inside, 'print(open("/proc/1/status").read())').stdout
    tried = [up.engine.docker(*inside, f'open("{place}/x", "w")', check=False).returncode for place in ("/", "/etc", "/opt")]

    assert found["State"]["Health"]["Status"] == "healthy"
    assert up.ask("GET", "/readyz")[0] == 200
    for line in (f"Uid:\t{USER}\t", "CapEff:\t" + "0" * 16, "CapBnd:\t" + "0" * 16, "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status
    assert tried == [1, 1, 1]
    assert AGENT not in json.dumps(found)


def test_what_was_taken_is_there_after_a_stop(up):
    """``stop`` drains central, which ends with 0; brought up again, it goes on where the log stands."""
    chain = Chain("server1", new_id())
    body = chain.seal(fields("reserved", new_id()))
    status, _ = up.ask("POST", "/v1/audit/reservations", body)
    chain.accept(body)
    up.compose("stop")
    ended = up.engine.inspect(CONTAINER)["State"]["ExitCode"]
    up.up()
    _, head = up.ask("GET", "/v1/audit/head")

    assert (status, ended) == (201, 0)
    assert (head["seq"], head["hash"]) == (chain.seq, chain.head)


def test_central_does_not_start_on_what_it_cannot_use(central):
    """With a configuration that is refused nothing is started, and Compose tells the exit status; ``down`` leaves nothing."""
    central.put("central.toml", b"wrong")
    try:
        told = central.compose("up", "--detach", "--no-build", "--wait", check=False)
        state = central.engine.inspect(CONTAINER)["State"]["Status"]
        why = central.compose("logs", "migrate")
    finally:
        central.put("central.toml", SETTINGS.encode())
        central.compose("down", "--volumes")

    assert "exit 78" in told
    assert state == "created"
    assert "/run/secrets/central.toml" in why
    assert central.engine.left() == {"containers": [], "volumes": [], "networks": []}


def test_the_image_has_nothing_that_builds(central):
    """Neither pip nor wheels nor a secret is in the image, and it runs as nobody that a host knows."""
    listed = central.engine.docker(
        *("run", "--rm", "--network=none", "--entrypoint=/usr/bin/find", "prism-vault-central"),
        *("/opt", "/var/lib/prism-vault-central", "-printf", "%f\\n"),
    )
    names = set(listed.stdout.split())

    assert {"prism_vault_agent", "uvicorn", "prism-vault"} <= names
    assert names.isdisjoint({"pip", "setuptools", "hatchling", "central.toml", "central.key", "signing.key", "audit.db"})
    assert not [name for name in names if name.endswith(".whl")]
    assert central.engine.inspect("prism-vault-central")["Config"]["User"] == f"{USER}:{USER}"
