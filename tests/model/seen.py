"""What is seen of the agent from outside: what is out there, what its journals say, and what it does at the wrong moment."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prism_vault_agent.agent.files.kept import place_of
from prism_vault_agent.audit import journal
from prism_vault_agent.scope import ScopeName
from prism_vault_agent.sink import record
from tests.model.configuration import FILES
from tests.model.life import Life

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prism_vault_agent.worker.messages import Message
    from tests.model.host import Client


@dataclass(frozen=True)
class Out:
    """Something that is out there: files of a scope, those that are kept till newer ones are judged, or a process with values.

    ``versions`` are by path, ``leases`` ids, ``names`` the variables.
    """

    what: str
    reservation: str
    scopes: frozenset[str]
    run_ref: str | None
    versions: dict[str, int]
    leases: frozenset[str]
    names: frozenset[str]

    @property
    def is_process(self) -> bool:
        """Whether it is a process."""
        return self.what.startswith("process")


class Seen(Life):
    """A host that is looked at. ``returned`` are reservations of files that became visible a second time, rolled back to."""

    def __init__(self, template: Path) -> None:
        self._inodes: dict[str, int] = {}
        self._shown: set[str] = set()
        self.returned: set[str] = set()
        super().__init__(template)

    def out(self) -> list[Out]:
        """Return what is out there."""
        found = [self._held(each) for each in self.processes.holding()]
        place = os.open(self.files, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in FILES:
                if os.path.isdir(self.files / name):
                    found += self._rendered(place, name, name, "files")
                if os.path.isdir(self.files / place_of(ScopeName(name))):
                    found += self._rendered(place, place_of(ScopeName(name)), name, "kept files")
        finally:
            os.close(place)
        return found

    def _held(self, client: Client) -> Out:
        values, scopes = set(client.values.values()), frozenset(client.scopes)
        versions = {
            path: number
            for path, versions in self.provider.kv.items()
            for number, version in enumerate(versions, 1)
            if version.value in values
        }
        leases = frozenset(lease for lease, value in self.provider.issued.items() if value in values)
        names = frozenset(client.values)
        return Out(f"process {client.pid}", client.reservation, scopes, client.run_ref, versions, leases, names)

    def _rendered(self, place: int, where: str, name: str, what: str) -> Iterator[Out]:
        if (recorded := record.read(place, where)) is None:
            self.defects.append(f"the {what} of {name} have no record")
            return
        told = recorded[0]
        versions = {each["path"]: each["version"] for each in told["leases"] if each["version"] is not None}
        leases = frozenset(each["lease_id"] for each in told["leases"] if each["lease_id"])
        yield Out(
            f"{what} of {name}", told["reservation"], frozenset((name,)), None, versions, leases, frozenset(told["names"])
        )  # fmt: skip

    def outdated(self) -> list[Out]:
        """Return what is out there and is to be replaced, ended or signalled, as the provider has a newer version that stands."""
        newest = {path: len(versions) for path, versions in self.provider.kv.items() if versions[-1].stands}
        return [
            each
            for each in self.out()
            if (each.what.startswith("files") or "both" in each.scopes or ("calm" in each.scopes and not self._signalled(each)))
            and any(number < newest.get(path, 0) for path, number in each.versions.items())
        ]

    def _signalled(self, held: Out) -> bool:
        """Tell whether a process has been signalled since the newest version was written of what its scope binds."""
        written = datetime.fromisoformat(self.provider.kv["secret/web"][-1].created).timestamp()
        if not held.is_process or held.versions.get("secret/web") == len(self.provider.kv["secret/web"]):
            return True
        (client,) = [each for each in self.processes.all if held.what == f"process {each.pid}" and each.pidfd >= 0]
        return any(number == signal.SIGHUP and at >= written for number, at in client.signals)

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
                if self._inodes.pop(name, None) is not None:
                    self._gone(name)
                continue
            before = self._inodes.get(name)
            if before != inode:
                self._inodes[name] = inode
                self._switched(name, first=before is None)

    def _gone(self, name: str) -> None:
        """Take note that a scope's files are no longer visible."""
        raise NotImplementedError

    def _switched(self, name: str, *, first: bool) -> None:
        place = os.open(self.files, os.O_RDONLY | os.O_DIRECTORY)
        recorded = record.read(place, name)
        os.close(place)
        if recorded is None or "success" not in self.central.of(recorded[0]["reservation"]):
            self.defects.append(f"G1: files of {name} became visible before their success was on the log")
        if recorded is not None:
            reservation = recorded[0]["reservation"]
            (self.returned if reservation in self._shown else self._shown).add(reservation)

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

    def _on_revoke(self, accessor: str) -> None:
        of = self.journalled("leases").get(accessor, {}).get("reservation")
        if held := [each for each in self.out() if each.reservation == of]:
            self.defects.append(f"leases: those of {held} were revoked, which is out there")
