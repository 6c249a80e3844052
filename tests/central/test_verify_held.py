"""``prism-vault audit verify`` with what an agent holds: a checkpoint, the head of its chain, receipts. By the real command."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.central.signing import read_key
from tests.central.host import Host
from tests.central.test_audit_copies import audit
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Held:
    """A central with four events of server1 on its log, an older copy of it with two, and what server1 holds of the four."""

    central: CentralProcess
    older: Path
    key: str
    holds: dict[str, Any]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    """Return the central, which serves, and what its host holds."""
    older = tmp_path_factory.mktemp("older") / "audit.db"
    with CentralProcess(tmp_path_factory.mktemp("held"), agents={"server1": ["*"]}) as central:
        host = Host(central)
        host.end("success", host.reserve())
        wait_until(lambda: _size(host) == 2)
        with contextlib.closing(sqlite3.connect(central.database)) as source, contextlib.closing(sqlite3.connect(older)) as copy:
            source.backup(copy)
        opening = host.make("reserved")
        answers = [host.send(opening), host.end("failure", json.loads(opening)["reservation"])]
        wait_until(lambda: _size(host) == 4)
        holds = {
            "note": host.client.get("/v1/audit/checkpoint").json(),
            "head": host.client.get("/v1/audit/head").json(),
            "receipt": [answer.json() for answer in answers],
        }
        yield Held(central, older, str(read_key(central.key_file).verifying_key), holds)


def _size(host: Host) -> int:
    return int(host.client.get("/v1/audit/checkpoint").json().get("size", 0))


def verified(agent: Held, directory: Path, held: dict[str, Any], *where: str) -> tuple[int, str]:
    """Run the command with these things in files, and return its exit status and what it says is wrong."""
    words = ["--log-key", agent.key, *where]
    for what, content in held.items():
        file = directory / what
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        words += [f"--{what}", str(file)]
    ended = audit(agent.central, "verify", *words)
    return ended.returncode, ended.stderr.strip()


def test_what_an_agent_holds_is_on_the_log(agent, tmp_path: Path):
    """All three verify against the log that they are from: asked of central, and in its database, which grew meanwhile."""
    database = str(agent.central.database)

    assert verified(agent, tmp_path, agent.holds) == (0, "")
    assert verified(agent, tmp_path, agent.holds, "--database", database) == (0, "")
    lines = "".join(json.dumps(each) + "\n" for each in agent.holds["receipt"])
    assert verified(agent, tmp_path, {"note": agent.holds["note"]["note"], "receipt": lines}, "--database", database) == (0, "")


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("note", "first bad index 3: the log ends with leaf 1, and {} has a checkpoint of 4 leaves"),
        ("head", "first bad index 3: event 4 of host server1, which {} holds, is not on the log"),
        ("receipt", "first bad index 3: row 3, which the receipt in {} promises, is not on the log"),
    ],
)
def test_a_log_that_went_back_is_told_by_each(agent, tmp_path: Path, what: str, told: str):
    """An older copy of the log is whole by itself; each thing that is held tells what is missing, where, and who says so."""
    database = ("--database", str(agent.older))

    assert verified(agent, tmp_path, {}, *database) == (0, "")
    status, said = verified(agent, tmp_path, {what: agent.holds[what]}, *database)
    assert status == 65
    assert told.format(tmp_path / what) in said
    assert len(said.splitlines()) == 1


FALSE: dict[str, tuple[str, Callable[[Any], Any], int, str]] = {
    "another hash of a head": ("head", lambda head: head | {"hash": "0" * 64}, 65, "first bad index 4: it is not event 4"),
    "a head of a later event": ("head", lambda head: head | {"seq": 5}, 65, "first bad index 5: event 5 of host server1"),
    "a head of another host": ("head", lambda head: head | {"host": "server9"}, 65, "event 4 of host server9"),
    "a head without its number": ("head", lambda head: {**head, "seq": None}, 64, "is not a head"),
    "a note with another root": ("note", lambda note: note["note"].replace("\n4\n", "\n3\n"), 64, "is no evidence"),
    "a note without a signature": ("note", lambda note: note["note"].partition("\n\n")[0] + "\n\n", 64, "is no evidence"),
    "text that is no note": ("note", lambda _: "good morning", 64, "is no evidence"),
    "a receipt for another leaf": ("receipt", lambda all_: [all_[0] | {"leaf": "00" * 32}], 64, "is no evidence"),
    "a receipt for another row": ("receipt", lambda all_: [all_[0] | {"n": 4}], 64, "is no evidence"),
    "an answer without a receipt": ("receipt", lambda all_: [{"n": all_[0]["n"]}], 64, "is not an answer of central"),
    "a file that is not JSON": ("receipt", lambda _: "{", 64, "is not JSON"),
    "a list of numbers": ("head", lambda _: [1], 64, "is not a JSON object"),
}


@pytest.mark.parametrize("name", FALSE)
def test_what_is_no_evidence_or_speaks_against_the_log_is_told(agent, tmp_path: Path, name: str):
    """A forged or broken file is a usage error that names it; a head that the log does not have is a fault of the log's."""
    what, change, status, told = FALSE[name]

    found, said = verified(agent, tmp_path, {what: change(agent.holds[what])}, "--database", str(agent.central.database))

    assert (found, told in said, len(said.splitlines())) == (status, True, 1), said
    assert str(tmp_path / what) in said


def test_a_file_that_is_not_there_is_told(agent, tmp_path: Path):
    """A file that cannot be read is a usage error that names it and says why."""
    ended = audit(agent.central, "verify", "--head", str(tmp_path / "absent"))

    assert (ended.returncode, ended.stdout) == (64, "")
    assert f"{tmp_path / 'absent'} cannot be read: No such file" in ended.stderr
