"""compose/exec on a real engine: a container asks its host's agent, which knows exactly that one; and whom it cannot know."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_sidecar import Sidecar
from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.as_user import prefix
from tests.support.composed import AGENT_USER, Example
from tests.support.leaks import Canary
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engine import Engine

USER = 10320
IMAGE = "prism-vault-exec"
SECRET = "secret/exec/web"
ASKS = ("exec", "--scope", "web", "--timeout", "60s", "--", "true")


class Exec(Example):
    """The example, and the agent of its host, which has a scope for one container."""

    def __init__(self, engine: Engine, sources: Path, agent: AgentProcess) -> None:
        super().__init__(engine, sources, "exec")
        self.agent = agent
        self.environment = {"SOCKET": agent.socket, "CALLERS": str(USER)}
        self.compose("build")

    def create(self) -> None:
        """Make the container, and have the scope name it."""
        self.compose("up", "--no-start", "--no-build")
        container = str(self.container("app")["Id"])
        caller = {"kind": "service", "uid": USER, "container": container}
        applied = self.agent.log.count("config.applied")
        self.agent.scope("web", {"DATABASE_URL": f"vault://{SECRET}#database_url"}, callers=[caller], grace="1s")
        self.agent.hang_up()
        wait_until(lambda: self.agent.log.count("config.applied") > applied)

    def ended(self) -> int:
        """Wait for the container's end, and return its exit status."""
        wait_until(lambda: self.container("app")["State"]["Status"] == "exited", 60)
        return int(self.container("app")["State"]["ExitCode"])


@pytest.fixture(scope="module")
def example(images, provider, audit) -> Iterator[Exec]:
    """Return the example, which is not up, and the agent of its host, which runs and which every user reaches."""
    engine, sources = images
    directory = Path(tempfile.mkdtemp(prefix="pv-", dir="/tmp"))
    directory.chmod(0o755)
    agent = AgentProcess(directory, provider, audit, agent='socket_mode = "0666"', vault='poll = "1s"', role="exec")
    try:
        yield Exec(engine, sources, agent.start())
    finally:
        agent.kill()
        shutil.rmtree(directory)


@pytest.fixture
def made(example: Exec) -> Iterator[tuple[Exec, Canary]]:
    """Return the example with a secret of this test's own; its container is not started."""
    canary = Canary()
    example.agent.openbao.kv_put(SECRET, {"database_url": canary.value})
    example.over = {"services": {"app": {"restart": "no"}}}
    example.create()
    yield example, canary
    example.down()


def test_exactly_that_container_gets_the_secret(made):
    """The container that the scope names has the secret in its environment, and its id is on the log; the engine never has it."""
    example, canary = made
    example.compose("start")
    digest = hashlib.sha256(canary.value.encode()).hexdigest()
    wait_until(lambda: digest in example.logs("app"))
    (run,) = example.agent.status()["runs"]
    reserved = example.agent.central.events(kind="reserved")[-1]["fields"]

    assert reserved["caller"]["container"] == example.container("app")["Id"]
    assert (reserved["caller"]["uid"], run["uid"]) == (USER, USER)
    assert canary.core not in str(example.container("app"))
    assert canary.core not in example.logs("app")


def test_nobody_else_gets_it(made):
    """Another container of the same image and user, and a process of that user on the host, are denied on the record."""
    example, _ = made
    mount = f"{example.agent.socket}:/run/prism-vault/agent.sock"
    options = ("--rm", f"--user={USER}", "--network=none", f"--volume={mount}")
    other = example.engine.docker("run", *options, IMAGE, "true", check=False)
    host = subprocess.run(
        [*prefix(USER, USER), LAUNCHER, *ASKS], env=example.agent.environment(), capture_output=True, text=True, check=False
    )

    assert (other.returncode, host.returncode) == (77, 77), (other, host)
    assert all("matches none of its callers" in each.stderr for each in (other, host))
    wait_until(lambda: len(example.agent.central.events(kind="denied")) >= 2)


def test_what_is_taken_back_ends_the_container(made):
    """When the secret is deleted the program ends, though process 1 hears no SIGTERM; started again it gets none."""
    example, _ = made
    example.compose("start")
    wait_until(lambda: example.agent.status()["runs"])
    example.agent.openbao.must("DELETE", SECRET.replace("/", "/data/", 1))
    assert example.ended() == 137
    example.compose("start")
    wait_until(lambda: "prism-vault: " in example.logs("app"))
    assert example.ended() == 66


def test_without_the_log_the_program_does_not_start(made):
    """While central is away the container ends with 75 and one line, and its command never runs."""
    example, _ = made
    example.agent.central.stop()
    try:
        example.compose("start")
        assert example.ended() == 75
        (line,) = example.logs("app").splitlines()
    finally:
        example.agent.central.start()
    assert line.startswith("prism-vault: scope web: ")


def test_an_agent_in_a_container_knows_nobody_outside_of_its_process_namespace(example, images, provider, audit):
    """It refuses the host's root and other containers of its own user; one that shares its process namespace is attested."""
    engine, sources = images
    sidecar = Sidecar(engine, sources, provider, audit)
    sidecar.rotate(Canary())
    shared = sidecar.directory / "shared"
    shared.mkdir(0o755)
    os.chown(shared, AGENT_USER, AGENT_USER)
    config = sidecar.directory / "config/agent.toml"
    config.write_text(config.read_text().replace("[agent]", '[agent]\nsocket = "/shared/agent.sock"'))
    more = {"volumes": [f"{shared}:/shared"], "environment": {"PRISM_VAULT_SOCKET": "/shared/agent.sock"}}
    sidecar.over["services"]["agent"].update(more)
    sidecar.compose("up", "--detach", "--no-build", "--wait", "agent")
    try:
        socket = str(shared / "agent.sock")
        mount = f"{socket}:/run/prism-vault/agent.sock"
        options = ("--rm", f"--user={AGENT_USER}", "--network=none", f"--volume={mount}")
        root = subprocess.run([LAUNCHER, "exec", "--socket", socket, *ASKS[1:]], capture_output=True, text=True, check=False)
        apart = example.engine.docker("run", *options, IMAGE, "true", check=False)
        together = example.engine.docker("run", *options, "--pid=container:sidecar-agent-1", IMAGE, "true", check=False)
    finally:
        sidecar.down()

    for refused in (root, apart):
        assert refused.returncode == 77
        assert refused.stderr.startswith("prism-vault: ") and "in a namespace that this agent cannot see" in refused.stderr
    assert (together.returncode, together.stderr) == (0, "")
