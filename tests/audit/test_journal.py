"""The journal: what waits survives any end of the agent, and nothing but what waits."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_vault_agent.audit.journal import Journal
from prism_vault_agent.errors import CannotCreate


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def _event(number: int) -> dict[str, object]:
    return {"event_id": f"{number:032x}", "kind": "cleared", "reason": "exited"}


async def _ids(path: str) -> list[str]:
    return [str(fields["event_id"]) for fields in await Journal(path).load()]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=30), st.data())
def test_a_later_agent_finds_exactly_what_was_kept_and_not_dropped(steps: list[tuple[bool, int]], data: st.DataObject) -> None:
    """After any sequence of keeping, dropping and restarting, what waits is loaded, in order, once each."""
    path = f"/tmp/prism-vault-journal-{os.getpid()}"
    Path(path).unlink(missing_ok=True)

    async def play() -> None:
        journal = Journal(path)
        await journal.load()
        waiting: list[str] = []
        for keep, number in steps:
            name = str(_event(number)["event_id"])
            if keep and name not in waiting:
                await journal.keep(_event(number))
                waiting.append(name)
            elif not keep and name in waiting:
                await journal.drop(name)
                waiting.remove(name)
            if data.draw(st.booleans()):
                journal = Journal(path)
                assert [fields["event_id"] for fields in await journal.load()] == waiting
        assert await _ids(path) == waiting
        assert waiting or Path(path).stat().st_size == 0

    try:
        _run(play())
    finally:
        Path(path).unlink(missing_ok=True)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_f30_a_line_that_a_crash_has_torn_spoils_no_other(tmp_path: Path, cut: int) -> None:
    """Wherever the last write was cut, the lines before it are there, and so are those that a later agent adds."""
    path = str(tmp_path / "journal")

    async def play() -> list[str]:
        first = Journal(path)
        await first.load()
        await first.keep(_event(1))
        whole = Path(path).stat().st_size
        await first.keep(_event(2))
        os.truncate(path, whole + cut)
        second = Journal(path)
        await second.load()
        await second.keep(_event(3))
        return await _ids(path)

    assert _run(play()) == [_event(1)["event_id"], _event(3)["event_id"]]


@pytest.mark.parametrize("garbage", [b"\xff\xfe\0", b"17\n", b"[]\n", b'{"kind": "cleared"}\n', b"{\n", b"\n\n"])
def test_what_is_no_event_is_passed_over(tmp_path: Path, garbage: bytes) -> None:
    """A damaged journal does not keep the agent from starting, nor from telling what can still be read."""
    path = tmp_path / "journal"

    async def play() -> list[str]:
        path.write_bytes(garbage)
        await Journal(str(path)).keep(_event(1))
        return await _ids(str(path))

    assert _run(play()) == [_event(1)["event_id"]]


def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    """The journal is created with mode 0600 whatever the umask, and a symbolic link in its place is not followed."""
    path = tmp_path / "journal"
    before = os.umask(0)
    try:
        _run(Journal(str(path)).keep(_event(1)))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    victim = tmp_path / "victim"
    link = tmp_path / "link"
    link.symlink_to(victim)
    with pytest.raises(CannotCreate):
        _run(Journal(str(link)).keep(_event(1)))
    assert not victim.exists()


def test_f29_a_disk_that_does_not_take_it_is_a_typed_error(tmp_path: Path) -> None:
    """Where the event cannot be kept the error says so and names the file; nothing is claimed to be kept."""
    with pytest.raises(CannotCreate, match="cannot keep audit records in /dev/full: No space left on device"):
        _run(Journal("/dev/full").keep(_event(1)))
    with pytest.raises(CannotCreate):
        _run(Journal(str(tmp_path / "no" / "journal")).keep(_event(1)))
