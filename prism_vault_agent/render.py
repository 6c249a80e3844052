"""The one script: what a render is, in order. Adapters hang off it and never call each other.

The methods are coroutines so that an agent can serve many renders at once; adapters that block never suspend, so
``exec --direct`` runs the same script without an event loop (see :func:`run_blocking`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from prism_vault_agent.errors import Denied, PrismVaultError
from prism_vault_agent.policy.decide import Denial, decide

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from prism_vault_agent.model import Caller, Grant, Receipt, Render, Request, Reservation, Resolution
    from prism_vault_agent.scope import Scope, ScopeName

Result = TypeVar("Result")


class AuditLog(Protocol):
    """The central log. What ``reserve`` and ``succeed`` return for has been durably taken.

    The other three never wait and never raise: they record what has already been decided, and what central does not take
    now is kept and sent later.
    """

    async def reserve(self, grant: Grant) -> Reservation:
        """Record the intent. Raises ``Denied`` where central's policy says no, ``AuditUnavailable`` where it is unknown."""

    async def succeed(self, resolution: Resolution) -> Receipt:
        """Record that the values are about to be released. Raises like ``reserve``, also when the reservation has ended."""

    def fail(self, reservation: Reservation, error: BaseException) -> None:
        """Record that nothing was released: ``denied`` for a denial, else ``failure`` with the error's reason."""

    def deny(self, caller: Caller, request: Request, denial: Denial) -> str:
        """Record a denial by our own policy and return its audit id."""

    def clear(self, reservation: Reservation, reason: str) -> None:
        """Record that what a success announced is no longer out there: ``not_delivered``, ``exited``, ``revoked`` ..."""


class Provider(Protocol):
    """Where secrets live."""

    async def resolve(self, reservation: Reservation) -> Resolution:
        """Read every binding of the reservation's grant, all or nothing, and check that the delivery can carry them."""

    def drop(self, resolution: Resolution) -> None:
        """Forget the values and give back what the read left at the provider. Never waits, never raises."""


class Sink(Protocol):
    """Where values go."""

    def check(self) -> None:
        """Raise where the receiver is gone or is not who it was. Called just before the success is recorded."""

    async def deliver(self, receipt: Receipt) -> Render:
        """Release the values of a recorded success."""


async def render(
    scopes: Mapping[ScopeName, Scope],
    caller: Caller,
    request: Request,
    *,
    audit: AuditLog,
    provider: Provider,
    sink: Sink,
) -> Render:
    """Render ``request`` for ``caller`` into ``sink``: decide, reserve, resolve, record, release; in this order or not at all.

    Raises the typed error of the step that failed, after its row is recorded or queued. Until ``deliver`` no value has
    left the provider's worker, so a failure before it, or a cancellation, leaves nothing behind.
    """
    # 1. Policy says yes, or the denial is recorded and told.
    decision = decide(scopes, caller, request)
    if isinstance(decision, Denial):
        audit_id = audit.deny(caller, request, decision)
        raise Denied(decision.message, mend=decision.mend, reason=decision.rule, scope=decision.scope, audit_id=audit_id)
    # 2. The intent is on the log, before any provider is asked.
    try:
        reservation = await audit.reserve(decision)
    except PrismVaultError as error:
        raise _about(error, decision) from None
    try:
        # 3. The provider is read, in a worker that ends with this render.
        resolution = await provider.resolve(reservation)
        try:
            # 4. The receiver is still the one that policy looked at.
            sink.check()
            # 5. The success is on the log, before anything is released.
            receipt = await audit.succeed(resolution)
        except BaseException:
            provider.drop(resolution)
            raise
    except BaseException as error:  # noqa: BLE001 - recorded and raised again, cancellation too
        audit.fail(reservation, error)
        raise _about(error, decision, reservation.audit_id) from None
    try:
        # 6. Release.
        return await sink.deliver(receipt)
    except BaseException as error:  # noqa: BLE001 - recorded and raised again, cancellation too
        provider.drop(resolution)
        audit.clear(reservation, "not_delivered")
        raise _about(error, decision, reservation.audit_id) from None


def foretell(scopes: Mapping[ScopeName, Scope], caller: Caller, request: Request) -> str:
    """Return what a render would give, a line for each binding, without one. Raises ``Denied``; nothing is recorded."""
    decision = decide(scopes, caller, request)
    if isinstance(decision, Denial):
        raise Denied(decision.message, mend=decision.mend, reason=decision.rule, scope=decision.scope)
    return "".join(f"{binding.name or 'every key of'} <- {binding.reference}\n" for binding in decision.bindings)


def _about(error: BaseException, grant: Grant, audit_id: str = "") -> BaseException:
    """Return the error, telling what it is about and the record that a person can look up."""
    if isinstance(error, PrismVaultError):
        error.audit_id = audit_id or error.audit_id
        error.scope = error.scope or ",".join(scope.name for scope in grant.scopes)
    return error


def run_blocking(script: Coroutine[object, object, Result]) -> Result:
    """Run a script whose adapters block instead of suspending, without an event loop, and return its result."""
    try:
        script.send(None)
    except StopIteration as finished:
        return cast("Result", finished.value)
    script.close()
    raise AssertionError("an adapter of a blocking render suspended")
