"""Servers that the tests of the adapter share; each test uses paths, roles and tokens of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.certificates import Tls
from tests.support.openbao import OpenBao
from tests.support.vault import OPEN


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close the transports of each test."""
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with OpenBao(tmp_path_factory.mktemp("bao")) as server:
        yield server


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def tls_bao(tmp_path_factory: pytest.TempPathFactory, tls: Tls) -> Iterator[OpenBao]:
    with OpenBao(tmp_path_factory.mktemp("tls-bao"), tls=tls) as server:
        yield server


@pytest.fixture
def token(bao: OpenBao) -> str:
    """A token that may read everything below secret/."""
    bao.policy("read-secret", 'path "secret/*" { capabilities = ["read"] }')
    return bao.token(["read-secret"])
