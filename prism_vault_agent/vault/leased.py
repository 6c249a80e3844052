"""One read of an engine other than KV, and what its answer means: whatever engine answers with a lease, it is a leased read."""

from __future__ import annotations

import time

from prism_vault_agent.errors import ConfigError, ProtocolError, ProviderUnavailable, SecretNotFound
from prism_vault_agent.model import Lease
from prism_vault_agent.vault import fields, static

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from prism_vault_agent.vault.kv import Place
    from prism_vault_agent.vault.transport import Answer, Transport

LONGEST_ID = 1024


def ask(transport: Transport, token: str, place: Place, deadline: float) -> Answer:
    """Read one path, once: a second attempt would make a second lease. Raises as ``Transport.request``.

    Raises :class:`ConfigError` for a pinned version.
    """
    if place.version:
        raise ConfigError(f"{place}: only KV version 2 keeps versions", mend="leave out ?version=")
    return transport.request("GET", place.path, token=token, deadline=deadline, repeatable=False, exact_numbers=True)


def understand(place: Place, answer: Answer) -> tuple[dict[str, Any], Lease]:
    """Return the keys and values of an answer, and its lease; ``seconds`` is 0 where nothing ends.

    What is of a static role has a version in place of a lease. Raises :class:`SecretNotFound`, :class:`ProviderUnavailable` for
    a lease that has ended already, :class:`ProtocolError`.
    """
    if answer.status == 404:
        raise SecretNotFound(f"{place} does not exist", mend="check the reference, and the engine's role", reason="no_such_path")
    if not answer.ok:
        raise ConfigError(f"the engine refuses {place} ({answer.status})", mend="check the reference, and the engine's role")
    data, plain = fields.mapping(answer.data, "data"), answer.data or {}
    lease_id = fields.text(plain, "lease_id", "")
    if len(lease_id) > LONGEST_ID or not lease_id.isprintable():
        raise ProtocolError("the answer's field lease_id is not that of a lease", reason="malformed_answer")
    seconds = fields.duration(plain, "lease_duration")
    if not lease_id and f"/{static.CREDENTIALS}" in place.path and static.SET in data:
        return data, static.lease(place.path, data)
    if lease_id and seconds < 1:
        raise ProviderUnavailable(f"{place} was answered with a lease that has ended", mend="retry", reason="lease_expired")
    return data, Lease(
        place.path, lease_id=lease_id, seconds=seconds, renewable=bool(lease_id) and fields.flag(plain, "renewable")
    )


def until(ends: int, longest: int, lease: Lease) -> Lease:
    """Return the lease of a certificate that ends then, in seconds since 1970, and that nobody renews.

    ``ends`` is by the server's clock; by ours it lives ``longest``, which was asked for, so that neither clock can make it live
    longer. Raises :class:`ProviderUnavailable` for one that has ended.
    """
    left = min(ends - int(time.time()), longest)
    if left < 1:
        told = f"vault://{lease.path} was answered with a certificate that has ended"
        raise ProviderUnavailable(told, mend="check the clocks of this host and of the provider", reason="lease_expired")
    return Lease(lease.path, lease_id=lease.lease_id, seconds=min(left, lease.seconds or left))
