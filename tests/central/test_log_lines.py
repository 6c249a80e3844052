"""Central's log and its reader: one that stops reading, or goes, keeps no request waiting, and lost lines are told."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.central.log_lines import LogLines
from tests.central.host import Host
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

PIPE_BYTES = 65_536  # pipe(7)


class Unread(CentralProcess):
    """A central whose log nobody reads until ``read`` is set."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.read = threading.Event()

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        self.read.wait()
        super()._read_log(process)


@pytest.fixture
def unread(tmp_path: Path) -> Iterator[Unread]:
    """Return a running central whose log nobody reads."""
    with Unread(tmp_path) as central:
        yield central
        central.read.set()


def test_a_log_that_nobody_reads_keeps_no_request_waiting(unread):
    """With its log's pipe full for long, central answers every append; what it logged comes once somebody reads."""
    host = Host(unread)
    asked = 2 * PIPE_BYTES // 200
    ids = [host.send(host.make("reserved")).headers["x-request-id"] for _ in range(asked)]
    unread.read.set()

    wait_until(lambda: any(ids[-1] in line for line in unread.log))
    told = {json.loads(line).get("request_id") for line in unread.log}
    assert sum(map(len, unread.log)) > PIPE_BYTES
    assert set(ids) <= told


def test_a_log_whose_reader_is_gone_fails_no_request(unread):
    """With its log's pipe closed, central answers appends, and ends with 0."""
    assert unread.process is not None
    assert unread.process.stderr is not None
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, unread.process.stderr.fileno())  # closes the pipe's reading end
    os.close(nothing)
    host = Host(unread)
    statuses = {host.send(host.make("reserved")).status_code for _ in range(20)}
    unread.read.set()

    assert statuses == {201}
    assert unread.stop() == 0


def test_lost_lines_are_counted_and_told():
    """Beyond as many lines as may wait, lines are lost; once the reader reads, one line says exactly how many."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = os.write(writing, b"." * (PIPE_BYTES + 1))
    os.set_blocking(writing, True)
    lines = LogLines(writing, most=10)
    written = 0
    while lines._lost < 7:
        lines.write(f"line {written}\n")
        written += 1

    def end() -> None:
        lines.close()
        os.close(writing)

    threading.Thread(target=end).start()
    with os.fdopen(reading) as reader:
        reader.read(filled)
        came = reader.readlines()
    told = [line for line in came if line.startswith("{")]
    passed = [int(line.split()[1]) for line in came if line.startswith("line ")]

    assert [json.loads(line) for line in told] == [{"lost": 7, "event": "log_lines_lost", "level": "error"}]
    assert len(passed) == written - 7
    assert passed == sorted(passed)
