"""One request to this host's agent, for the commands that show or steer it (``exec`` has a leaner one of its own)."""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.config.places import HOST_SOCKET, LONGEST_SOCKET_PATH, places
from prism_vault_agent.errors import AgentUnavailable, Denied, ProtocolError, Unavailable, from_plain

if TYPE_CHECKING:
    import argparse

Json = dict[str, Any]

SECONDS: Final = 5.0
LARGEST_ANSWER: Final = 16 * 1024 * 1024


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
    connection = _Connection(path, seconds)
    content = None if body is None else json.dumps(body)
    try:
        connection.request(method, target, content, {"Host": "prism-vault", "X-Prism-Vault": "1", "Connection": "close"})
        answer = connection.getresponse()
        told = json.loads(answer.read(LARGEST_ANSWER))
    except PermissionError:
        raise Denied(f"you may not use the agent's socket {path}", mend="ask to be made a member of its group") from None
    except (TimeoutError, BlockingIOError):
        raise Unavailable("the agent does not answer", mend="see its log, or restart it") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise _nobody(path) from None
    except (OSError, http.client.HTTPException, ValueError):
        raise ProtocolError(f"what listens on {path} is not an agent of this version", mend="restart the agent") from None
    finally:
        connection.close()
    if not isinstance(told, dict):
        raise ProtocolError(f"what listens on {path} is not an agent of this version", mend="restart the agent")
    if answer.status >= http.client.BAD_REQUEST:
        raise from_plain({key: value for key, value in told.items() if isinstance(value, str)})
    return answer.status, told


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("prism-vault", timeout=seconds)
        self.path = path
        self.seconds = seconds

    def connect(self) -> None:
        if len(os.fsencode(self.path)) > LONGEST_SOCKET_PATH:
            raise FileNotFoundError
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # While the agent's queue is full connect(2) waits with this limit, and fails at once with settimeout().
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(self.seconds), 0))
        self.sock.connect(self.path)
        self.sock.settimeout(self.seconds)


def _nobody(path: str) -> AgentUnavailable:
    return AgentUnavailable(
        f"no agent answers on {path}",
        mend="start it with 'prism-vault agent' (or systemctl start prism-vault-agent)",
    )
