"""Tells a container, over the socket of its engine: the API that Docker and Podman share, one request for each connection.

A container that does not run is left as it is. ``inspect`` is not asked: its answer holds the environment of the container, which
may hold values.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from prism_vault_agent.notify.occasion import not_told, one_line

if TYPE_CHECKING:
    from prism_vault_agent.notify.occasion import Occasion
    from prism_vault_agent.scope import Notify

LARGEST_ANSWER: Final = 1024 * 1024
_RUNNING: Final = ("running", "paused", "restarting")
_ID: Final = re.compile(r"[0-9a-f]{12,64}")
_ANSWERS: Final = {403: "refuses", 404: "no longer has it"}
_DONE: Final = 204
_NOT_RUNNING: Final = 409


async def tell(notify: Notify, _occasion: Occasion) -> str:
    """Signal or restart the container; return why there was nobody to tell, empty where it was told.

    Raises ``Unavailable`` where the engine cannot be asked, has no such container, or says no.
    """
    name = notify.target[0]
    found = await _find(notify.engine_socket, "name", f"^/?{re.escape(name)}$")
    if found is None and _ID.fullmatch(name):
        found = await _find(notify.engine_socket, "id", name)
    if found is None:
        raise not_told("the engine has no such container", "correct the name in notify, or start it")
    if found.get("State") not in _RUNNING:
        return "it does not run"
    what = "restart" if notify.how == "restart" else f"kill?signal=SIG{notify.how}"
    status, body = await _ask(notify.engine_socket, "POST", f"/containers/{found['Id']}/{what}")
    if status == _NOT_RUNNING and notify.how != "restart":
        return "it does not run"
    if status != _DONE:
        told = _ANSWERS.get(status, f"answered {status}: {one_line(body)}")
        raise not_told(f"the engine {told}", "see the engine's own log")
    return ""


async def _find(path: str, by: str, what: str) -> dict[str, Any] | None:
    """Return what the engine lists of the one container that a filter finds; None where it finds none."""
    query = urlencode({"all": "true", "filters": json.dumps({by: [what]})})
    status, body = await _ask(path, "GET", f"/containers/json?{query}")
    try:
        listed = json.loads(body) if status == 200 else None
        if not isinstance(listed, list) or not all(isinstance(each.get("Id"), str) for each in listed):
            raise ValueError
    except (ValueError, AttributeError):
        raise not_told(f"what answers on {path} is no engine (status {status})", "correct engine_socket") from None
    if len(listed) > 1:
        raise not_told("it names several containers", "write more of its id, or its name")
    return dict(listed[0]) if listed else None


async def _ask(path: str, method: str, target: str) -> tuple[int, bytes]:
    """Send one request in HTTP/1.0, whose answer ends with the connection; return status and body."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise not_told(f"the engine's socket {path} cannot be used: {why}", "see docs/files.md on who may use it") from None
    try:
        writer.write(f"{method} {target} HTTP/1.0\r\nHost: engine\r\nContent-Length: 0\r\n\r\n".encode())
        answer = b""
        while len(answer) <= LARGEST_ANSWER and (part := await reader.read(65536)):
            answer += part
    except OSError as error:
        raise not_told(f"the engine broke the connection off: {os.strerror(error.errno or 0)}", "see its own log") from None
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit() or len(answer) > LARGEST_ANSWER:
        raise not_told(f"what answers on {path} is no engine", "correct engine_socket")
    return int(words[1]), body
