"""What all trees do, which of them a process gets, and which an earlier agent has given it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from prism_vault_agent.agent.trees import hierarchy
from prism_vault_agent.agent.trees.cgroupfs import NAME, empty, members
from prism_vault_agent.agent.trees.choice import Facts, Means, choose
from prism_vault_agent.agent.trees.group import Group
from prism_vault_agent.agent.trees.guards import beside
from prism_vault_agent.agent.trees.helped import Helped, is_there
from prism_vault_agent.agent.trees.sweep import Place, Sweep
from prism_vault_agent.errors import CannotCreate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prism_vault_agent.agent.trees.guards import Guard
    from prism_vault_agent.model import Caller

log = structlog.get_logger()


class Tree(Protocol):
    """The processes that a run's values are in: the one that was given them, and all that it has started since."""

    def left(self) -> bool:
        """Tell whether any of them lives."""

    def descriptors(self) -> Iterator[int]:
        """Iterate over descriptors of those that live (pidfd_open(2)), each good until the next."""

    def kill(self) -> bool:
        """Have the kernel kill all of them, where it does; else return False. Blocks."""

    def leave(self) -> None:
        """Take back what was done with the process, which was given nothing after all."""

    def remove(self) -> None:
        """Take away what was made for them, when none is left."""


def planned(caller: Caller, name: str, guards: tuple[Guard, ...] = (), helper: str = "") -> Group | Sweep:
    """Return the tree that a process is to be; nothing is changed yet. ``name`` is the run's, which no other has.

    The helper is asked for none where a supervisor keeps the tree together: a command waits for it.
    """
    directory = hierarchy.where(caller.pid)
    seen = facts(directory, caller.pid, guards)
    means = choose(dataclasses.replace(seen, helped=not guards and hierarchy.is_unified(directory) and is_there(helper)))
    if directory and means is Means.HELPED:
        return Helped.below(directory, name, helper)
    if directory and means is Means.GROUP:
        return Group(f"{directory}/{NAME}{name}")
    return swept(caller, directory if means is Means.PLACE else None, guards)


async def entered(
    caller: Caller, name: str, guards: tuple[Guard, ...], check: Callable[[], None], helper: str = ""
) -> Group | Sweep:
    """Return the tree that a process is from now on: the one that is :func:`planned`, or the next best where that is refused.

    Raises what ``check`` does, which tells whether it is still the process that it was; nothing is changed then.
    """
    tree = planned(caller, name, guards, helper)
    if isinstance(tree, Sweep):
        return tree
    try:
        # The kernel may have to wait for all processors before it moves a process.
        await asyncio.to_thread(tree.enter, caller.pid)
    except (OSError, CannotCreate) as error:
        why = error.line() if isinstance(error, CannotCreate) else error.strerror
        log.warning("tree.no_group", directory=tree.directory, why=why)
        return swept(caller)
    try:
        check()
    except BaseException:
        await asyncio.to_thread(tree.leave)
        raise
    return tree


def swept(caller: Caller, directory: str | None = None, guards: tuple[Guard, ...] = ()) -> Sweep:
    """Return the tree of a process as it can be told without a group of its own; ``directory`` is one that it is alone in."""
    place = None
    with contextlib.suppress(OSError):
        if directory and (others := beside(set(members(directory)) - {caller.pid}, guards)) is not None:
            place = Place.of(directory, caller.unit, others)
    return Sweep(caller.pid, caller.started, place)


def facts(directory: str | None, pid: int, guards: tuple[Guard, ...] = ()) -> Facts:
    """Return what decides by which means a process in the group at ``directory`` is found and ended."""
    nothing = Facts(seen=False, divisible=False, alone=False)
    if directory is None:
        return nothing
    try:
        top = os.stat(directory).st_dev != os.stat(os.path.dirname(directory)).st_dev
    except FileNotFoundError:  # the process has ended, or is elsewhere by now
        return nothing
    may = all(os.access(path, os.W_OK, effective_ids=True) for path in (directory, f"{directory}/cgroup.procs"))
    alone = not (may or top) and beside(set(members(directory)) - {pid}, guards) is not None
    return Facts(seen=True, divisible=may, alone=alone)


def take_away_empty(helper: str) -> int:
    """Take away the groups that nobody is in, left by an agent that was killed before it could record them; return how many."""
    found = [group for each in hierarchy.mounted() for group in empty(each.mount)]
    for directory in found:
        if os.access(os.path.dirname(directory), os.W_OK, effective_ids=True):
            Group(directory).remove()
        elif is_there(helper):
            Helped(directory, helper).leave()
    return len(found)


@functools.cache
def may_divide() -> bool:
    """Tell whether this process may make a control group below its own."""
    return facts(hierarchy.where(os.getpid()), os.getpid()).divisible


def may_be_helped(helper: str) -> bool:
    """Tell whether the helper at that socket may be asked for control groups, and they are of the kind in which it makes any."""
    return hierarchy.is_unified(hierarchy.where(os.getpid())) and is_there(helper)


def kept(tree: Group | Sweep) -> list[Any] | None:
    """Return what the next agent has to know of a tree; None where the process itself is all."""
    if isinstance(tree, Helped):
        return [tree.directory, tree.helper]
    if isinstance(tree, Group):
        return [tree.directory]
    place = tree.place
    return None if place is None else [place.directory, place.inode, place.unit, place.invocation, sorted(place.beside)]


def again(told: list[Any] | None, caller: Caller) -> Group | Sweep:
    """Return the tree that an earlier agent had; a group that was not made, or is gone, is none."""
    if told and len(told) <= 2 and os.path.isdir(str(told[0])):
        return Helped(str(told[0]), str(told[1])) if len(told) == 2 else Group(str(told[0]))
    if not told or len(told) <= 2:
        return swept(caller)
    others = frozenset((int(pid), int(started)) for pid, started in told[4])
    return Sweep(caller.pid, caller.started, Place(str(told[0]), int(told[1]), str(told[2]), str(told[3]), others))
