"""What is seen of the agent from outside: what is out there, what its journals say, and what it does at the wrong moment."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prism_vault_agent.audit import journal
from prism_vault_agent.sink import record
from tests.model.configuration import FILES
from tests.model.life import Life

if TYPE_CHECKING:
    from pathlib import Path

    from prism_vault_agent.worker.messages import Message


@dataclass(frozen=True)
class Out:
    """Something that is out there: files of a scope, or a process with values. ``versions`` are of KV, by path."""

    what: str
    reservation: str
    scopes: frozenset[str]
    run_ref: str | None
    versions: dict[str, int]


class Seen(Life):
    """A host that is looked at."""

    def __init__(self, template: Path) -> None:
        self._inodes: dict[str, int] = {}
        super().__init__(template)

    def out(self) -> list[Out]:
        """Return what is out there."""
        found = [
            Out(f"process {each.pid}", each.reservation, frozenset(each.scopes), each.run_ref, self._versions(each.values))
            for each in self.processes.holding()
        ]
        place = os.open(self.files, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in os.listdir(place):
                if name.startswith("."):
                    continue
                recorded = record.read(place, name)
                if recorded is None:
                    self.defects.append(f"the files of {name} have no record")
                    continue
                told = recorded[0]
                versions = {each["path"]: each["version"] for each in told["leases"] if each["version"] is not None}
                found.append(Out(f"files of {name}", told["reservation"], frozenset((name,)), None, versions))
        finally:
            os.close(place)
        return found

    def _versions(self, values: dict[str, str]) -> dict[str, int]:
        return {
            path: number
            for path, versions in self.provider.kv.items()
            for number, version in enumerate(versions, 1)
            if version.value in values.values()
        }

    def outdated(self) -> list[Out]:
        """Return what is out there and is to be replaced or ended, because the provider has a newer version that stands."""
        newest = {path: len(versions) for path, versions in self.provider.kv.items() if versions[-1].stands}
        return [
            each
            for each in self.out()
            if (each.what.startswith("files") or "both" in each.scopes)
            and any(number < newest.get(path, 0) for path, number in each.versions.items())
        ]

    def journalled(self, name: str) -> dict[str, Any]:
        """Return what a journal of the agent's says, as the next agent will read it."""
        found: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError), open(self.state / name) as lines:
            for line in lines:
                if line != "\n":
                    journal.take(found, line)
        return found

    def _on_turn(self) -> None:
        self.processes.collect(self.clock.monotonic)
        for name in FILES:
            try:
                inode = os.stat(f"{self.files}/{name}").st_ino
            except FileNotFoundError:
                self._inodes.pop(name, None)
                continue
            if self._inodes.get(name) != inode:
                self._inodes[name] = inode
                self._switched(name)

    def _switched(self, name: str) -> None:
        place = os.open(self.files, os.O_RDONLY | os.O_DIRECTORY)
        recorded = record.read(place, name)
        os.close(place)
        if recorded is None or "success" not in self.central.of(recorded[0]["reservation"]):
            self.defects.append(f"G1: files of {name} became visible before their success was on the log")

    def _on_job(self, job: Message) -> None:
        if job["do"] == "deliver":
            head = job["head"]
            audit_id = head.partition("X-Prism-Vault-Audit-Id: pva_")[2].partition("\r")[0]
            if "success" not in self.central.of(audit_id):
                self.defects.append("G1: values were delivered before their success was on the log")

    def _on_read(self, path: str, version: int | None, accessor: str) -> None:
        bound = {each["reference"].partition("#")[0] for row in self.central.reserved() for each in row["bindings"]}
        if f"vault://{path}" not in bound:
            self.defects.append(f"G2: {path} was read without a reservation")
        if version is None and accessor not in self.journalled("leases"):
            self.defects.append(f"leases: {path} was read by a token that is not in the journal")
