"""What goes wrong beside both contenders at once, and what each has left then: processes with the value, and files of it."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from prism_vault_agent.exec.channel import GRACE as LIFELINE_GRACE
from tests.beside.contenders import GRACE, OUR_ROLE, POLL, Contender, Ours, Place, Theirs
from tests.support.signalled import order
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

# What is noticed by a poll is over within this.
NOTICED = POLL + GRACE
# So long what was given out may be used without the server, where a test says so.
STALE = 4.0
# What a busy machine may take longer.
LATE = 20.0


class Left(NamedTuple):
    """What a contender has left: processes, files, and after how many seconds that was so (or was looked at)."""

    processes: int
    files: int
    seconds: float

    @property
    def nothing(self) -> bool:
        """Whether there is nothing."""
        return not (self.processes or self.files)


class Outcome(NamedTuple):
    """A failure, and what it left; ``note`` says what ours did where that is not all."""

    failure: str
    ours: Left
    theirs: Left
    note: str = ""


def left(of: Contender, since: float, within: float) -> Left:
    """Return what is left as soon as that is nothing, or when ``within`` seconds are over."""
    deadline = time.monotonic() + within
    while True:
        found = Left(len(of.processes()), int(of.file.exists()), time.monotonic() - since)
        if found.nothing or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


def both(at: Place, ours: Ours, theirs: Theirs, began: float, within: float = NOTICED) -> tuple[Left, Left]:
    """Return what is left of both after ``began``; theirs last, so that it had the time of ours at least, and ``at.watch``."""
    first = left(ours, began, within + LATE)
    return first, left(theirs, began, max(0.0, at.watch - first.seconds))


def deleted(at: Place) -> Outcome:
    """The secret is deleted at the server."""
    with Ours(at) as ours, Theirs(at) as theirs:
        began = time.monotonic()
        _delete(at, ours, theirs)
        return Outcome("secret deleted", *both(at, ours, theirs, began))


def cut_off(at: Place) -> Outcome:
    """The host's role is deleted and its tokens are revoked."""
    with Ours(at) as ours, Theirs(at) as theirs:
        roles = {OUR_ROLE, theirs.role}
        began = time.monotonic()
        for role in roles:
            at.openbao.must("DELETE", f"auth/approle/role/{role}")
        for accessor in at.openbao.must("LIST", "auth/token/accessors")["data"]["keys"]:
            told = at.openbao.must("POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"]
            if (told["meta"] or {}).get("role_name") in roles:
                at.openbao.must("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        found = both(at, ours, theirs, began)
        at.agent.stop()
        at.role(OUR_ROLE)
        at.agent.start()
        return Outcome("token revoked, login refused", *found, 'with on_failure = "clear"')


def server_down(at: Place) -> tuple[Outcome, Outcome]:
    """The server ends, and does not come back: what a scope bounds is gone at its bound, the rest when central revokes it."""
    with Ours(at, stale_ok=f"{STALE:.0f}s") as bounded, Ours(at) as ours, Theirs(at) as theirs:
        began = time.monotonic()
        at.openbao.stop()
        gone, peer = both(at, bounded, theirs, began, within=STALE + NOTICED)
        stays = left(ours, time.monotonic(), 0.0)
        began = time.monotonic()
        order(at.central, "revocations", scope=ours.path)
        taken = left(ours, began, NOTICED + LATE)
        kept = f"until then {stays.processes} processes, {stays.files} file stay by choice"
        first = Outcome(f"server down, stale_ok = {STALE:.0f} s", gone, peer, "the bound, and the grace")
        return first, Outcome("server down, revoked by central", taken, peer, kept)


def ended(at: Place, number: signal.Signals) -> Outcome:
    """What is above the command gets a signal; their file is another agent's, which gets it too."""
    with Ours(at) as ours, Theirs(at) as theirs:
        assert ours.supervisor is not None
        theirs.parent.send(number)
        theirs.filer.send(number)
        os.kill(ours.supervisor.pid, number)
        began = time.monotonic()
        wait_until(lambda: not ours.processes(), LIFELINE_GRACE + LATE)
        found = Left(len(ours.processes()), 0, time.monotonic() - began)
        peer = left(theirs, began, at.watch)
        ours.supervisor.communicate()
        return Outcome(f"{number.name} to what is above the command", found, peer, "the agent goes on, and looks after the file")


def agent_ended(at: Place, number: signal.Signals) -> Outcome:
    """The agent gets a signal, the secret is deleted, and the agent is started again."""
    with Ours(at) as ours, Theirs(at) as theirs:
        end: Callable[[], int] = at.agent.stop if number is signal.SIGTERM else at.agent.kill
        for each in (theirs.parent, theirs.filer):
            each.send(number)
        end()
        stays = left(ours, time.monotonic(), 0.0)
        _delete(at, ours, theirs)
        began = time.monotonic()
        at.agent.start()
        for each in (theirs.parent, theirs.filer):
            each.again()
        kept = f"until then {stays.processes} processes, {stays.files} file stay by choice"
        return Outcome(f"{number.name} to the agent, secret deleted, agent started again", *both(at, ours, theirs, began), kept)


def deaf(at: Place) -> Left:
    """What is to be ended ignores SIGTERM: return what is left of ours, which is nothing from its grace on."""
    with Ours(at, deaf=True) as ours:
        began = time.monotonic()
        order(at.central, "revocations", scope=ours.path)
        return left(ours, began, GRACE + LATE)


def deaf_peer(at: Place) -> Left:
    """Return the same of theirs, which gets SIGTERM itself, since nothing else makes it end its command."""
    with Theirs(at, deaf=True) as theirs:
        theirs.parent.send(signal.SIGTERM)
        began = time.monotonic()
        wait_until(lambda: not theirs.processes(), 120)
        return Left(0, int(theirs.file.exists()), time.monotonic() - began)


def _delete(at: Place, *contenders: Contender) -> None:
    for each in contenders:
        at.openbao.must("DELETE", f"secret/data/{each.path}")
