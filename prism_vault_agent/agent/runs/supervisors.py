"""The supervisors of runs (``exec --supervise``) that wait for orders: to start it anew, and when what it has comes to its end.

A supervisor names the release that its command has, on a connection that stays. It makes it anew when we were away: nothing of it
is kept. What was taken back is, since it is not given again. Which user's a connection is the kernel says, so nobody gets another
user's orders.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.agent.front.http import head
from prism_vault_agent.agent.kept import Kept
from prism_vault_agent.agent.runs.ends import in_milliseconds
from prism_vault_agent.agent.runs.runs import STOPPED
from prism_vault_agent.errors import Denied, Unavailable

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from prism_vault_agent.agent.runs.ends import Ends
    from prism_vault_agent.agent.runs.run import Run
    from prism_vault_agent.agent.runs.runs import Runs

log = structlog.get_logger()

RESTART: Final = b"restart\n"
ENDS: Final = b"ends %b\n"
NEVER: Final = b"never"
# How often it is looked whether an end has changed; until it is told, the one before stands.
SECONDS: Final = 1.0
ORDERS: Final = "application/x-prism-vault-orders"
# A command that was just started, or whose agent was away, has a supervisor that is about to come.
COMING_SECONDS: Final = 5.0
# Beyond the grace: the end is ordered, and then it is recorded.
ENDING_SECONDS: Final = 5.0
REMEMBERED: Final = 4096
# Why runs are ended that may have the same secrets anew.
TOO_OLD: Final = ("exited", "lease_expired", "stale", STOPPED)


class Supervisors:
    """The connections, by user and release. ``most`` returns how many one user may have beyond one for each run of his."""

    def __init__(self, runs: Runs, most: Callable[[], int], ends: Ends, path: str) -> None:
        """Order about ``runs``, and tell when their ``ends`` are. The file ``path`` has what was taken back."""
        self._runs = runs
        self._most = most
        self.ends = ends
        self._told: dict[tuple[int, str], bytes] = {}
        self._waiting: dict[tuple[int, str], socket.socket] = {}
        self._came = asyncio.Condition()
        self._taken_back = Kept(path)

    def load(self) -> None:
        """Take over what an earlier agent has taken back."""
        self._taken_back.load()

    async def wait(self, connection: socket.socket, uid: int, release: str) -> None:
        """Keep the connection of a user's supervisor, who waits for orders about a release. Raises ``Unavailable``."""
        users = Counter(user for user, _ in self._waiting)
        if users[uid] >= self._most() + sum(_key(run)[0] == uid for run in self._runs):
            raise Unavailable("too many supervisors of this user", mend="retry", reason="busy")
        kept, key = connection.dup(), (uid, release)
        kept.setblocking(False)
        self._leave(key)
        self._waiting[key] = kept
        asyncio.get_running_loop().add_reader(kept, self._leave, key)
        if self._send(key, (head(200, {"Content-Type": ORDERS}) + "\r\n").encode()):
            async with self._came:
                self._came.notify_all()
            self._tell_ends()

    async def run(self) -> None:
        """Tell each supervisor when what its command has comes to its end, whenever that changes, until cancelled."""
        while True:
            self._tell_ends()
            await asyncio.sleep(SECONDS)

    def _tell_ends(self) -> None:
        for run in self._runs if self._waiting else ():
            key = _key(run)
            end = self.ends.of(run.render) if key in self._waiting else None
            if end is None:
                continue
            told = in_milliseconds(end).encode() or NEVER
            if self._told.get(key) != told and self._send(key, ENDS % told):
                self._told[key] = told

    async def restart(self, run: Run) -> None:
        """Have a run's supervisor end it and start it anew; return when it has ended.

        Raises ``Unavailable`` where nobody waits for that order, or the run does not end.
        """
        key = _key(run)
        try:
            async with asyncio.timeout(COMING_SECONDS), self._came:
                await self._came.wait_for(lambda: key in self._waiting or run.ended.is_set())
        except TimeoutError:
            told = f"the supervisor of {key[1]} does not wait for orders"
            raise Unavailable(told, mend="start it with --on-rotate restart", reason="no_supervisor") from None
        if run.ended.is_set():
            return
        before, run.why = run.why, "restarted"
        try:
            if not self._send(key, RESTART):
                raise Unavailable(f"the supervisor of {key[1]} has gone", mend="retry", reason="no_supervisor")
            log.info("run.restart", audit_id=key[1], pid=run.pid)
            async with asyncio.timeout(run.render.reservation.grant.grace + ENDING_SECONDS):
                await run.ended.wait()
        except TimeoutError:
            raise Unavailable(f"the supervisor of {key[1]} has not ended it", mend="end it", reason="not_ended") from None
        finally:
            if not run.ended.is_set() and run.why == "restarted":  # nobody has taken it back meanwhile
                run.why = before

    def ending(self, run: Run, why: str) -> None:
        """Take note that a run is ended: unless what it has is merely too old, who supervises it may not start it anew."""
        if why in TOO_OLD or not run.render.reservation.grant.request.supervised:
            return
        try:
            self._taken_back.keep({"event_id": run.render.reservation.audit_id})
        except OSError as error:
            told = "nothing keeps its supervisor from starting it anew"
            log.error("supervisors.not_kept", audit_id=run.render.reservation.audit_id, errno=error.errno, message=told)
        while len(self._taken_back) > REMEMBERED:
            self._taken_back.drop(next(iter(self._taken_back)))

    def check(self, after: str | None) -> None:
        """Raise ``Denied`` where a command is to be started anew ``after`` a release that was taken back."""
        if after in self._taken_back:
            told = "what it had was taken back, so it is not started anew"
            raise Denied(told, mend="start it by hand if it is to have secrets again", reason="taken_back")

    def _send(self, key: tuple[int, str], what: bytes) -> bool:
        """Send something to a supervisor; tell whether that was possible."""
        connection = self._waiting.get(key)
        try:
            if connection is not None and connection.send(what) == len(what):
                return True
        except OSError:
            pass  # as below
        self._leave(key)
        return False

    def _leave(self, key: tuple[int, str]) -> None:
        """Close a connection: its supervisor has ended, or has started another release."""
        self._told.pop(key, None)
        connection = self._waiting.pop(key, None)
        if connection is not None:
            asyncio.get_running_loop().remove_reader(connection)
            connection.close()


def _key(run: Run) -> tuple[int, str]:
    return run.render.reservation.grant.caller.uid, run.render.reservation.audit_id
