"""One KV secret, version 1 or 2: how it is asked for, and what its answer means."""

from __future__ import annotations

from typing import NamedTuple

from prism_vault_agent.errors import ConfigError, ProtocolError, ProviderUnavailable, SecretNotFound
from prism_vault_agent.model import Lease
from prism_vault_agent.scope import SecretReference
from prism_vault_agent.vault import fields
from prism_vault_agent.vault.mounts import Mounts, mount_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from prism_vault_agent.vault.transport import Answer, Transport
    from prism_vault_agent.wanted.kinds import Wanted


class Place(NamedTuple):
    """A path and a version of it, where one is pinned, or what is wanted of an engine there: what one request reads."""

    path: str
    version: int | None
    wanted: Wanted | None = None

    def __str__(self) -> str:
        """Return the reference to all keys there."""
        return str(SecretReference(self.path, None, self.version))


def ask(transport: Transport, token: str, place: Place, mounts: Mounts, deadline: float) -> Answer:
    """Read one secret. Raises :class:`ConfigError` for a pinned version of KV v1, and as ``Transport.request``."""
    mount = mount_of(place.path, mounts) or ""
    path, query = place.path, None
    if mounts.get(mount) == 2:
        path = f"{mount}data/{place.path.removeprefix(mount)}"
        query = {"version": place.version} if place.version else None
    elif place.version:
        raise ConfigError(f"{place}: {mount} is KV version 1, which keeps no versions", mend="leave out ?version=")
    return transport.request("GET", path, token=token, query=query, deadline=deadline, exact_numbers=True)


def understand(place: Place, answer: Answer, version: int) -> tuple[dict[str, Any], Lease]:
    """Return the keys and values of a secret, numbers as the server wrote them, and what was read.

    Raises :class:`SecretNotFound` with ``deleted``, ``destroyed`` or ``no_such_path``,
    :class:`ProviderUnavailable` while a mount is being upgraded, :class:`ProtocolError`.
    """
    if answer.status not in {200, 404}:
        if "upgrading" in str((answer.data or {}).get("errors")).lower():  # KV turns from version 1 to 2, or was just mounted
            raise ProviderUnavailable(f"{place}: the mount is not ready", mend="retry later")
        raise ProtocolError(f"{place} was answered {answer.status}")
    if version == 1:
        if answer.status == 404:
            raise _not_found(place, "no_such_path", "does not exist", "check the reference, or write the secret")
        return fields.mapping(answer.data, "data"), Lease(place.path)
    data = (answer.data or {}).get("data")
    if data is None and answer.status == 404:
        raise _not_found(place, "no_such_path", "does not exist", "check the reference, or write the secret")
    if not isinstance(data, dict):
        raise ProtocolError("the answer's field data is not an object", reason="malformed_answer")
    metadata = fields.mapping(data, "metadata")
    ends = fields.text(metadata, "deletion_time", "")
    # The data decides: a deletion_time may lie in the future (delete_version_after), and then the version is alive.
    if answer.status == 404 or data.get("data") is None:
        if fields.flag(metadata, "destroyed"):
            raise _not_found(place, "destroyed", "was destroyed", "write a new version")
        raise _not_found(place, "deleted", "was deleted", "undelete it, or write a new version")
    try:
        created = fields.text(metadata, "created_time", "")
        lease = Lease(place.path, int(metadata.get("version") or 0), seconds=_until(ends), created=created)
    except (TypeError, ValueError):
        raise ProtocolError("the answer's field metadata is not that of a version", reason="malformed_answer") from None
    return fields.mapping(data, "data"), lease


def no_such_version(place: Place) -> SecretNotFound:
    """Return the error for a pinned version of a path that has others."""
    return _not_found(place, "no_such_version", "does not exist, but the path has other versions", "pin one that exists")


def no_such_key(reference: SecretReference) -> SecretNotFound:
    """Return the error for a key that the secret has not."""
    return SecretNotFound(
        f"{reference}: the secret has no key of this name", mend="check the key's spelling", reason="no_such_key"
    )


def _until(time: str) -> int:
    """Return the seconds until a time of RFC 3339, at least 1; 0 for no time at all."""
    if not time:
        return 0
    from datetime import UTC, datetime  # noqa: PLC0415 - few secrets need it, and each import delays direct mode

    left = (datetime.fromisoformat(time) - datetime.now(UTC)).total_seconds()
    return max(1, min(int(left), fields.LONGEST_SECONDS))


def _not_found(place: Place, reason: str, what: str, mend: str) -> SecretNotFound:
    return SecretNotFound(f"{place} {what}", mend=mend, reason=reason)
