"""An engine that is away, is none, or answers what it should not: each is told in a line, and nothing is read without end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.errors import Unavailable
from prism_vault_agent.notify import container
from prism_vault_agent.notify.occasion import Occasion
from prism_vault_agent.scope import Notify

if TYPE_CHECKING:
    from pathlib import Path

LISTED = b'HTTP/1.0 200 OK\r\n\r\n[{"Id": "abc", "State": "running"}]'


def told(path: Path, *answers: bytes, how: str = "HUP", hang: bool = False) -> tuple[str, list[str]]:
    """Tell a container of an engine that gives these answers; return what it told or why not, and the requests."""
    asked: list[str] = []
    waiting = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n")).decode().strip())
        writer.write(waiting.pop(0))
        if hang:
            await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def tell() -> str:
        server = await asyncio.start_unix_server(answer, path)
        async with server, asyncio.timeout(1 if hang else 60):
            return await container.tell(Notify("container", ("web",), how, ("f",), str(path)), Occasion("s", 1, "/d"))

    try:
        return asyncio.run(tell()), asked
    except (Unavailable, TimeoutError) as error:
        return str(error) or "time", asked


def test_it_is_listed_and_not_inspected(tmp_path: Path):
    """The two requests are a list of that name and the signal: what would answer with its environment is not asked."""
    done, asked = told(tmp_path / "s", LISTED, b"HTTP/1.0 204 No Content\r\n\r\n")
    assert done == ""
    assert [each.split("?")[0] for each in asked] == ["GET /containers/json", "POST /containers/abc/kill"]
    assert asked[1] == "POST /containers/abc/kill?signal=SIGHUP HTTP/1.0"


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([b""], "is no engine"),
        ([b"SSH-2.0-x\r\n\r\n"], "is no engine"),
        ([b"HTTP/1.0 200 OK\r\n\r\n{}"], "is no engine"),
        ([b"HTTP/1.0 200 OK\r\n\r\n[1]"], "is no engine"),
        ([b"HTTP/1.0 500 Oops\r\n\r\n"], "is no engine"),
        ([b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 3_000_000], "is no engine"),
        ([b"HTTP/1.0 200 OK\r\n\r\n[]"], "no such container"),
        ([LISTED.replace(b"}]", b'}, {"Id": "d", "State": "running"}]')], "names several"),
        ([LISTED, b"HTTP/1.0 403 No\r\n\r\n"], "refuses"),
        ([LISTED, b"HTTP/1.0 404 No\r\n\r\n"], "no longer has it"),
        ([LISTED, b"HTTP/1.0 500 No\r\n\r\n\x1b[31mwhy\nmore"], r"answered 500: \?\[31mwhy$"),
        ([LISTED, b"HTTP/1.0 409 Conflict\r\n\r\n"], "it does not run"),
    ],
)
def test_a_wrong_answer_is_told_in_a_line(tmp_path: Path, answers: list[bytes], why: str):
    """Whatever answers on the socket, the outcome is one line that says what it is."""
    done, _ = told(tmp_path / "s", *answers)
    assert "\n" not in done
    assert re.search(why, done), done


def test_an_engine_that_hangs_is_left_when_the_time_is_up(tmp_path: Path):
    """The wait is as long as who waits says, and no descriptor is left."""
    before = len(os.listdir("/proc/self/fd"))
    done, _ = told(tmp_path / "s", b"HTTP/1.0 200 OK\r\n", hang=True)
    assert done == "time"
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_an_engine_that_is_told(tmp_path: Path):
    """A socket that is not there, or is none, is told by its path."""
    (tmp_path / "file").touch()
    for name, why in (("none", "No such file"), ("file", "Connection refused")):
        notify = Notify("container", ("w",), "HUP", ("f",), str(tmp_path / name))
        with pytest.raises(Unavailable, match=f"{tmp_path / name} cannot be used: {why}"):
            asyncio.run(container.tell(notify, Occasion("s", 1, "/d")))
