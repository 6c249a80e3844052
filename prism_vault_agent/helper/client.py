"""The agent's side of the helper: asks it, and says in one line why something was not done."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Final, Self

from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.helper import wire
from prism_vault_agent.helper.wire import Request, Said, Verb, unit_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

SECONDS: Final = 10.0  # a machine under load takes its time to start the helper
# One that did not answer is not waited for again so long by whoever takes back file after file: processes are to be ended, too.
DEAF_SECONDS: Final = 30.0
LEAST_SECONDS: Final = 0.05
_deaf_until: dict[str, float] = {}


def asking(path: str) -> AbstractContextManager[Helper | None]:
    """Return the helper at ``path``, for a ``with``; None where there is to be none."""
    if not path:
        return contextlib.nullcontext()
    return Helper(path, LEAST_SECONDS if time.monotonic() < _deaf_until.get(path, 0.0) else SECONDS)


def signal_by(path: str, pidfd: int, number: int) -> None:
    """Have the helper at ``path`` signal a process, by a descriptor that is closed then; blocks. Raises as ``Helper.kill``."""
    try:
        with Helper(path) as helper:
            helper.kill(pidfd, number)
    finally:
        os.close(pidfd)


class Helper:
    """Connects at the first request, and is closed by the ``with`` that it is used in.

    Every request raises ``CannotCreate`` where the helper is not there, does not answer, or refuses.
    """

    def __init__(self, path: str, seconds: float = SECONDS) -> None:
        """``seconds`` is how long an answer is waited for."""
        self._path = path
        self.seconds = seconds
        self._connection: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def give(self, descriptor: int, uid: int, gid: int) -> None:
        """Give a file of ours to another user or group, which its scope names with its mode."""
        self._ask(Request(Verb.CHOWN, (uid, gid)), descriptor)

    def take(self, descriptor: int) -> None:
        """Take a rendered file back, by a descriptor of any kind."""
        self._ask(Request(Verb.CHOWN, (os.geteuid(), os.getegid())), descriptor)

    def read(self, descriptor: int) -> int:
        """Return a descriptor by which a rendered file can be read, for one of any kind."""
        return self._ask(Request(Verb.OPEN), descriptor)

    def kill(self, pidfd: int, number: int) -> None:
        """Signal a process of another user, or all of a group. Raises ``ProcessLookupError`` where it has ended."""
        self._ask(Request(Verb.KILL, (number, 0)), pidfd)

    def group(self, pidfd: int, numbers: tuple[int, int]) -> None:
        """Have a process put into a control group of its own (see ``wire.group_of``). Raises ``ProcessLookupError`` likewise."""
        self._ask(Request(Verb.GROUP, numbers), pidfd)

    def ungroup(self, descriptor: int) -> None:
        """Have a control group taken away, by a descriptor of its directory, and its processes put to where it was below."""
        self._ask(Request(Verb.LEAVE), descriptor)

    def mount(self) -> None:
        """Have the memory for files mounted."""
        self._ask(Request(Verb.MOUNT), None)

    def tell(self, unit: str, how: str) -> None:
        """Have a unit of systemd that a ``notify`` names reload or restart, as that says, and wait for it."""
        self._ask(Request(Verb.UNIT, unit_of(unit, how)), None)

    def _ask(self, request: Request, descriptor: int | None) -> int:
        """Send one request; return the descriptor that came with the answer, -1 where none did."""
        try:
            if self._connection is None:
                self._connection = _connected(self._path, self.seconds)
            # One that has refused us has closed; what it said is there to be read all the same.
            with contextlib.suppress(BrokenPipeError):
                wire.send(self._connection, wire.encode(request), descriptor)
            packet, passed = wire.receive(self._connection, 1 + wire.LONGEST_LINE)
            said, line = wire.decode_answer(packet)
            _deaf_until.pop(self._path, None)
        except (OSError, wire.Malformed) as error:
            self.__exit__()
            if isinstance(error, TimeoutError):
                _deaf_until[self._path] = time.monotonic() + DEAF_SECONDS
            why = "it ended, or answered what is no answer" if isinstance(error, wire.Malformed) else _told(error)
            raise CannotCreate(f"no helper serves us at {self._path}: {why}", mend=MEND, reason="no_helper") from None
        if said != Said.DONE:
            wire.close(passed)
        if said == Said.ENDED:
            raise ProcessLookupError
        if said == Said.REFUSED:
            raise CannotCreate(f"the helper refused: {line}", reason="helper_refused")
        wire.close(passed[1:])
        return passed[0] if passed else -1


MEND: Final = "start prism-vault-helper.socket, or run the agent as root"


def _connected(path: str, seconds: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(seconds)
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _told(error: OSError) -> str:
    return "it does not answer in time" if isinstance(error, TimeoutError) else os.strerror(error.errno or 0)
