"""Which mount a path belongs to, and what is mounted there: asked once a mount, kept as plain data that may be handed on.

The server says of what type a mount is; nothing is guessed from its name.
"""

from __future__ import annotations

from prism_vault_agent.errors import ConfigError, Denied, ProtocolError
from prism_vault_agent.vault import fields
from prism_vault_agent.vault.refusal import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from prism_vault_agent.vault.transport import Transport

# Mount path, ending in a slash, to the KV version mounted there, or to OTHER for an engine that may give leases.
Mounts = dict[str, int]
OTHER = 0
# What the server itself is made of.
NO_ENGINES = frozenset({"system", "identity", "cubbyhole", "token", "ns_system", "ns_identity", "ns_cubbyhole", "ns_token"})


def look_up(transport: Transport, token: str, paths: Iterable[str], known: Mounts, *, deadline: float) -> Mounts:
    """Return ``known`` with the mount of every path: one request for each mount that is not known yet.

    Raises :class:`ConfigError` for a mount that holds no secrets, :class:`Denied` and :class:`TokenExpired` as ``refusal``,
    and as ``Transport.request``.
    """
    mounts = dict(known)
    for path in paths:
        if mount_of(path, mounts) is None:
            mount, version = _ask(transport, token, path, deadline)
            mounts[mount] = version
    return mounts


def mount_of(path: str, mounts: Mounts) -> str | None:
    """Return the known mount that ``path`` is below; mounts never nest, so there is one at most."""
    start = 0
    while (start := path.find("/", start) + 1) > 0:
        if path[:start] in mounts:
            return path[:start]
    return None


def _ask(transport: Transport, token: str, path: str, deadline: float) -> tuple[str, int]:
    answer = transport.request("GET", f"sys/internal/ui/mounts/{path}", token=token, deadline=deadline)
    if answer.status == 403:
        told = f"vault://{path}"
        raise refusal(transport, token, told, deadline=deadline, mend="check the mount's name, and grant read on the path")
    if not answer.ok:
        raise Denied(
            f"{transport.address} has no mount for vault://{path} ({answer.status})",
            mend="check vault.namespace and the reference",
            reason="provider_policy",
        )
    data = fields.mapping(answer.data, "data")
    mount, kind = fields.text(data, "path"), fields.text(data, "type")
    # Where a path starts with a namespace, the answer's mount does not.
    mount = f"{mount.strip('/')}/"
    at = 0 if path.startswith(mount) else path.find(f"/{mount}") + 1
    if not path[at:].startswith(mount):
        raise ProtocolError(f"{transport.address} names a mount that vault://{path} is not below", reason="malformed_answer")
    if kind in NO_ENGINES:
        raise ConfigError(f"the mount {path[:at]}{mount} is of type {kind}", mend="name a secret", reason="unsupported_mount")
    if kind not in {"kv", "generic"}:
        return path[:at] + mount, OTHER
    options = data.get("options") or {}
    return path[:at] + mount, 2 if isinstance(options, dict) and options.get("version") == "2" else 1
