"""One helper for the tests of a file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.helper import HelperProcess

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A directory of root's with a short path, through which everybody may pass."""
    found = Path(tempfile.mkdtemp(prefix="pv-", dir="/tmp"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


@pytest.fixture(scope="module")
def helper(directory) -> Iterator[HelperProcess]:
    """A helper for an agent of the user nobody."""
    with HelperProcess(directory) as running:
        yield running
