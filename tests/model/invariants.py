"""What must hold after every step, asked of what is there: files, processes, central's rows, the provider, the agent's disk."""

from __future__ import annotations

import os
import signal
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prism_vault_agent.sink import record
from tests.model.central import ENDS
from tests.model.configuration import FILES
from tests.model.kept import TOKEN, VALUE, values_in
from tests.model.owed import GIVEN_BACK, NOTICED, Debts, left, serving
from tests.support import history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.model.host import Client
    from tests.model.seen import Out

SECRET: Final = (VALUE, TOKEN, "s3cr3t-")
MODES: Final = {"web.env": 0o440}
# In which what was given to a process is looked after by the agent that gave it.
SETTLED: Final = 1.0
# In which a consumer that can be told is told, who may have failed before.
TOLD: Final = 330.0
# Which signals processes of these scopes may be sent, whatever is rotated or revoked.
SPARED: Final[dict[tuple[str, ...], set[int]]] = {
    ("calm",): {signal.SIGHUP, signal.SIGUSR1, signal.SIGSTOP, signal.SIGKILL},
    ("left",): set(),
}


@dataclass
class Invariants(Debts):
    """The invariants of one world, which remembers what was seen before."""

    versions: dict[str, dict[str, int]] = field(default_factory=dict)
    orphans: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    met: set[Client] = field(default_factory=set)
    hearing: float = 0.0
    served: bool = False
    told: int = 0
    logged: int = 0

    def passed(self, seconds: float) -> None:
        """Take note that time has passed as the world is now."""
        self.waited(seconds)
        served = serving(self.world) and not self.world.provider.engine_down
        for name in self.orphans:
            self.orphans[name] = self.orphans[name] + seconds if served and self.served else 0.0
        for name in self.ended:
            self.ended[name] = self.ended[name] + seconds if served and self.served else 0.0
        hearing = self.world.loop is not None and not self.world.deaf
        self.hearing = self.hearing + seconds if hearing else 0.0
        self.served = served

    def check(self) -> None:
        """Fail where anything does not hold."""
        out = self.world.out()
        configuration = self.world.configuration
        for client in self.world.processes.all:
            if client not in self.met:
                self.met.add(client)
                if not any(map(configuration.lacks, client.scopes)):
                    self.spared.add(client)
        self.seen |= {each.reservation for each in out}
        assert not self.world.defects, self.world.defects
        self._released(out)
        self._rows()
        self._judged(out)
        self._no_value()
        self._files()
        self.taken_back(out)
        self._versions(out)
        self._leases(out)
        self._reactions()

    def _released(self, out: list[Out]) -> None:
        """G1, G8, and no run is lost track of."""
        runs = self.world.journalled("runs")
        for each in out:
            kinds = self.world.central.of(each.reservation)
            assert "success" in kinds, f"G1: {each} is out there, and its log says {kinds}"
            assert "cleared" not in kinds, f"G8: {each} is out there, and its log says {kinds}"
            if each.is_process:
                assert each.reservation in runs, f"{each} is not in the agent's records"
        if self.world.parts is None:
            return
        known = {given.render.reservation.id for given in (*self.world.parts.runs, *self.world.parts.files.held)}
        late = {each.reservation for each in self.world.processes.all if self.world.clock.monotonic - each.since > SETTLED}
        for each in out:
            if not each.is_process or each.reservation in late:
                assert each.reservation in known, f"the agent does not look after {each}"

    def _rows(self) -> None:
        """G3: never more than one end."""
        rows = self.world.central.rows
        for reservation in {row["reservation"] for row in rows[self.told :]}:
            kinds = self.world.central.of(reservation)
            assert sum(kinds.count(end) for end in ENDS) <= 1, f"G3: {kinds}"
            assert kinds.count("cleared") <= 1, f"G3: {kinds}"

    def _judged(self, out: list[Out]) -> None:
        """Files that another generation was kept for stay only where they were found to be well."""
        for row in self.world.central.rows[self.told :]:
            new = self.world.successors.get(row.get("reservation", ""))
            if new is not None and row["kind"] == "cleared" and row["reason"] == "rotated":
                values = {self.world.provider.issued[lease] for lease in new.leases}
                assert new not in out or values & self.world.passed, f"{new} stays, and nobody found it to be well"

    def _no_value(self) -> None:
        """G4: no value in what the agent wrote or said."""
        for text in self.world.central.texts[self.told :]:
            assert not any(secret in text for secret in SECRET), f"G4: a row holds a value: {text}"
        self.told = len(self.world.central.texts)
        with open(self.world.log) as log:
            log.seek(self.logged)
            said = log.read()
            self.logged = log.tell()
        texts = {"log": said, **{path.name: path.read_text() for path in self.world.state.iterdir()}}
        for scope in FILES:
            path = self.world.files / scope / record.NAME
            if path.exists():
                texts[f"record of {scope}"] = path.read_text()
        for name, text in texts.items():
            found = next((line for line in text.splitlines() if any(secret in line for secret in SECRET)), None)
            assert found is None, f"G4: {name} holds a value: {found}"

    def _files(self) -> None:
        """G5: every visible generation is whole, of one moment, and its owner's."""
        place = os.open(self.world.files, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for scope in FILES:
                if (recorded := record.read(place, scope)) is None:
                    continue
                directory = self.world.files / scope
                names = {path.name for path in directory.iterdir()} - {record.NAME}
                assert names == {file.path for file in recorded[1]}, f"G5: {scope} has {names}"
                expected = set(self._values(recorded[0]["leases"]))
                for name in names:
                    found = (directory / name).stat()
                    facts = stat.S_IMODE(found.st_mode), found.st_uid
                    assert facts == (MODES.get(name, 0o400), os.geteuid()), f"G5: {name} is {facts}"
                    values = values_in((directory / name).read_text())
                    assert values == expected, f"G5: {name} has {values}, its record says {expected}"
        finally:
            os.close(place)

    def _values(self, leases: list[dict[str, object]]) -> Iterator[str]:
        for lease in leases:
            if lease["version"] is not None:
                yield self.world.provider.kv[str(lease["path"])][int(str(lease["version"])) - 1].value
            elif lease["lease_id"]:
                yield self.world.provider.issued[str(lease["lease_id"])]

    def _versions(self, out: list[Out]) -> None:
        """Nothing older than a version that stood there is put in its place, but for what was kept for that."""
        for scope in FILES:
            found = next((each for each in out if each.what == f"files of {scope}"), None)
            if found is None:
                self.versions.pop(scope, None)
                continue
            before = self.versions.get(scope, {}) if found.reservation not in self.world.returned else {}
            for path, number in found.versions.items():
                assert number >= before.get(path, 0), f"{scope} went back from {before} to {found}"
            self.versions[scope] = found.versions

    def _leases(self, out: list[Out]) -> None:
        """Every lease that lives is in the journal; what is there is of something that is out there, or is soon given back.

        What is out there has leases that live, or is soon taken back.
        """
        for each in out:
            if each.leases <= self.world.provider.leases.keys() or left(each, None):
                self.ended.pop(each.reservation, None)
            else:
                self.ended.setdefault(each.reservation, 0.0)
        self.ended = {name: seconds for name, seconds in self.ended.items() if name in {each.reservation for each in out}}
        late_ends = {name: seconds for name, seconds in self.ended.items() if seconds > NOTICED}
        assert not late_ends, f"G6: what has leases that have ended is not taken back: {late_ends}"
        journalled, held = self.world.journalled("leases"), {each.reservation for each in out}
        for lease in self.world.provider.leases.values():
            assert lease.stuck or lease.token.accessor in journalled, f"a lease of {lease.token.accessor} is not in the journal"
        issued = self.world.provider.issued
        self.orphans = {
            accessor: self.orphans.get(accessor, 0.0)
            for accessor, told in journalled.items()
            if not (told["leases"] and told["reservation"] in held)
            and not self.world.used({issued[lease["lease_id"]] for lease in told["leases"] if lease["lease_id"]})
        }
        late = {accessor: seconds for accessor, seconds in self.orphans.items() if seconds > GIVEN_BACK}
        assert not late, f"leases that nobody holds are not given back: {late}"

    def _reactions(self) -> None:
        """Who is only to be signalled, or left alone, is; who is told of files knows what is there, or is soon told."""
        for client in self.spared:
            allowed = SPARED.get(client.scopes)
            sent = {number for number, _ in client.signals}
            assert allowed is None or sent <= allowed, f"{client.scopes} were sent {sent}"
            first = next((number for number, _ in client.signals if number != signal.SIGHUP), signal.SIGUSR1)
            assert allowed is None or first == signal.SIGUSR1, f"{client.scopes} were ended with {first}"
        now = self.world.clock.monotonic
        late = {name: now - since for name, since in self.world.behind.items() if min(now - since, self.hearing) > TOLD}
        assert not late, f"consumers are not told: {late}"

    def end(self) -> None:
        """Once all has ended and everybody answers, nothing is left anywhere, and the log is whole."""
        world = self.world
        world.mend()
        self._wait(lambda: not world.outdated())
        self._wait(lambda: not world.behind)
        assert not world.behind, f"consumers are not told: {world.behind}"
        assert not world.outdated(), f"the newest version is not taken over: {world.outdated()}"
        for scope in FILES:
            world.clear(scope)
        world.run(1.0)
        for client in world.processes.all:
            client.end()
        self._wait(lambda: not (world.provider.leases or world.journalled("leases") or world.central.open()))
        self.check()
        assert not list((world.files / ".staged").iterdir()), "something is left staged"
        world.stop()
        world.run(4000.0)
        assert not world.out()
        assert not world.provider.leases, f"leases are left: {world.provider.leases}"
        assert not world.provider.tokens, f"tokens are left: {world.provider.tokens}"
        for name in ("journal", "leases", "runs"):
            assert not world.journalled(name), f"the {name} keeps {world.journalled(name)}"
        events = [{"fields": row, "body": text} for row, text in zip(world.central.rows, world.central.texts, strict=True)]
        history.check(events)
        lost = [name for name in self.seen if "cleared" not in world.central.of(name)]
        assert not lost, f"G8: {lost} were out there, and their end is not on the log"

    def _wait(self, condition: Callable[[], bool]) -> None:
        for _ in range(800):
            if condition():
                return
            self.world.run(5.0)
