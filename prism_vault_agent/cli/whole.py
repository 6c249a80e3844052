"""By which means the agent ends all that a command has started: the check of ``doctor`` that asks kernel and agent."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from prism_vault_agent.agent.trees import hierarchy
from prism_vault_agent.agent.trees.choice import Facts, Means, choose
from prism_vault_agent.agent.trees.tree import facts
from prism_vault_agent.cli.checks import Check, judge

if TYPE_CHECKING:
    from prism_vault_agent.cli.socket import Json


def trees(status: Json) -> Check:
    """Return it as the agent says that it may, by its ``status``; empty, as whoever runs this might."""
    directory = hierarchy.where(os.getpid())
    group = facts(directory, os.getpid())
    told = status.get("process", {}).get("divides_groups")
    if told is not None:
        group = dataclasses.replace(group, divisible=bool(told))
    return judged(group, kills=_kills(directory) if directory else False)


def judged(group: Facts, *, kills: bool) -> Check:
    """Return whether all that a command has started is found and ended; ``kills``: the kernel ends a control group whole."""
    name = "what a command starts is ended with it"
    if choose(group) is Means.GROUP:
        how = "the kernel ends at once (cgroup.kill)" if kills else "is ended process by process (no cgroup.kill)"
        return judge(name, "G6", holds=True, why=f"each run gets a control group of its own, which {how}", mend="")
    why = "the agent may not divide control groups" if group.seen else "control groups are not mounted here"
    ended = "what is supervised" + (", or has a unit or container to itself," if group.seen else "")
    why += (
        f"; {ended} is ended whole, of other commands each descendant, and no daemon that was begun just before its command ended"
    )
    mend = "run commands with exec --supervise, or in units of their own" if group.seen else "mount cgroup v2"
    return judge(name, "G6", holds=False, why=why, mend=mend)


def _kills(directory: str) -> bool:
    """Tell whether the kernel can kill a group; the topmost one cannot be killed, those below it can."""
    return any(map(os.path.exists, (f"{directory}/cgroup.kill", *map(str, Path(directory).glob("*/cgroup.kill")))))
