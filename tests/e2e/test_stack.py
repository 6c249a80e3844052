"""compose/stack on a real engine: everything from nothing to a program with its secret, and back to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.composed import Example, held
from tests.support.images import OPENBAO, POSTGRES
from tests.support.leaks import Canary
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.engine import Engine

SERVICES = {"vault", "postgres", "central-1", "central-2", "agent", "app"}


class Stack(Example):
    """The example as it ships."""

    def __init__(self, engine: Engine, sources: Path) -> None:
        super().__init__(engine, sources, "stack")
        self.environment = {"OPENBAO": OPENBAO, "POSTGRES": POSTGRES}
        patient = {"healthcheck": {"timeout": "20s", "retries": 60}}  # as a busy machine needs it
        self.over = {"services": {name: dict(patient) for name in ("agent", "central-1", "central-2")}}

    def rotate(self, canary: Canary) -> None:
        """Make a canary the newest version of the secret."""
        file = self.directory / "value"
        file.write_text(canary.value)
        with file.open() as value:
            self.compose("run", "--rm", "-T", "--no-deps", "setup-vault", "rotate", stdin=value)
        file.unlink()

    def prints(self, canary: Canary) -> None:
        """Wait until the last thing that the program printed is the digest of a canary."""
        wait_until(lambda: self.printed(canary), 90)

    def volume(self, name: str) -> Path:
        """Return where the engine keeps a volume."""
        return self.engine.state / "volumes" / f"stack_{name}" / "_data"


@pytest.fixture(scope="module")
def example(servers) -> Stack:
    """Return the example, which is not up."""
    return Stack(*servers)


@pytest.fixture(scope="module")
def up(example: Stack) -> Iterator[tuple[Stack, Canary]]:
    """Return the example up, with a secret that no test changes before it ends."""
    example.up()
    canary = Canary()
    example.rotate(canary)
    example.prints(canary)
    yield example, canary
    example.down()


def test_a_rotation_reaches_the_program(up):
    """A program prints the digest of what was stored last; only its file has it, and the rows are at central."""
    example, canary = up
    told = [line for service in SERVICES for line in example.logs(service).splitlines()]

    assert [path.rpartition("/volumes/")[2] for path in held(example.engine, canary)] == ["stack_files/_data/web/web.env"]
    assert not [line for line in told if canary.core in line]
    assert [line for line in told if '"event": "appended"' in line and '"host": "server1-web"' in line]


def test_one_replica_of_central_is_enough(up):
    """While one of the two is killed a rotation reaches the program all the same, recorded by the other."""
    example, canary = up
    second = Canary()
    example.compose("kill", "central-1")
    example.rotate(second)
    example.prints(second)
    appended = [line for line in example.logs("central-2").splitlines() if '"event": "appended"' in line]
    example.compose("start", "central-1")
    example.rotate(canary)
    example.prints(canary)

    assert appended


def test_it_comes_back(up):
    """Stopped and brought up again, a sealed server is unsealed, and the program has the same secret."""
    example, canary = up
    example.compose("stop")
    assert held(example.engine, canary) == []
    example.up()
    example.prints(canary)


def test_down_leaves_nothing(example):
    """After ``down --volumes`` no container, volume or network is left, and no byte of the secret in what the engine keeps."""
    example.up()
    canary = Canary()
    example.rotate(canary)
    example.prints(canary)
    example.down()

    assert held(example.engine, canary) == []
    assert example.engine.left() == {"containers": [], "volumes": [], "networks": []}


def test_what_central_does_not_allow_does_not_start(example):
    """Where no policy of central's names the scope the agent ends with 77 on the record, and the program is not started."""
    example.down()
    example.compose("run", "--rm", "setup-files")
    file = example.volume("setup-central") / "central.toml"
    file.write_text(file.read_text().replace('scopes = ["web"]', 'scopes = ["other"]'))
    example.over["services"]["agent"]["restart"] = "no"
    try:
        done = example.up(check=False)
        agent, app = (example.container(service)["State"] for service in ("agent", "app"))
        line = example.logs("agent").splitlines()[-1]
    finally:
        del example.over["services"]["agent"]["restart"]
        example.down()

    assert done.returncode != 0
    assert (agent["ExitCode"], app["Status"]) == (77, "created")
    assert line.startswith("prism-vault: scope web: ")
