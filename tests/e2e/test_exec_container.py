"""compose/exec on a real engine: a container asks its host's agent, which knows exactly that one; and whom it cannot know."""

from __future__ import annotations

import contextlib
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
from tests.support.composed import AGENT_USER, Example, held
from tests.support.engine import Engine, context
from tests.support.leaks import Canary
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.central import CentralProcess
    from tests.support.openbao import OpenBao

USER = 10320
REMAPPED = 200_000
IMAGE = "prism-vault-exec"
SECRET = "secret/exec/web"
ASKS = ("exec", "--scope", "web", "--timeout", "60s", "--", "true")


class Exec(Example):
    """The example, and the agent of its host, which has a scope for one container."""

    def __init__(self, engine: Engine, sources: Path, agent: AgentProcess) -> None:
        super().__init__(engine, sources, "exec")
        self.patience = 1  # its process 1 hears no SIGTERM
        self.agent = agent
        self.environment = {"SOCKET": agent.socket, "CALLERS": str(USER)}
        self.compose("build")

    def create(self, user: int = USER, **more: str) -> None:
        """Make the container, and have the scope name it, as this user; ``more`` is of the scope."""
        self.compose("up", "--no-start", "--no-build")
        container = str(self.container("app")["Id"])
        caller = {"kind": "service", "uid": user, "container": container}
        applied = self.agent.log.count("config.applied")
        self.agent.scope("web", {"DATABASE_URL": f"vault://{SECRET}#database_url"}, callers=[caller], grace="1s", **more)
        self.agent.hang_up()
        wait_until(lambda: self.agent.log.count("config.applied") > applied)

    def ended(self) -> int:
        """Wait for the container's end, and return its exit status."""
        wait_until(lambda: self.container("app")["State"]["Status"] == "exited", 60)
        return int(self.container("app")["State"]["ExitCode"])


@contextlib.contextmanager
def served(provider: OpenBao, audit: CentralProcess) -> Iterator[AgentProcess]:
    """Run an agent of the host, which every user reaches."""
    directory = Path(tempfile.mkdtemp(prefix="pv-", dir="/tmp"))
    directory.chmod(0o755)
    agent = AgentProcess(directory, provider, audit, agent='socket_mode = "0666"', vault='poll = "1s"', role="exec")
    try:
        yield agent.start()
    finally:
        agent.kill()
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def example(images, provider, audit) -> Iterator[Exec]:
    """Return the example, which is not up, and the agent of its host, which runs."""
    engine, sources = images
    with served(provider, audit) as agent:
        yield Exec(engine, sources, agent)


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
    wait_until(lambda: example.printed(canary))
    (run,) = example.agent.status()["runs"]
    reserved = example.agent.central.events(kind="reserved")[-1]["fields"]

    assert reserved["caller"]["container"] == example.container("app")["Id"]
    assert (reserved["caller"]["uid"], run["uid"]) == (USER, USER)
    assert canary.core not in str(example.container("app"))
    assert held(example.engine, canary) == []


def test_a_rotation_reaches_the_program_and_down_leaves_nothing(made):
    """Where its scope says so the program is ended, and the engine starts the same container, which gets the new value.

    After ``down`` there is no container, and no byte of either value in all that the engine keeps.
    """
    example, first = made
    example.down()
    example.over = {}
    example.create(on_rotate="terminate")
    example.compose("start")
    wait_until(lambda: example.printed(first))
    container, second = example.container("app")["Id"], Canary()
    example.agent.openbao.kv_put(SECRET, {"database_url": second.value})
    wait_until(lambda: example.printed(second), 60)
    assert example.container("app")["Id"] == container
    example.down()

    assert [held(example.engine, each) for each in (first, second)] == [[], []]
    assert example.engine.left() == {"containers": [], "volumes": [], "networks": []}
    wait_until(lambda: example.agent.status()["runs"] == [])


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


def test_with_user_namespaces_it_is_the_remapped_user(provider, audit, tmp_path):
    """With ``userns-remap`` a container's user is the number that the host has for it; root in it is not root for the agent.

    The socket's group, too, is one that the container's numbers lead to, or it is not even reached.
    """
    sources = context(tmp_path / "sources")
    with Engine(tmp_path, remapped=REMAPPED) as engine, served(provider, audit) as agent:
        example = Exec(engine, sources, agent)
        example.over = {"services": {"app": {"restart": "no"}}}
        canary = Canary()
        provider.kv_put(SECRET, {"database_url": canary.value})
        os.chown(agent.socket, -1, REMAPPED + USER)
        os.chmod(agent.socket, 0o660)
        example.create(REMAPPED + USER)
        example.compose("start")
        wait_until(lambda: example.printed(canary))
        caller = audit.events(kind="reserved")[-1]["fields"]["caller"]
        assert (caller["uid"], caller["container"]) == (REMAPPED + USER, example.container("app")["Id"])

        mount = f"--volume={agent.socket}:/run/prism-vault/agent.sock"
        others = [
            engine.docker("run", "--rm", "--network=none", f"--user={user}", mount, IMAGE, "true", check=False)
            for user in (f"0:{USER}", f"{USER}:{USER}", f"{USER}:0")
        ]
        example.down()
        example.create(USER)
        example.compose("start")
        assert example.ended() == 77
        assert "matches none of its callers" in example.logs("app")
        example.down()

    assert [each.returncode for each in others] == [77, 77, 77], others
    assert ["matches none of its callers" in each.stderr for each in others] == [True, True, False]
    assert "may not use the agent's socket" in others[2].stderr and "mode 0660" in others[2].stderr
    expected = [REMAPPED, REMAPPED + USER, REMAPPED + USER]
    wait_until(lambda: [event["fields"]["caller"]["uid"] for event in audit.events(kind="denied")][-3:] == expected)


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
