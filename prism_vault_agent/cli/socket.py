"""The options of the commands that ask this host's agent, and where they ask it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from prism_vault_agent.exec import Malformed, connection
from prism_vault_agent.steer import asking, faults
from prism_vault_agent.steer.asking import ask

if TYPE_CHECKING:
    import argparse


__all__ = ["add_option", "add_request", "ask", "find", "text"]


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


def text(path: str, target: str) -> str:
    """Return what the agent on the socket ``path`` answers to ``GET target``, which is text. Raises as :func:`ask`."""
    request = f"GET {target} HTTP/1.1\r\nHost: prism-vault\r\nConnection: close\r\n\r\n".encode()
    try:
        status, _, content = connection.exchange([path], lambda: request, time.monotonic() + asking.SECONDS)
        if status != 200:
            raise Malformed(f"status {status}")
        return content.decode()
    except (connection.NotConnected, OSError, ValueError) as error:
        raise faults.unanswered(path, error) from None


def find(named: str | None) -> str:
    """Return the socket to ask, see :func:`asking.find`, with the variables of this process."""
    return asking.find(named, os.environb)
