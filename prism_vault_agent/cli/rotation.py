"""What ``prism-vault status`` shows of rotations: what is not the newest, what is done about that, and when."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli import show

if TYPE_CHECKING:
    from prism_vault_agent.cli.show import Json

_DONE: Final = {
    "restart": "restarted",
    "restart_unit": "its unit was restarted",
    "signal": "signalled",
    "terminate": "asked to end",
    "cannot_restart": "nobody could restart it",
}
_WOULD: Final = {
    "restart": "is restarted by its supervisor",
    "restart_unit": "its unit is restarted",
    "terminate": "is asked to end",
    "cannot_restart": "would be restarted, and nobody can",
    "leave": "is left as it is",
}


def would(each: Json) -> str:
    """Return what a rotation of anything would do with what is out there, and who would be told."""
    what = show.text(each.get("at_rotation"))
    if each.get("pid") is not None:
        return _WOULD.get(what, what)
    if what == "none":
        return "are left as they are"
    tells = [] if what == "rewrite" else [show.text(one.get("consumer")) for one in each.get("consumers", [])]
    return "are written anew" + (f", told is {', '.join(tells)}" if tells else "")


def took(last: Json | None) -> str:
    """Return how long the last rotation took from when it was noticed to each stage, in seconds, and when that was."""
    if not last:
        return "none yet"
    stages = ", ".join(f"{show.text(stage)} {seconds:.2f}" for stage, seconds in last["stages"].items())
    return f"{show.age(time.time() - last['at'])} ago: {stages} s"


def of_run(run: Json) -> str:
    """Return whether a run has the newest of everything, and if not, what its scope says and when that is done."""
    if run.get("left"):
        return f"LEFT with what was taken back: {show.text(run['left'])} (on_revoke = clear)"
    if not run.get("stale"):
        return "newest"
    what, paths = show.text(run.get("on_rotate")), ", ".join(show.text(path) for path in run["stale"])
    failed = f"; FAILED: {show.text(run['rotation_error'])}" if run.get("rotation_error") else ""
    if run.get("pending"):
        when = f"in {show.age(run['due_in'])}" if run.get("due_in") else "now"
        return f"older {paths}, {what} {when}{failed}"
    rotated = run.get("rotated")
    if not rotated:
        return f"older {paths} (on_rotate = {what})"
    return f"older {paths}, {_DONE.get(rotated.get('what'), 'told')} {show.age(time.time() - rotated.get('at', 0))} ago"


def of_files(each: Json) -> str:
    """Return whether files are as they were rendered, the newest there is and known to their readers, and if not, why."""
    failed = [one for one in each.get("consumers", []) if one.get("due") and one.get("error")]
    found = [_generation(each), *map(show.text, each.get("drift", []))]
    found += [f"FAILED to tell {show.text(one.get('consumer'))}: {show.text(one['error'])}" for one in failed]
    return "; ".join(filter(None, found)) or "newest"


def _generation(each: Json) -> str:
    """Return why a generation is not the newest there is; nothing where it is."""
    if each.get("judging"):
        return "is being judged; the generation before is kept"
    if each.get("rolled_back"):
        return f"ROLLED BACK: {show.text(each['rolled_back'])}"
    if not each.get("stale"):
        return ""
    if each.get("on_rotate") == "none":
        return "a newer one exists (on_rotate = none)"
    return "a newer one is due" + (f"; FAILED: {show.text(each['error'])}" if each.get("error") else "")
