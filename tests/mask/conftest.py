"""An agent that answers at once with values to be masked."""

from __future__ import annotations

import pytest

from tests.exec.fake_agent import FakeAgent, answer

SECRET = b"canary/3f9a+secret"
KEY = b"-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----"


@pytest.fixture(scope="package")
def agent(tmp_path_factory):
    """An agent that releases a token, a key of several lines and a port."""
    with FakeAgent(tmp_path_factory.mktemp("agent"), answer({b"TOKEN": SECRET, b"KEY": KEY, b"PORT": b"5432"})) as running:
        yield running
