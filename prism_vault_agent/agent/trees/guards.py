"""Who guards a supervised command: the lifeline and the supervisor above it (``exec/supervise.py``)."""

from __future__ import annotations

from prism_vault_agent.agent.trees.sweep import look

# A process by its number and its start, in clock ticks since boot.
Guard = tuple[int, int]


def guards_of(pid: int) -> tuple[Guard, ...]:
    """Return the parent of a process and that one's parent, as they are while it lives.

    A process that says it is supervised and is not has those that it has: when they have ended it is ended, and nobody else is.
    """
    found: list[Guard] = []
    below = look(pid)
    for _ in range(2):
        if below is None or (above := look(below.parent)) is None:
            break
        found.append((below.parent, above.started))
        below = above
    return tuple(found)


def beside(pids: set[int], guards: tuple[Guard, ...]) -> frozenset[Guard] | None:
    """Return which of these processes are guards, or what these have started beside the command (``exec/masker.py``).

    None where any is neither.
    """
    known = {pid for pid, _ in guards}
    found = {pid: look(pid) for pid in pids}
    if any(pid not in known and process is not None and process.parent not in known for pid, process in found.items()):
        return None
    return frozenset((pid, process.started) for pid, process in found.items() if process is not None)
