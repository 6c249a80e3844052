"""One request to this host's agent, for the commands that show or steer it (``exec`` has a leaner one of its own)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.config.places import HOST_SOCKET, LONGEST_SOCKET_PATH, places
from prism_vault_agent.errors import AgentUnavailable, Denied, ProtocolError, Unavailable, from_plain
from prism_vault_agent.exec import Malformed, wire

if TYPE_CHECKING:
    import argparse

Json = dict[str, Any]

SECONDS: Final = 5.0


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a command the option that names the agent's socket."""
    parser.add_argument(
        "--socket", metavar="PATH", help="the agent's socket (default: PRISM_VAULT_SOCKET, else the usual places)"
    )


def add_request(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that say what a render of its ``scopes`` is for."""
    parser.add_argument("--purpose", metavar="PURPOSE", help="why; needed where the scope allows several purposes")
    parser.add_argument("--run-ref", metavar="REF", help="the agent run that it is for")
    parser.add_argument("--job-id", metavar="ID", help="the job that it is for")


def request(args: argparse.Namespace) -> Json:
    """Return what these options and ``scopes`` ask of the agent."""
    return {"scopes": args.scopes, "purpose": args.purpose, "run_ref": args.run_ref, "job_id": args.job_id}


def find(named: str | None) -> str:
    """Return the socket to ask: ``named``, else PRISM_VAULT_SOCKET, else the user's own agent's, else the host's agent's.

    Raises ``AgentUnavailable`` where none of the usual places has one.
    """
    path = named or os.environ.get("PRISM_VAULT_SOCKET", "")
    if path:
        return path
    own = places(os.environ, os.geteuid()).socket
    usual = [place for place in dict.fromkeys((own, HOST_SOCKET)) if place]
    for place in usual:
        if os.path.exists(place):
            return place
    raise _nobody(" or ".join(usual))


def ask(path: str, method: str, target: str, body: Json | None = None, *, seconds: float = SECONDS) -> tuple[int, Json]:
    """Return the HTTP status and the JSON object that the agent on the socket ``path`` answers within ``seconds``.

    An error of the agent's is raised as itself. Raises ``AgentUnavailable`` where no agent listens, ``Denied`` where the
    socket is closed to us, ``Unavailable`` where no answer comes in time, ``ProtocolError`` for an answer that is none.
    """
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {target} HTTP/1.1\r\nHost: prism-vault\r\nX-Prism-Vault: 1\r\nConnection: close\r\n"
    try:
        answer = _exchanged(path, f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content, seconds)
        status, _, content = wire.parse_answer(answer)
        told = json.loads(content)
    except PermissionError:
        raise Denied(f"you may not use the agent's socket {path}", mend="ask to be made a member of its group") from None
    except (TimeoutError, BlockingIOError):
        raise Unavailable("the agent does not answer", mend="see its log, or restart it") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise _nobody(path) from None
    except (OSError, Malformed, ValueError):
        raise ProtocolError(f"what listens on {path} is not an agent of this version", mend="restart the agent") from None
    if not isinstance(told, dict):
        raise ProtocolError(f"what listens on {path} is not an agent of this version", mend="restart the agent")
    if status >= 400:
        raise from_plain({key: value for key, value in told.items() if isinstance(value, str)})
    return status, told


def _exchanged(path: str, message: bytes, seconds: float) -> bytes:
    """Return all that is answered to a message; each step of it may take so long."""
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise FileNotFoundError
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        # While the agent's queue is full connect(2) waits with this limit, and fails at once with settimeout().
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), 0))
        connection.connect(path)
        connection.settimeout(seconds)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it read all
            connection.sendall(message)
        answer = bytearray()
        while len(answer) <= wire.LONGEST_ANSWER and (part := connection.recv(65536)):
            answer += part
        return bytes(answer)


def _nobody(path: str) -> AgentUnavailable:
    return AgentUnavailable(
        f"no agent answers on {path}",
        mend="start it with 'prism-vault agent' (or systemctl start prism-vault-agent)",
    )
