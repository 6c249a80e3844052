"""Fixtures of central's tests: one real central for each module, and a host that speaks to it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.central.host import OPEN, Host
from tests.central.own_log import Databases
from tests.central.provider import Login, logged_in
from tests.support.central import ALLOW_ALL, CentralProcess
from tests.support.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLICIES = [
    {
        "project": "prism",
        "environment": "lan",
        "scopes": ["web", "db"],
        "hosts": ["server1", "server2"],
        "kinds": ["service", "operator", "agent", "worker"],
        "purposes": ["service", "deploy-check"],
    },
    {**ALLOW_ALL[0], "project": "other"},
]


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CentralProcess]:
    """Return a central for the hosts server1 and server2 of project prism, and stranger of project other."""
    with CentralProcess(
        tmp_path_factory.mktemp("central"),
        agents={"server1": ["prism"], "server2": ["prism"], "stranger": ["other"]},
        operators={"prism-ops": ["prism"], "other-ops": ["other"]},
        policies=POLICIES,
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close the connections of each test's hosts."""
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture
def host(central: CentralProcess) -> Host:
    """Return server1 with a chain of its own."""
    return Host(central)


@pytest.fixture(scope="session")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Login]:
    """Return a host that has logged in at a running OpenBao."""
    with logged_in(tmp_path_factory.mktemp("openbao")) as made:
        yield made


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Return a running PostgreSQL for tests that make databases of their own in it."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture(scope="module")
def server(postgres: PostgresServer) -> PostgresServer:
    """Return that PostgreSQL with a database for this module; a module that stops or kills it has one of its own."""
    return postgres.fresh()


@pytest.fixture(scope="session")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """Return where SQLite databases are made."""
    return Databases(tmp_path_factory.mktemp("sqlite"), None)


@pytest.fixture(scope="session")
def postgresql_databases(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Databases:
    """Return where PostgreSQL databases are made."""
    return Databases(tmp_path_factory.mktemp("postgresql"), postgres)


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest) -> Databases:
    """Return where databases are made, once for each kind."""
    made: Databases = request.getfixturevalue(f"{request.param}_databases")
    return made


@pytest.fixture(params=["sqlite", "postgresql"])
def serving(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CentralProcess]:
    """Return a central on a database of its own, of each kind, that is not started yet."""
    with contextlib.ExitStack() as stack:
        server = request.getfixturevalue("postgres").fresh() if request.param == "postgresql" else None
        central = CentralProcess(tmp_path, server=server)
        stack.callback(central.stop)
        yield central
