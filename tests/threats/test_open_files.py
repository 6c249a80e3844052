"""T15: who has a file open when it is taken back reads nothing more."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.signalled import order
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.files import Filed


def removed(made: Filed, name: str) -> None:
    (made.stack.agent.directory / "scopes.d" / f"{name}.toml").unlink()
    made.reload()


def revoked(made: Filed, name: str) -> None:
    wait_until(lambda: made.stack.agent.status()["signals"]["connected"], 30)
    order(made.stack.central, "revocations", scope=name, reason="leaked")


WAYS: dict[str, Callable[[Filed, str], object]] = {
    "clear": lambda made, name: made.command("clear", name),
    "deleted": lambda made, name: made.stack.openbao.must("DELETE", f"secret/data/{name}"),
    "removed": removed,
    "revoked": revoked,
}


@pytest.mark.parametrize("way", WAYS)
def test_t15_an_open_descriptor_reads_nothing_after_the_end(made, way):
    """However a file is taken back, a descriptor that was open before gives its content until then, and nothing after it."""
    name = made.scope(f"open-{way}")
    made.render(name)
    descriptor = os.open(made.top / name / "web.env", os.O_RDONLY)
    try:
        assert os.pread(descriptor, 4096, 0).decode() == made.whole(name, 1)
        WAYS[way](made, name)
        wait_until(lambda: made.file(name) is None, 30)
        wait_until(lambda: os.pread(descriptor, 4096, 0) == b"")
        assert os.fstat(descriptor).st_nlink == 0
    finally:
        os.close(descriptor)
    assert made.residue() == []
