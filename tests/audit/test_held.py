"""What a witness keeps: whole or not at all, for the next start, and evidence that nothing but an operator takes away."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.audit.held import Held, WitnessFiles
from prism_vault_agent.audit.our_rows import Row
from prism_vault_agent.audit.receipts import promise
from prism_vault_agent.errors import CannotCreate, IntegrityError
from tests.audit.signed_log import KEY, NAME, SignedLog

if TYPE_CHECKING:
    from pathlib import Path


def _held(size: int = 3) -> Held:
    log = SignedLog()
    given = promise([KEY.verifying_key], *log.append(*(b"%d" % number for number in range(size))))
    assert given is not None
    return Held(log.checkpoint(size), log.note(size), Row(*given.rows[-1], given), 7)


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    """A later agent finds the checkpoint, its note and the newest row's receipt; nothing was held before the first."""
    files = WitnessFiles(str(tmp_path), NAME)
    assert files.load() == Held()
    for held in (_held(3), _held(5), Held(row=_held().row, kept_at=1)):
        files.keep(held)
        assert WitnessFiles(str(tmp_path), NAME).load() == held
    assert stat.S_IMODE(os.stat(files.checkpoint).st_mode) == 0o600
    assert os.listdir(tmp_path) == [os.path.basename(files.checkpoint)]


def test_each_log_has_files_of_its_own(tmp_path: Path) -> None:
    """What is held of one log, and found against it, says nothing of another one."""
    one, two = WitnessFiles(str(tmp_path), NAME), WitnessFiles(str(tmp_path), "log.example/two")
    one.keep(_held())
    one.accuse({"found": "it went back"})
    assert two.load() == Held()
    assert two.accused() == ""
    os.rename(one.checkpoint, two.checkpoint)
    with pytest.raises(IntegrityError, match="about another log"):
        two.load()


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", '{"note": 1}', '{"note": "x", "row": null, "kept_at": 1}', "[" * 99_999]
)
def test_a_damaged_file_is_told(tmp_path: Path, content: str) -> None:
    """What cannot be understood is not taken for a first start: whoever damages the file would have the log forgotten."""
    files = WitnessFiles(str(tmp_path), NAME)
    with open(files.checkpoint, "w", encoding="utf-8") as file:
        file.write(content)
    with pytest.raises(IntegrityError, match="is damaged"):
        files.load()


def test_no_byte_of_the_file_can_go_unnoticed(tmp_path: Path) -> None:
    """A file that is cut short at any place is damaged, not empty."""
    files = WitnessFiles(str(tmp_path), NAME)
    files.keep(_held())
    with open(files.checkpoint, "rb") as file:
        whole = file.read()
    for length in range(len(whole) - 2):
        with open(files.checkpoint, "wb") as file:
            file.write(whole[:length])
        with pytest.raises(IntegrityError, match="is damaged"):
            files.load()


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_what_the_disk_does_not_take_leaves_the_old_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """Where the new file cannot be made durable, the old one stays, and that is told with its place."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    files = WitnessFiles(str(tmp_path), NAME)
    files.keep(_held(3))
    with monkeypatch.context() as patched:
        patched.setattr(os, fails, full)
        with pytest.raises(CannotCreate, match=f"cannot keep {files.checkpoint}: No space left on device"):
            files.keep(_held(5))
    assert files.load() == _held(3)
    files.keep(_held(5))
    assert files.load() == _held(5)


def test_evidence_holds_everything_that_shows_it(tmp_path: Path) -> None:
    """Evidence is in words, with central's answer, and with what was held; it stays until it is set aside, not overwritten."""
    files = WitnessFiles(str(tmp_path), NAME)
    files.keep(_held())
    files.accuse({"found": "it went back", "given": "the answer"})
    assert files.accused() == "it went back"
    with open(files.evidence, encoding="utf-8") as file:
        evidence = json.load(file)
    assert evidence["given"] == "the answer"
    assert json.loads(evidence["held"])["note"] == _held().note
    aside = files.forget()
    assert files.accused() == ""
    assert files.load() == Held()
    assert sorted(os.listdir(tmp_path)) == sorted(map(os.path.basename, aside))
    assert len(aside) == 2
    assert files.forget() == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_evidence_that_cannot_be_read_is_evidence(tmp_path: Path, content: str) -> None:
    """An evidence file is in force whatever is in it."""
    files = WitnessFiles(str(tmp_path), NAME)
    with open(files.evidence, "w", encoding="utf-8") as file:
        file.write(content)
    assert files.evidence in files.accused()
    os.unlink(files.evidence)
    os.symlink("/nonexistent", files.evidence)
    assert files.evidence in files.accused()
