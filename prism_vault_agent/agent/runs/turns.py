"""What is known of runs whose secrets were rotated, and when their turn is, kept for the next agent: nothing held back is lost.

JSON without values in the agent's state, mode 0600. What it says of a run that is no longer there is dropped when it is read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from prism_vault_agent.agent.kept import Kept, keep
from prism_vault_agent.agent.leases.child import now
from prism_vault_agent.audit import rows
from prism_vault_agent.notify.due import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from prism_vault_agent.agent.outdated import Marks
    from prism_vault_agent.agent.runs.times import RunTimes
    from prism_vault_agent.audit.event import Fields

    Record = Callable[[Fields, Callable[[], None]], None]

log = structlog.get_logger()

LARGEST: Final = 64 * 1024 * 1024
# Between what a file went back from and when it did.
_BACK: Final = " back "


@dataclass(slots=True)
class Since:
    """What has changed since a run was given its values: ``outdated``, and that of it about which something was ``done``.

    ``at`` is when, seconds since 1970; ``what`` was done; ``error`` why the last attempt failed; ``noticed`` is when the first of
    what is not done yet was noticed, on CLOCK_BOOTTIME.
    """

    outdated: Marks = field(default_factory=dict)
    done: Marks = field(default_factory=dict)
    at: float = 0.0
    what: str = ""
    error: str = ""
    noticed: float = 0.0

    def news(self, marks: Marks) -> Marks:
        """Return what of this is not noted yet. What a file went back from is no news: it is still what is newest."""
        return {path: mark for path, mark in marks.items() if self.outdated.get(path, "").partition(_BACK)[0] != mark}

    def back(self, at: float) -> Marks:
        """Return what is to be noted where files went back at that time: something is to be done about all once more."""
        return {path: f"{mark.partition(_BACK)[0]}{_BACK}{at:.3f}" for path, mark in self.done.items()}

    def note(self, marks: Marks) -> None:
        """Take note of what is newer."""
        if not self.noticed or self.done == self.outdated:
            self.noticed = now()
        self.outdated |= marks


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of what was done, ``kept`` from then until the log cannot lose them. ``record`` sends one, and calls back then."""

    kept: Kept

    def tell(self, reason: str, message: str, stages: Mapping[str, int], record: Record) -> None:
        """Record what was done; where this agent is killed before that cannot be lost, the next one does."""
        fields = rows.admin(reason, message, stages)
        try:
            self.kept.keep(fields)
        except OSError as error:
            log.error("rotation.row_not_kept", errno=error.errno, message="an agent that is killed now leaves no record of it")
        self._send(fields, record)

    def load(self, record: Record) -> None:
        """Record what an earlier agent has done and may not have told."""
        for fields in self.kept.load():
            self._send(fields, record)

    def _send(self, fields: Fields, record: Record) -> None:
        record(fields, lambda: self.kept.drop(str(fields["event_id"])))


@dataclass(slots=True)
class Turns:
    """``runs`` by reservation, and for each set of scopes (their names, with commas between) how its turns stand.

    ``rows`` say what was done, until the log cannot lose them; how long that took is in ``times``, and is not kept.
    """

    path: str
    times: RunTimes
    rows: Rows = field(init=False)
    runs: dict[str, Since] = field(default_factory=dict)
    groups: dict[str, Standing] = field(default_factory=dict)
    _kept: str = ""

    def __post_init__(self) -> None:
        """Nothing is read yet."""
        self.rows = Rows(Kept(f"{self.path}.rows"))

    def load(self, runs: Collection[str]) -> None:
        """Read what an earlier agent kept of these runs. What cannot be read is as if nothing had been kept."""
        try:
            with open(self.path, "rb") as file:
                plain: dict[str, Any] = json.loads(file.read(LARGEST))
            self.runs = {run: Since(**each) for run, each in plain["runs"].items() if run in runs}
            self.groups = {
                name: Standing(**{**each, "begun": tuple(each["begun"])}) for name, each in plain["groups"].items()
            }  # fmt: skip
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            told = "which runs were signalled already is not known"
            log.error("rotation.forgotten", path=self.path, error=type(error).__name__, message=told)

    def save(self) -> None:
        """Write it where it changed, whole or not at all. A disk that does not take it is told; the agent goes on."""
        plain = {
            "runs": {run: asdict(each) for run, each in self.runs.items()},
            "groups": {name: asdict(each) for name, each in self.groups.items()},
        }
        text = json.dumps(plain)
        if text == self._kept:
            return
        try:
            keep(self.path, text)
        except OSError as error:
            told = "an agent that is killed now forgets which runs are held back"
            log.error("rotation.not_kept", path=self.path, errno=error.errno, message=told)
            return
        self._kept = text
