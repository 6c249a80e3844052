"""Stacks whose agent renders files: as we are, which is root where the tests are root's, and as an ordinary user."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.as_user import NOBODY
from tests.support.files import Filed, filed

if TYPE_CHECKING:
    from collections.abc import Iterator

USERS = [pytest.param(None, id="we"), pytest.param(NOBODY, id="ordinary user", marks=pytest.mark.root)]
# The worst one: what the agent makes has the mode that it asks for, or all would have it.
WITHOUT_UMASK = ["/bin/sh", "-c", 'umask 000 && exec "$@"', "sh"]


@pytest.fixture(scope="session", params=USERS)
def made(request: pytest.FixtureRequest) -> Iterator[Filed]:
    """A stack that the tests of all files share; each test has scopes of its own in it."""
    with filed(user=request.param, before=WITHOUT_UMASK) as running:
        running.render(running.scope("first"))  # so that its directory is there
        yield running


@pytest.fixture
def above(made: Filed) -> Iterator[Path]:
    """A directory of the agent's user, on a tmpfs, in which a test may do what it likes."""
    found = Path(tempfile.mkdtemp(prefix="pv-", dir="/dev/shm"))
    found.chmod(0o755)
    made.give(found)
    yield found
    shutil.rmtree(found)
