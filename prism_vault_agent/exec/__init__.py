"""The thin client `prism-vault exec`: it asks the agent, then becomes the command.

An island: its modules import each other, a few modules of the interpreter's own that are written in C, and nothing else,
because every launch of a command pays for every import (see ``docs/adr/0030-thin-client.md``). This file has the two ways
in which it stops, and how they are told.
"""

import posix

STANDARD_OUTPUT = 1
STANDARD_ERROR = 2

USAGE = 64
AGENT_UNAVAILABLE = 69
INTERNAL = 70
TEMPORARY = 75
PROTOCOL = 76
DENIED = 77
CONFIG = 78
NOT_RUNNABLE = 126
NOT_FOUND = 127


class Failure(Exception):
    """Why no command runs: the exit status and what, where and what next, in one line. Never holds a value."""

    def __init__(self, exit_status: int, line: str) -> None:
        """Keep both; ``exit_status`` is one of the constants above."""
        super().__init__(line)
        self.exit_status = exit_status
        self.line = line


class Malformed(ValueError):
    """Bytes that break the wire format. The message says which rule, never what the bytes were."""


def shown(name: bytes) -> str:
    """Return ``name`` fit for a message: escaped to printable ASCII and cut, since it may be anything."""
    escaped = ascii(name.decode("utf-8", "surrogateescape"))[1:-1]
    return escaped if len(escaped) <= 64 else escaped[:61] + "..."


def report(failure: Failure, scopes: list[str]) -> int:
    """Write the one line of a failure and return its exit status."""
    where = f"scope {ascii(','.join(scopes))[1:-1]}: " if scopes else ""
    write(STANDARD_ERROR, f"prism-vault: {where}{failure.line}\n".encode("ascii", "backslashreplace"))
    return failure.exit_status


def defect(error: Exception, scopes: list[str]) -> int:
    """Write the one line of a defect of ours, without what its message holds, and return the exit status."""
    return report(Failure(INTERNAL, f"a defect in exec ({type(error).__name__}); please report it"), scopes)


def write(descriptor: int, text: bytes) -> bool:
    """Write all of ``text``; tell whether somebody takes it. Where nobody does there is nobody to tell."""
    try:
        while text:
            text = text[posix.write(descriptor, text) :]
    except OSError:
        return False
    return True
