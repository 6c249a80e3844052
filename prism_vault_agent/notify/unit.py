"""Tells a unit of the host's systemd, by systemctl(1), which waits until the job is done and says how it ended.

A unit that does not run is left as it is: it reads its files when it starts, and who stopped it has not asked for a start.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from prism_vault_agent.errors import CannotCreate, PrismVaultError
from prism_vault_agent.helper.bounds import VERBS
from prism_vault_agent.helper.client import Helper
from prism_vault_agent.notify.child import run
from prism_vault_agent.notify.occasion import not_told, one_line
from prism_vault_agent.scope import Notify

if TYPE_CHECKING:
    from prism_vault_agent.notify.occasion import Occasion

_RUNNING: Final = ("active", "reloading", "activating")
# As systemctl and polkit say it in the C locale.
_REFUSED: Final = ("Interactive authentication required", "Access denied", "Permission denied")


async def tell(notify: Notify, occasion: Occasion) -> str:
    """Have the unit reload or restart, and wait for it; return why there was nobody to tell, empty where it was told.

    Raises ``Unavailable`` where systemd says no, where the unit's own reload or start fails, and where there is no such unit.
    """
    unit = notify.target[0]
    if _ours(unit):
        raise not_told("it is the agent's own unit, which would end before it knows that it told", "name another unit")
    status, told = await _systemctl("show", "--property=LoadState,ActiveState", "--", unit)
    if status != 0:
        raise not_told(f"systemd cannot be asked: {one_line(told)}", "run the agent where systemd is, or notify otherwise")
    found = dict(line.split("=", 1) for line in told.decode("utf-8", "replace").splitlines() if "=" in line)
    if found.get("LoadState") != "loaded":
        state = one_line(found.get("LoadState", "unknown").encode())
        raise not_told(f"its unit is {state}", "correct the name in notify, or see systemctl status of it")
    if found.get("ActiveState") not in _RUNNING:
        return "it does not run"
    await _do(notify, occasion.helper)
    return ""


async def stop(unit: str, helper: str) -> str:
    """Have systemd stop a unit, and wait for it; return why it is not stopped, else nothing."""
    asked = Notify("unit", (unit,), "stop", ())
    try:
        async with asyncio.timeout(asked.timeout):
            await _do(asked, helper)
    except TimeoutError:
        return f"systemd has not stopped it after {asked.timeout:g} s"
    except PrismVaultError as error:
        return error.message
    return ""


async def _do(notify: Notify, helper: str) -> None:
    """Have systemd do something to a unit, by the helper where it does not for us. Raises as :func:`tell`."""
    unit, verb = notify.target[0], VERBS[notify.how]
    status, told = await _systemctl("--no-ask-password", verb, "--", unit)
    if status == 0:
        return
    why = one_line(told) or f"systemctl ended with {status}"
    if not any(refusal in why for refusal in _REFUSED):
        raise not_told(f"{verb} failed: {why}", f"see systemctl status {unit}")
    if not await asyncio.to_thread(_by_helper, helper, notify):
        raise not_told(
            f"systemd refuses: {why}",
            "run the agent as root, or allow it by its helper, or by the polkit rule of docs/systemd.md",
        )


async def standing(unit: str) -> tuple[str, str]:
    """Return the state of a unit (``active``, ``failed``, ...) and which start of it that is. Raises ``Unavailable``."""
    status, told = await _systemctl("show", "--property=ActiveState,InvocationID", "--", unit)
    if status != 0:
        raise not_told(f"systemd cannot be asked: {one_line(told)}", "run the agent where systemd is, or judge by a command")
    found = dict(line.split("=", 1) for line in told.decode("utf-8", "replace").splitlines() if "=" in line)
    return one_line(found.get("ActiveState", "unknown").encode()), found.get("InvocationID", "")


def _ours(unit: str) -> bool:
    """Tell whether we are in a unit: each is a control group, or one below another (see cgroups(7))."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as groups:
        return any(unit in line.rstrip("\n").split("/") for line in groups)


def _by_helper(path: str, notify: Notify) -> bool:
    """Have the helper tell the unit; return whether it may. Raises where it may, and the unit's own reload or start failed."""
    if not path:
        return False
    try:
        with Helper(path, notify.timeout) as helper:
            helper.tell(notify.target[0], notify.how)
    except CannotCreate as error:
        if error.reason == "no_helper" or any(refusal in error.message for refusal in _REFUSED):
            return False
        raise not_told(error.message, f"see systemctl status {notify.target[0]}") from None
    return True


async def _systemctl(*words: str) -> tuple[int, bytes]:
    try:
        return await run(["systemctl", *words], {"LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}, answer=True)
    except FileNotFoundError:
        raise not_told("there is no systemctl here", "notify by pid_file, container or command") from None
