"""The machine on which the units of the agent are tested, and the engine of the examples of Compose: one of each for the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import images as build
from tests.support.agent_unit import RENDER, WEB, AgentUnit
from tests.support.booted import Booted
from tests.support.central import CentralProcess
from tests.support.engine import Engine
from tests.support.openbao import OpenBao
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentUnit]:
    """Return the machine with the units installed; of the agent only the socket is started."""
    own = tmp_path_factory.mktemp("central")
    with (
        OpenBao(tmp_path_factory.mktemp("openbao")) as openbao,
        CentralProcess(own) as central,
        Booted(tmp_path_factory.mktemp("booted"), our_network=True) as booted,
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
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Path]]:
    """Return an engine that has the agent's image, and the sources that it was built from."""
    with Engine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine, build.agent(engine, tmp_path_factory.mktemp("sources"))


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
