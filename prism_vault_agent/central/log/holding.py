"""Which installation of an agent has a host's name: one at a time may release, whoever else has the host's credential.

An installation is an agent's state directory: it makes an identifier at its first start and keeps it there. A start is an
epoch of it. The first installation that comes has the name, and keeps it while it is alive: while a stream of signals of it is
open, or something of it came within ``ALIVE_MS``. A later start of the same installation takes the name over at once; the one
before it has lost it for good, for it is over, or a copy.

The row in ``presence`` is the truth, changed only where it still is what was read; what this process remembers of it is
believed for ``BELIEVED_MS``. That is less than ``LEFT_MS``, the shortest time until another can have it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

    from prism_vault_agent.central.log.transaction import Transaction

ALIVE_MS: Final = 45_000
# How long who has closed its stream may take to come back with another.
LEFT_MS: Final = 5_000
# A row that says less than this of the time to come is written anew by whoever has the name.
WORTH_RENEWING_MS: Final = ALIVE_MS - 10_000
BELIEVED_MS: Final = 2_000
# How many starts of an installation are remembered to be over.
MOST_ENDED: Final = 16
# A clock that moved by more than this beside CLOCK_MONOTONIC was set.
SET_MS: Final = 2_000


class Sender(NamedTuple):
    """Who speaks in a host's name: which start (32 hex digits) of which installation (the same, or empty where it names none)."""

    host: str
    epoch: str
    installation: str


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a name, and ``until`` when (milliseconds since 1970) by what was heard of it.

    ``left`` tells that it has closed its stream: then ``until`` holds, however long this process was not there to hear of it.
    ``ended`` are starts of the same installation that have lost the name to a later one, the newest last.
    """

    epoch: str
    installation: str
    until: int
    left: bool = False
    ended: tuple[str, ...] = ()


class Refusal(NamedTuple):
    """Why somebody may not release in a host's name: a word, and a sentence."""

    reason: str
    message: str


class Settled:
    """Whether this process has heard enough, by a clock that was not set meanwhile, to say that somebody is gone."""

    def __init__(self) -> None:
        """Begin to hear."""
        self._since = time.monotonic_ns()
        self._offset = self._now()

    def __call__(self) -> bool:
        """Tell whether it has."""
        offset = self._now()
        if abs(offset - self._offset) > SET_MS * 1_000_000:
            self._since, self._offset = time.monotonic_ns(), offset
        return time.monotonic_ns() - self._since >= ALIVE_MS * 1_000_000

    @staticmethod
    def _now() -> int:
        return time.time_ns() - time.monotonic_ns()


def take(transaction: Transaction, sender: Sender) -> Refusal | None:
    """Give ``sender`` its host's name, or keep it with it; or say why not."""
    if transaction.believed(sender.host) == sender.epoch:
        return None
    while True:
        holder = transaction.holder(sender.host)
        if holder is None or holder.epoch != sender.epoch:
            if holder is not None and (refusal := _refused(transaction, holder, sender)) is not None:
                return refusal
        elif holder.until - transaction.now > WORTH_RENEWING_MS and not holder.left:
            transaction.believe(sender)
            return None
        ours = Holder(sender.epoch, sender.installation, transaction.now + ALIVE_MS, ended=_ended(holder, sender))
        if transaction.hold(sender.host, ours, holder):
            transaction.believe(sender)
            return None


def admit(transaction: Transaction, sender: Sender) -> Refusal | None:
    """Say why ``sender``, who takes no name, may not release now; None where nobody else has it, or the same installation."""
    if transaction.believed(sender.host) == sender.epoch:
        return None
    holder = transaction.holder(sender.host)
    if holder is not None and sender.installation != holder.installation and (no := _refused(transaction, holder, sender)):
        return no
    transaction.believe(sender)
    return None


def renew(transaction: Transaction, senders: Collection[Sender]) -> list[Refusal | None]:
    """Keep the name with each of those who follow the signals, or give it to them; return why not, for each."""
    kept = transaction.renew(senders, transaction.now + ALIVE_MS)
    return [None if (sender.host, sender.epoch) in kept else take(transaction, sender) for sender in senders]


def leave(transaction: Transaction, sender: Sender) -> None:
    """Take note that ``sender`` follows no more: another may have the name soon, unless it comes back or releases."""
    holder = transaction.holder(sender.host)
    if holder is not None and holder.epoch == sender.epoch and not holder.left:
        until = min(holder.until, transaction.now + LEFT_MS)
        transaction.hold(sender.host, replace(holder, until=until, left=True), holder)


def _refused(transaction: Transaction, holder: Holder, sender: Sender) -> Refusal | None:
    """Say why ``sender``, who does not have the name, may not have it; None where ``holder`` is gone, or was it before."""
    if transaction.now >= holder.until and (holder.left or transaction.settled):
        return None
    if sender.installation != holder.installation:
        return Refusal("name_held", f"another installation of the agent has the name {sender.host} at central, and is alive")
    if sender.epoch in holder.ended:
        message = f"a later start of this installation, or a copy of it, has the name {sender.host} at central"
        return Refusal("superseded", message)
    return None  # a later start


def _ended(holder: Holder | None, sender: Sender) -> tuple[str, ...]:
    """Return the starts that ``sender`` leaves behind by taking the name from ``holder``, or by keeping it."""
    if holder is None or holder.installation != sender.installation:
        return ()
    return tuple(epoch for epoch in (*holder.ended, holder.epoch) if epoch != sender.epoch)[-MOST_ENDED:]
