"""What goes wrong beside the contenders at once, and what each has left then: processes with the value, and files of it.

Ours are two: as it is shipped, and with the settings that leave nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from prism_vault_agent.exec.channel import GRACE as LIFELINE_GRACE
from tests.beside.contenders import GRACE, POLL, STALE, Contender, Ours, Place, Theirs
from tests.support.signalled import order
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

# What is noticed by a poll is over within this.
NOTICED = POLL + GRACE
# What a busy machine may take longer.
LATE = 60.0


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
    """A failure, and what it left with each; ``note`` says what is not plain. ``strict`` is as ``shipped`` where it is None."""

    failure: str
    shipped: Left
    strict: Left | None
    theirs: Left
    note: str = ""


def now(of: Contender, since: float) -> Left:
    """Return what is left."""
    return Left(len(of.processes()), int(of.file.exists()), time.monotonic() - since)


def left(of: Contender, since: float, within: float) -> Left:
    """Return what is left as soon as that is nothing, or when ``within`` seconds are over."""
    deadline = time.monotonic() + within
    while True:
        found = now(of, since)
        if found.nothing or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


@contextlib.contextmanager
def three(at: Place, *, supervised: bool = True) -> Iterator[tuple[Ours, Ours, Theirs]]:
    """Run ours as shipped, the strict one, and theirs."""
    with Ours(at, supervised=supervised) as shipped, Ours(at, strict=True, supervised=supervised) as strict, Theirs(at) as theirs:
        yield shipped, strict, theirs


def watched(at: Place, began: float, within: float, first: Contender, *others: Contender) -> list[Left]:
    """Return what is left of each as soon as that is nothing; of the others else when ``at.watch`` seconds are over.

    The ``first`` has ``within`` seconds, and what a busy machine takes longer.
    """
    found: dict[Contender, Left] = {}
    everybody = (first, *others)
    while len(found) < len(everybody):
        looked = time.monotonic()
        for each in everybody:
            if each not in found and (seen := now(each, began)).nothing:
                found[each] = seen
        passed = time.monotonic() - began
        if (first in found and passed > at.watch) or passed > within + LATE:
            break
        time.sleep(max(0.01, time.monotonic() - looked))  # half of a processor at most
    return [found.get(each) or now(each, began) for each in everybody]


def deleted(at: Place) -> Outcome:
    """The secret is deleted at the server."""
    with three(at) as everybody:
        shipped, strict, theirs = everybody
        began = time.monotonic()
        _delete(at, *everybody)
        strict_left, *others = watched(at, began, NOTICED, strict, shipped, theirs)
        return Outcome("secret deleted", others[0], strict_left, others[1])


def cut_off(at: Place) -> Outcome:
    """The host's role is deleted and its tokens are revoked."""
    with three(at) as (shipped, strict, theirs):
        roles = {*at.agents, theirs.role}
        began = time.monotonic()
        for role in roles:
            at.openbao.must("DELETE", f"auth/approle/role/{role}")
        for accessor in at.openbao.must("LIST", "auth/token/accessors")["data"]["keys"]:
            told = at.openbao.must("POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"]
            if (told["meta"] or {}).get("role_name") in roles:
                at.openbao.must("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        strict_left, *others = watched(at, began, NOTICED, strict, shipped, theirs)
        for role, agent in at.agents.items():
            agent.stop()
            at.role(role)
            agent.start()
        return Outcome("token revoked, login refused", others[0], strict_left, others[1], "strict: on_failure = clear")


def server_down(at: Place) -> tuple[Outcome, Outcome]:
    """The server ends, and does not come back: what a scope bounds is gone at its bound, the rest when central revokes it."""
    with three(at) as (shipped, strict, theirs):
        began = time.monotonic()
        at.openbao.stop()
        strict_left, *others = watched(at, began, STALE + NOTICED, strict, shipped, theirs)
        bounded = f"strict: stale_ok = {STALE:.0f} s, and the grace"
        began = time.monotonic()
        order(at.central, "revocations", scope=shipped.path)
        taken = left(shipped, began, NOTICED + LATE)
        first = Outcome("server down", others[0], strict_left, others[1], bounded)
        return first, Outcome("server down, revoked by central", taken, None, others[1], "needs no server")


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
        return Outcome(f"{number.name} to what is above the command", found, None, peer, "the agent looks after the file")


def agent_ended(at: Place, number: signal.Signals) -> tuple[Outcome, Outcome]:
    """The agent gets a signal; then the secret is deleted, and the agent is started again."""
    with three(at, supervised=False) as (shipped, strict, theirs):
        began = time.monotonic()
        for each in (theirs.parent, theirs.filer):
            each.send(number)
        for agent in at.agents.values():
            agent.send(number)
        strict_left, *others = watched(at, began, GRACE, strict, shipped, theirs)
        for agent in at.agents.values():
            agent.ended()
        first = Outcome(f"{number.name} to the agent", others[0], strict_left, others[1], "strict: on_end = clear")
        at.strict.start()
        _delete(at, shipped, theirs)
        began = time.monotonic()
        at.agent.start()
        for each in (theirs.parent, theirs.filer):
            each.again()
        back, peer = watched(at, began, NOTICED, shipped, theirs)
        return first, Outcome("secret deleted then, agent started again", back, None, peer)


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
