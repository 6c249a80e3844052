"""Which leases are out there and for whom: known durably before each is made, and given back when nobody holds it any more.

A leased read is made with a child token of the agent's own. Its accessor is in the journal, with an fsync, before the read, so
that whatever ends this agent, the next one finds what to revoke. No value and no token is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog

from prism_vault_agent.agent.leases.child import Child, boot, now, recall
from prism_vault_agent.errors import CannotCreate, ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prism_vault_agent.audit.journal import Journal
    from prism_vault_agent.model import Grant, Lease, Reservation, ReservationId
    from prism_vault_agent.scope import ScopeName
    from prism_vault_agent.worker.messages import Message

log = structlog.get_logger()

# The life of a child token; it is renewed as long as somebody holds it.
SECONDS: Final = 3600


class Leases:
    """The child tokens of this agent. ``wake`` is called where something is to be done for one of them."""

    def __init__(self, journal: Journal) -> None:
        """Keep them in ``journal``."""
        self._journal = journal
        self._children: dict[str, Child] = {}
        self._boot = boot()
        self.wake: Callable[[], None] = lambda: None

    def __iter__(self) -> Iterator[Child]:
        """Iterate over the child tokens that may still live."""
        return iter(list(self._children.values()))

    async def load(self) -> None:
        """Take over what earlier agents have left. Raises ``CannotCreate`` for an unusable file."""
        for fields in await self._journal.load():
            try:
                child = recall(fields)
            except (KeyError, TypeError, ValueError) as error:
                log.error("leases.damaged", error=type(error).__name__, message="a child token ends by itself, at its ttl")
                continue
            self._children[child.accessor] = child

    def adopt(self, held: Iterable[ReservationId], rendered: Iterable[ScopeName]) -> None:
        """Keep what is still held, of what :meth:`load` found, and begin to give back everything else.

        Of ``rendered`` scopes there are files: who uses older ones may not have been told of these by the agent that was ended.
        """
        kept, newer = set(held), set(rendered)
        for child in self:
            if child.reservation.id in kept:
                log.info("leases.adopted", audit_id=child.reservation.audit_id, accessor=child.accessor)
            else:
                request = child.reservation.grant.request
                replaced = request.mode == "file" and newer.issuperset(request.scopes)
                self.ended(child.reservation, "rotated" if replaced else "exited")

    def of(self, reservation: ReservationId) -> list[Child]:
        """Return the child tokens of a release that are not being given back."""
        return [child for child in self if child.reservation.id == reservation and not child.ending]

    def in_use(self, parent: str) -> bool:
        """Tell whether somebody may use a lease that ends with the token of this accessor."""
        return any(child.parent == parent and child.in_use for child in self)

    async def intend(self, reservation: Reservation, parent: str, told: Message) -> Child:
        """Keep durably that leases are about to be made with a child token. Raises ``CannotCreate``."""
        orphan = bool(told["orphan"])
        child = Child(
            str(told["accessor"]), "" if orphan else parent, reservation, int(told["seconds"]), self._boot, orphan=orphan
        )
        self._children[child.accessor] = child  # before the disk: where that fails, it is given back too
        await self._journal.keep(child.record())
        return child

    async def read(self, child: Child, leases: Iterable[Lease], since: float) -> None:
        """Keep which leases were made. A child token without any is given back at once. Raises ``CannotCreate``."""
        child.read(leases, since)
        if child.leases:
            await self._journal.keep(child.record())
            self.wake()
        else:
            self._end(child, 0.0)

    async def renewed(self, child: Child) -> None:
        """Keep until when a child token and its leases live now, for the next agent: it may come when they have ended."""
        try:
            await self._journal.keep(child.record())
        except CannotCreate as error:
            log.error("leases.unkept", message=error.line())

    def still(self, reservation: Reservation) -> None:
        """Raise ``ProviderUnavailable`` where a lease of what is about to be released has ended already."""
        if any(child.expires <= now() for child in self.of(reservation.id)):
            told = "a lease ended before its values could be released"
            raise ProviderUnavailable(told, mend="give the engine's role a longer ttl", reason="lease_expired")

    def ended(self, reservation: Reservation, why: str) -> None:
        """Begin to give back what a release took: nobody holds it any more. Never waits.

        Where another generation stands in its place, a newer one or that of before, who used it has the scope's ``grace`` to take
        the other one, from when it is told of it.
        """
        replaced = why in ("rotated", "rolled_back")
        grace = max(scope.grace for scope in reservation.grant.scopes) if replaced else 0.0
        for child in self.of(reservation.id):
            child.replaced = replaced
            self._end(child, grace)

    def abandon(self, child: Child) -> None:
        """Begin to give back one child token, of a read that did not come to its end."""
        self._end(child, 0.0)

    def _end(self, child: Child, after: float) -> None:
        child.ending, child.revoke_at = True, now() + after
        self.wake()

    def put_off(self, parent: str, like: Child) -> None:
        """Begin to give back a token of ours that nothing hangs on any more."""
        self._children.setdefault(
            parent, Child(parent, "", like.reservation, like.seconds, self._boot, ending=True, revoke_at=now())
        )

    async def gone(self, child: Child) -> None:
        """Forget a child token that the server has ended, and all of its leases."""
        self._children.pop(child.accessor, None)
        try:
            await self._journal.drop(child.accessor)
        except CannotCreate as error:
            log.error("journal.failed", message=error.message)  # at the next start it is found to be gone

    def describe(self) -> dict[str, Any]:
        """Return what ``status`` shows of all together."""
        ending = [child for child in self if child.ending]
        return {
            "held": sum(len(child.leases) for child in self if not child.ending),
            "revoking": sum(max(1, len(child.leases)) for child in ending),
            "last_error": next((child.error for child in ending if child.error), ""),
        }


def wanted(grant: Grant, audit_id: str, policies: Iterable[str]) -> Message:
    """Return what the child token of a release is to be: of our policies but the default one, no older than ``ttl`` says."""
    bounds = [int(scope.ttl) for scope in grant.scopes if scope.ttl]
    at_most = min(bounds, default=0)
    return {
        "policies": [policy for policy in policies if policy != "default"],
        "seconds": min(at_most or SECONDS, SECONDS),
        "at_most": at_most,
        "meta": {"audit_id": audit_id},
    }
