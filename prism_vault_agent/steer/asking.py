"""One request in JSON to this host's agent, for every command but ``exec``."""

import posix
import time

from prism_vault_agent.exec import Malformed, connection
from prism_vault_agent.steer.plain_json import decoded, encoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SECONDS = 5.0


def find(named: "str | None", own: "Mapping[bytes, bytes]") -> str:
    """Return the socket to ask: ``named``, else PRISM_VAULT_SOCKET, else the user's own agent's, else the host's agent's.

    ``own`` are the caller's variables. Raises ``AgentUnavailable`` where none of the usual places has one.
    """
    path = named or own.get(b"PRISM_VAULT_SOCKET", b"").decode("utf-8", "surrogateescape")
    usual = connection.sockets(path, own, posix.geteuid())
    for place in usual:
        if place == path or _exists(place):
            return place
    from prism_vault_agent.steer import faults  # noqa: PLC0415 - only a failure pays for it

    raise faults.nobody(" or ".join(usual))


def ask(
    path: str, method: str, target: str, body: "dict[str, Any] | None" = None, *, seconds: float = SECONDS
) -> "tuple[int, dict[str, Any]]":
    """Return the HTTP status and the JSON object that the agent on the socket ``path`` answers within ``seconds``.

    An error of the agent's is raised as itself. Raises ``AgentUnavailable`` where no agent listens, ``Denied`` where the
    socket is closed to us, ``Unavailable`` where no answer comes in time, ``ProtocolError`` for an answer that is none.
    """
    content = b"" if body is None else encoded(body)
    head = f"{method} {target} HTTP/1.1\r\nHost: prism-vault\r\nX-Prism-Vault: 1\r\nConnection: close\r\n"
    request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
    try:
        status, _, content = connection.exchange([path], lambda: request, time.monotonic() + seconds)
        told = decoded(content)
        if not isinstance(told, dict):
            raise ValueError("it is no object")  # noqa: TRY004 - as an answer that is no JSON
    except (connection.NotConnected, OSError, Malformed, ValueError) as error:
        from prism_vault_agent.steer import faults  # noqa: PLC0415 - only a failure pays for it

        raise faults.unanswered(path, error) from None
    if status >= 400:
        from prism_vault_agent.errors import from_plain  # noqa: PLC0415 - as above

        raise from_plain({key: value for key, value in told.items() if isinstance(value, str)})
    return status, told


def _exists(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True
