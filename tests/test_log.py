"""What the daemons log: never a value, never a forged line, and never waiting for a reader (F94)."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent import log
from prism_vault_agent.errors import Denied

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "canary-8f1c"


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Give logging back to the tests afterwards."""
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    for line in log._open:
        line.close()
    log._open.clear()
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


class File:
    """A file that is logged to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def lines(self) -> list[str]:
        """Return the lines that were logged."""
        return self.path.read_text().splitlines()

    def events(self) -> list[dict[str, Any]]:
        """Return the lines as JSON."""
        return [json.loads(line) for line in self.lines()]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    opened = File(tmp_path / "log")
    yield opened
    os.close(opened.descriptor)


def test_a_line_is_one_json_object(file: File):
    """Each event is one object with time, level and event first, then what goes with it."""
    log.configure("json", "info", file.descriptor)
    structlog.get_logger().info("render.released", pid=7, names=["A"], path=Path("/x"))
    (event,) = file.events()
    assert list(event)[:3] == ["timestamp", "level", "event"]
    assert event.items() >= {"level": "info", "event": "render.released", "pid": 7, "names": ["A"], "path": "/x"}.items()


def test_the_level_is_kept(file: File):
    """What is below the level is not written."""
    log.configure("json", "warning", file.descriptor)
    logger = structlog.get_logger()
    for name in ("debug", "info", "warning", "error", "critical"):
        getattr(logger, name)(name)
    assert [event["event"] for event in file.events()] == ["warning", "error", "critical"]


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("rich", [False, True])
def test_an_exception_shows_neither_its_text_nor_its_variables(tmp_path: Path, log_format: str, rich: bool):  # noqa: FBT001
    """A traceback is told as type and places: no message, no arguments, no locals; also where rich is importable."""
    (tmp_path / "rich").mkdir()
    if rich:
        for name in ("__init__", "console", "traceback"):
            (tmp_path / "rich" / f"{name}.py").write_text("class Console:\n  pass\nclass Traceback:\n  pass\n")
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "import structlog\nfrom prism_vault_agent import log\n"
        f"log.configure({log_format!r})\n"
        f"def inner(value):\n    local = value * 2\n    raise ValueError(value)\n"
        f"try:\n    inner('{CANARY}')\nexcept ValueError as error:\n    log = structlog.get_logger()\n"
        "    log.exception('failed')\n    log.error('again', exc_info=error)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path), str(Path(log.__file__).parents[1])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert CANARY not in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert done.stderr.count("ValueError") == 2
    assert done.stderr.count("__main__:") == 4


def test_an_error_of_ours_keeps_its_line(file: File):
    """Messages of typed errors are made of names only, so they are told."""
    log.configure("json", "info", file.descriptor)
    try:
        raise Denied("no", mend="ask")
    except Denied:
        structlog.get_logger().exception("failed")
    assert file.events()[0]["message"] == "no; ask"


def test_a_value_that_is_no_word_is_told_by_its_type(file: File):
    """An object that finds its way into an event does not print itself."""

    class Secret:
        def __repr__(self) -> str:
            return CANARY

    log.configure("json", "info", file.descriptor)
    structlog.get_logger().info("event", value=Secret(), many=[CANARY.encode()])
    assert CANARY not in file.lines()[0]
    assert file.events()[0]["value"] == "<Secret>"


def test_libraries_are_told_without_their_words(file: File):
    """What a library logs is told by logger and place; its text may hold an address or a header."""
    log.configure("json", "info", file.descriptor)
    logging.getLogger("urllib3").warning("GET /v1/%s", CANARY)
    logging.getLogger("urllib3").info("not at all")
    (event,) = file.events()
    assert (event["event"], event["logger"], event["level"]) == ("library.message", "urllib3", "warning")
    assert CANARY not in file.lines()[0]


@given(st.text(max_size=60), st.text(max_size=20))
def test_no_text_can_forge_a_line(text: str, name: str):
    """Whatever is logged, in either format, is one line of printable ASCII."""
    reader, writer = os.pipe()
    try:
        for log_format in ("json", "console"):
            log.configure(log_format, "info", writer)
            structlog.get_logger().info(text, **{name: text} if name not in ("event", "level", "timestamp") else {})
            told = os.read(reader, 65536).decode("ascii")
            assert told.endswith("\n")
            assert told.count("\n") == 1
            assert told[:-1].isprintable()
    finally:
        log.configure()
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("kind", ["pipe", "socket", "closed /proc"])
def test_a_reader_that_does_not_read_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, kind: str):
    """With a full pipe or socket lines are dropped and counted; the first that gets through again says how many (F94)."""
    if kind == "socket":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        reader, writer = ours.detach(), theirs.detach()
    else:
        reader, writer = os.pipe()
    if kind == "closed /proc":
        original = os.open
        monkeypatch.setattr(os, "open", lambda path, *rest: original(f"/none{path}", *rest))
    log.configure("json", "info", writer)
    logger = structlog.get_logger()
    sent = 20_000

    def write() -> None:
        for number in range(sent):
            logger.info("line", number=number)

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    writing.join(60)
    assert not writing.is_alive(), "logging waits for its reader"
    os.set_blocking(reader, False)
    received = _drain(reader)
    logger.info("after")
    received += _drain(reader)
    events = [json.loads(line) for line in received.splitlines()]
    assert events[-1]["event"] == "after"
    assert events[-2] == {"event": "log.dropped", "level": "warning", "lines": sent - (len(events) - 2)}
    assert os.get_blocking(writer), "the descriptor that others share has been changed"
    os.close(reader)
    os.close(writer)


def _drain(reader: int) -> str:
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(reader, 1 << 20)
        except BlockingIOError:
            return b"".join(parts).decode()
        parts.append(part)


def test_a_reader_that_is_gone_is_no_error():
    """A closed pipe loses lines and nothing else."""
    reader, writer = os.pipe()
    log.configure("json", "info", writer)
    os.close(reader)
    structlog.get_logger().info("line")
    os.close(writer)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_line_that_is_too_long_is_cut(file: File, log_format: str):
    """A line fits into one write of a pipe, so that lines of two processes never mix; a cut one is still well formed."""
    log.configure(log_format, "info", file.descriptor)
    structlog.get_logger().info("long", text="x" * 100_000)
    (line,) = file.lines()
    assert len(line) < log.LONGEST_LINE
    if log_format == "json":
        assert file.events()[0]["cut"] > 100_000
