"""Does what was read still stand? Asked by metadata alone, so that no value is read without a reservation."""

from __future__ import annotations

from prism_vault_agent.errors import ProtocolError
from prism_vault_agent.vault import fields
from prism_vault_agent.vault.mounts import mount_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from prism_vault_agent.vault.mounts import Mounts
    from prism_vault_agent.vault.transport import Transport


def withdrawn(
    transport: Transport,
    token: str,
    versions: Iterable[tuple[str, int]],
    mounts: Mounts,
    *,
    deadline: float,
    newest: dict[str, int] | None = None,
) -> dict[tuple[str, int], str]:
    """Return which of these versions (path, number) of KV v2 were withdrawn, and how: deleted, destroyed or no_such_path.

    A version that metadata cannot be read of (403) is not told: that is a lack of a policy, not a withdrawal. ``newest`` is given
    the newest version of each path, where that one stands. Raises as ``Transport.request``.
    """
    found: dict[tuple[str, int], str] = {}
    asked: dict[str, list[int]] = {}
    for path, version in versions:
        asked.setdefault(path, []).append(version)
    for path, numbers in asked.items():
        mount = mount_of(path, mounts) or ""
        if mounts.get(mount) != 2:
            continue
        answer = transport.request("GET", f"{mount}metadata/{path.removeprefix(mount)}", token=token, deadline=deadline)
        if answer.status == 404:
            found |= {(path, number): "no_such_path" for number in numbers}
        elif answer.ok:
            data = fields.mapping(answer.data, "data")
            known = fields.mapping(data, "versions")
            current = data.get("current_version")
            if newest is not None and isinstance(current, int) and not _how(known.get(str(current))):
                newest[path] = current
            for number in numbers:
                if how := _how(known.get(str(number))):
                    found[path, number] = how
    return found


def _how(version: object) -> str:
    """Return how one version was withdrawn, or nothing. Versions over the mount's max_versions are gone from the list."""
    if version is None:
        return "destroyed"
    if not isinstance(version, dict):
        raise ProtocolError("the answer's field versions is not that of a secret", reason="malformed_answer")
    if fields.flag(version, "destroyed"):
        return "destroyed"
    ends = fields.text(version, "deletion_time", "")
    if not ends:
        return ""
    from datetime import UTC, datetime  # noqa: PLC0415 - few secrets need it

    try:
        return "deleted" if datetime.fromisoformat(ends) <= datetime.now(UTC) else ""
    except ValueError:
        raise ProtocolError("the answer's field deletion_time is not a time", reason="malformed_answer") from None
