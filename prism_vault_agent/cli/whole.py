"""What ends with what: the checks of ``doctor`` about all that a command has started, and about the end of the agent."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from prism_vault_agent.agent.trees import hierarchy
from prism_vault_agent.agent.trees.choice import Facts, Means, choose
from prism_vault_agent.agent.trees.tree import facts
from prism_vault_agent.agent.trees.unit import unit as unit_of
from prism_vault_agent.cli.checks import Check, judge

if TYPE_CHECKING:
    from prism_vault_agent.cli.show import Json


def trees(status: Json) -> Check:
    """Return it as the agent says that it may, by its ``status``; empty, as whoever runs this might."""
    directory = hierarchy.where(os.getpid()) or next((each.mount for each in hierarchy.mounted()), None)
    group = facts(directory, os.getpid())
    told = status.get("process", {}).get("divides_groups")
    if told is not None:
        helped = bool(status["process"].get("has_groups_made"))
        group = dataclasses.replace(group, seen=group.seen or helped, divisible=bool(told), alone=False, helped=helped)
    return judged(group, kills=_kills(directory) if directory else False)


def judged(group: Facts, *, kills: bool) -> Check:
    """Return whether all that a command has started is found and ended; ``kills``: the kernel ends a control group whole."""
    name = "what a command starts is ended with it"
    if (means := choose(group)) in (Means.GROUP, Means.HELPED):
        how = "the kernel ends at once (cgroup.kill)" if kills else "is ended process by process (no cgroup.kill)"
        by = ", made by the helper where it has none to itself" if means is Means.HELPED else ""
        return judge(name, "G6", holds=True, why=f"each run gets a control group of its own{by}, which {how}", mend="")
    why = "the agent may not divide control groups" if group.seen else "control groups are not mounted here"
    ended = "what is supervised" + (", or has a unit or container to itself," if group.seen else "")
    why += (
        f"; {ended} is ended whole, of other commands each descendant, and no daemon that was begun just before its command ended"
    )
    mend = "start prism-vault-helper.socket, or run commands with exec --supervise" if group.seen else "mount cgroup v2"
    return judge(name, "G6", holds=False, why=why, mend=mend)


def at_end(status: Json) -> Check:
    """Return whether nothing that the agent gave out stays when it ends, as it tells in its ``status``."""
    name = "nothing of the agent's stays when it ends"
    told = status.get("end", {})
    if not told:
        return Check(name, "G6", "unknown", "no agent tells", "start it")
    if told.get("on_end") != "clear":
        why = "on_end is keep: files and processes stay, and the next agent looks after them"
        return judge(name, "G6", holds=False, why=why, mend='if they are to end with it, set [agent] on_end = "clear"')
    if not told.get("sentinel"):
        return judge(name, "G6", holds=False, why="no sentinel waits for its end", mend="see the agent's log", needed=True)
    unit = unit_of(int(status.get("pid", 0)))
    if unit and "agent --clear" not in _stop_post(unit):
        mend = "add ExecStopPost=-/opt/prism-vault/bin/prism-vault agent --clear to it"
        why = f"systemd ends the sentinel with {unit}, which has nothing that clears after it"
        return judge(name, "G6", holds=False, why=why, mend=mend, needed=True)
    after = f", and {unit} clears after it" if unit else ""
    return judge(name, "G6", holds=True, why=f"a sentinel (pid {told['sentinel']}) waits for its end{after}", mend="")


def _stop_post(unit: str) -> str:
    """Return what systemd runs when a unit has ended."""
    words = ["systemctl", "show", "--property=ExecStopPost", "--", unit]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=10).stdout
    return ""


def _kills(directory: str) -> bool:
    """Tell whether the kernel can kill a group; the topmost one cannot be killed, those below it can."""
    return any(map(os.path.exists, (f"{directory}/cgroup.kill", *map(str, Path(directory).glob("*/cgroup.kill")))))
