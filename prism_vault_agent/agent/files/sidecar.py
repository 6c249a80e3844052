"""What the agent of a container does beyond serving: it has scopes rendered by itself, and tells whether they are there."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from prism_vault_agent.agent.front.peer import attest
from prism_vault_agent.errors import Unavailable

if TYPE_CHECKING:
    from prism_vault_agent.agent.files.requests import FileRequests
    from prism_vault_agent.model import Caller, Request
    from prism_vault_agent.scope import ScopeName

log = structlog.get_logger()

PAUSE_FIRST: Final = 1.0
PAUSE_LONGEST: Final = 30.0


class Sidecar:
    """The scopes of ``request``, which are to be there for as long as the agent serves; ``left`` is what stayed after that."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.left: list[str] = []
        self._error = "not rendered yet"

    async def run(self, requests: FileRequests) -> None:
        """Have each scope rendered, as often as it takes, for this process as the kernel attests it.

        Raises what trying again does not mend. Later versions are the agent's business, as for everybody who had files rendered.
        """
        caller = ourselves()
        for name in dict.fromkeys(self.request.scopes):
            await self._render(requests, caller, name)
        self._error = ""
        log.info("sidecar.rendered", scopes=list(self.request.scopes))

    async def _render(self, requests: FileRequests, caller: Caller, name: ScopeName) -> None:
        pause = PAUSE_FIRST
        while True:
            try:
                await requests.render(caller, replace(self.request, scopes=(name,)))
            except Unavailable as error:
                self._error = error.line()
                log.warning("sidecar.waiting", scope=name, reason=error.reason, message=error.line(), retry_in=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, PAUSE_LONGEST)
            else:
                return

    def describe(self, files: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what ``status`` shows, of these files: ``why`` it is not healthy; empty where it is."""
        return {"scopes": list(self.request.scopes), "why": self._error or self._why({each["scope"]: each for each in files})}

    def _why(self, told: dict[str, dict[str, Any]]) -> str:
        """Healthy is: each scope is out there on the record, as new as was last known, and as it was rendered."""
        for name in dict.fromkeys(self.request.scopes):
            if name not in told:
                return f"scope {name}: its files were cleared; the log says why"
            if told[name]["stale"] and told[name]["on_rotate"] != "none":
                return f"scope {name}: a newer version is due" + (f" ({told[name]['error']})" if told[name]["error"] else "")
            if told[name]["drift"]:
                return f"scope {name}: somebody changed its files ({', '.join(told[name]['drift'])})"
        return ""


def ourselves() -> Caller:
    """Return this process as a caller, attested as everybody's: by the kernel, from a socket whose other end is ours."""
    here, there = socket.socketpair()
    with here, there:
        peer = attest(here)
        try:
            return peer.caller()
        finally:
            peer.close()
