"""The machine on which the units of the agent are tested, one for the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.agent_unit import RENDER, WEB, AgentUnit
from tests.support.booted import Booted
from tests.support.central import CentralProcess
from tests.support.openbao import OpenBao
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


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
