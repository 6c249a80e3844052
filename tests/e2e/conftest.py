"""The machine on which the units of the agent are tested, and the engine of the examples of Compose: one of each for the run.

With ``--dist loadscope``, what shares one of them runs in one process, so that it is booted, and its images are built, once.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.support import images as build
from tests.support.agent_unit import RENDER, WEB, AgentUnit
from tests.support.booted import Booted
from tests.support.central import CentralProcess
from tests.support.engine import Engine
from tests.support.openbao import OpenBao
from tests.support.roots import NEWER, SUITE
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# What must hold on the newer systemd, with its cgroup v2, as on the other: not all of it, since each takes its minutes.
ON_BOTH = ("test_agent_units", "test_credentials", "test_install", "test_relay_unit", "test_remain_after_exit")

ON_THE_MACHINE = (
    "test_agent_unit_faults", "test_agent_units", "test_core_dumps", "test_credentials", "test_helper_unit",
    "test_leased_credential", "test_on_end", "test_relay_unit", "test_remain_after_exit",
)  # fmt: skip
OF_OUR_IMAGES = (
    "test_central_compose", "test_container_trees", "test_exec_container", "test_rotation", "test_sidecar", "test_stack",
)  # fmt: skip
AN_ENGINE_OF_ITS_OWN = "test_with_user_namespaces_it_is_the_remapped_user"


class Shared(LoadScopeScheduling):  # type: ignore[misc]
    """Gives all tests of one machine, or of our images, to one process; other tests by file and Debian."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        name = PurePath(file).stem
        if name in OF_OUR_IMAGES and test != AN_ENGINE_OF_ITS_OWN:
            return "images"
        return f"{'machine' if name in ON_THE_MACHINE else name} {NEWER if f'[{NEWER}' in test else SUITE}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shared | None:
    """Have it share tests out among processes, where these are to be told apart by what they share."""
    return Shared(config, log) if config.getoption("dist") == "loadscope" else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Say of each test here what all of them need together, which ``prepare`` installs, and how long it may take."""
    for tool in ("systemd-nspawn", "debootstrap", "dockerd", "initdb"):
        item.add_marker(pytest.mark.tool(tool))
    for mark in (pytest.mark.root, pytest.mark.namespaces, pytest.mark.timeout(600)):
        item.add_marker(mark)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have the tests that use a machine use it once for each Debian that they are for."""
    if "suite" in metafunc.fixturenames:
        name = metafunc.module.__name__.rpartition(".")[2]
        metafunc.parametrize("suite", (SUITE, NEWER) if name in ON_BOTH else (SUITE,), scope="session")


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory, suite: str) -> Iterator[AgentUnit]:
    """Return the machine with the units installed; of the agent only the socket is started."""
    own = tmp_path_factory.mktemp("central")
    with (
        OpenBao(tmp_path_factory.mktemp("openbao")) as openbao,
        CentralProcess(own) as central,
        Booted(tmp_path_factory.mktemp("booted"), our_network=True, suite=suite) as booted,
    ):
        yield AgentUnit(booted, openbao, central)


@pytest.fixture
def web(host: AgentUnit) -> AgentUnit:
    """Return the machine with ``web.service`` running on the first value."""
    host.rotate("web", 1)
    wait_until(lambda: host.status()["ready"])
    host.systemctl("stop", RENDER)
    host.booted.run("systemctl", "reset-failed")
    host.systemctl("start", WEB)
    assert host.holds("web", 1)
    return host


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Return an engine, for tests that leave nothing in it but images."""
    with Engine(tmp_path_factory.mktemp("engine")) as running:
        yield running


@pytest.fixture(scope="session")
def images(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Path]:
    """Return the engine with the agent's image, and the sources that it was built from."""
    return engine, build.agent(engine, tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """Return a provider on this machine's loopback."""
    with OpenBao(tmp_path_factory.mktemp("openbao")) as openbao:
        yield openbao


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CentralProcess]:
    """Return central on this machine's loopback."""
    with CentralProcess(tmp_path_factory.mktemp("central")) as central:
        yield central


@pytest.fixture(scope="session")
def servers(images: tuple[Engine, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Path]:
    """Return the engine with the images of everything else, too."""
    engine, sources = images
    build.central(engine, sources)
    build.openbao(engine, tmp_path_factory.mktemp("openbao-image"))
    build.postgresql(engine, tmp_path_factory.mktemp("postgres-image"))
    return engine, sources
