"""One OpenBao and one central for each test process, and agents between them: one for a file, or one of a test's own."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.support.agent import AgentProcess
from tests.support.central import CentralProcess
from tests.support.openbao import OpenBao

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = {"url": "canary-5b1d77e0", "number": 42}

_numbers = itertools.count(1)


class MakeAgent(Protocol):
    """Makes an agent, with the scope ``web`` for this test's user, that is stopped after the test."""

    def __call__(self, **options: Any) -> AgentProcess:
        """Options are those of ``AgentProcess``."""
        ...


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory with a path short enough for sockets, that other users may pass through."""
    directory = Path(tempfile.mkdtemp(prefix="pv-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def openbao(place) -> Iterator[OpenBao]:
    """A real OpenBao with the secret of scope ``web``."""
    with OpenBao(place / "openbao") as server:
        server.kv_put("secret/web", SECRET)
        yield server


@pytest.fixture(scope="session")
def central(place) -> Iterator[CentralProcess]:
    """A real central."""
    directory = place / "central"
    directory.mkdir(mode=0o700)
    with CentralProcess(directory) as server:
        yield server


@contextlib.contextmanager
def agents(place: Path, openbao: OpenBao, central: CentralProcess) -> Iterator[MakeAgent]:
    made: list[AgentProcess] = []

    def make(**options: Any) -> AgentProcess:
        directory = place / f"a{next(_numbers)}"
        directory.mkdir()
        agent = AgentProcess(directory, openbao, central, **options)
        agent.scope("web", {"URL": "vault://secret/web#url"})
        made.append(agent)
        return agent

    try:
        yield make
    finally:
        for agent in made:
            agent.kill()


@pytest.fixture
def make_agent(place, openbao, central) -> Iterator[MakeAgent]:
    """Agents of one test."""
    with agents(place, openbao, central) as make:
        yield make


@pytest.fixture(scope="module")
def agent(place, openbao, central) -> Iterator[AgentProcess]:
    """The agent that the tests of a file share; none of them changes it."""
    with agents(place, openbao, central) as make:
        yield make().start()


@pytest.fixture(scope="module")
def running(place, openbao, central) -> Iterator[AgentProcess]:
    """An agent with a scope whose grace is short, for the tests of a file."""
    with agents(place, openbao, central) as make:
        agent = make()
        agent.scope("quick", {"URL": "vault://secret/web#url"}, grace="2s")
        yield agent.start()


@pytest.fixture
def short(place) -> Path:
    """A directory of the test's own with a short path."""
    return Path(tempfile.mkdtemp(dir=place))
