"""How what became of a revocation is shown: while it is waited for, as evidence, and as the error of one that is not complete."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli import show
from prism_vault_agent.errors import Unavailable

if TYPE_CHECKING:
    from prism_vault_agent.cli.show import Json

# Up to so many hosts, each change of each is told; above, how many are in which state, and by name the last that are not cleared.
NAMED_HOSTS: Final = 50
NAMED_LAST: Final = 10
# What is still to come of a host in each state, or to be done.
NEXT: Final = {
    "silent": "who is silent acts when it is back",
    "ending": "who is ending goes on",
    "failed": "end by hand what has failed",
    "unwatched": "end by hand what is unwatched",
}
_FIND: Final = "prism-vault audit find --kind cleared --since"


def evidence(found: Json) -> str:
    """Return what became of a revocation as a person reads it; what was not cleared comes last, where it is seen."""
    urgent = "emergency revocation" if found["emergency"] else "revocation"
    by = f"by {show.text(found['by'])} at {_clock(found['made_at'])}"
    hosts = [
        [each["host"], each["state"], *(_clock(each[name]) for name in ("told_at", "received_at", "done_at"))]
        + [each[name] for name in ("cleared", "failed", "left", "unwatched")]
        for each in sorted(found["hosts"], key=_not_cleared)
    ]
    head = ("HOST", "STATE", "TOLD", "ANSWERED", "DONE", "CLEARED", "FAILED", "LEFT", "UNWATCHED")
    named = [(each["host"], release) for each in found["hosts"] for release in each["releases"]]
    named.sort(key=lambda pair: _not_cleared(pair[1]))
    releases = [
        [host, release["audit_id"], release.get("scopes"), release.get("run_ref"), release["state"], _clock(release["at"])]
        for host, release in named
    ]
    more = sum(each["cleared"] + each["left"] + each["unwatched"] for each in found["hosts"]) - len(named)
    return (
        f"{urgent} {found['id']} of {target(found)}, {by}: {states(found)}\n"
        + show.table(head, hosts)
        + show.table(("HOST", "AUDIT ID", "SCOPES", "RUN REF", "STATE", "AT"), releases)
        + (f"  and {more} more; those cleared: {_FIND} {_clock(found['made_at'])}\n" if more > 0 else "")
    )


def target(revocation: Json) -> str:
    """Return what a revocation means."""
    conditions: Json = revocation["target"]
    said = ", ".join(f"{name} {value}" for name, value in conditions.items() if value is not True)
    return show.text(said or "everything")


def states(found: Json) -> str:
    """Return how many hosts are in each state."""
    return _counted(found) + ("" if found["complete"] else ", not complete")


def unfinished(found: Json) -> Unavailable:
    """Return the error of a revocation that is not complete: which hosts are not cleared, and what comes next."""
    names = ", ".join(_last(found))
    following = [told for state, told in NEXT.items() if state in found["states"]]
    return Unavailable(
        f"not everything is known to be cleared: {_counted(found)}{names and f' ({names})'}",
        mend="; ".join([*following, f"look again with prism-vault central revocations {found['id']}"]),
    )


def progress(found: Json) -> dict[str, str]:
    """Return what is told of each host, by its name; of many, how many are in which state, and who the last are."""
    if len(found["hosts"]) <= NAMED_HOSTS:
        return {f"{each['host']}: ": f"{each['state']}, {each['cleared']} cleared" for each in found["hosts"]}
    last = ", ".join(_last(found))
    return {"": states(found) + (last and f": {last}")}


def _counted(found: Json) -> str:
    return ", ".join(f"{count} {state}" for state, count in found["states"].items()) or "no host is concerned"


def _last(found: Json) -> list[str]:
    """Return the hosts that are not cleared, and how they are, where those are few."""
    last = [f"{show.text(each['host'])} {each['state']}" for each in found["hosts"] if _not_cleared(each)]
    return last if len(last) <= NAMED_LAST else []


def _not_cleared(each: Json) -> bool:
    return bool(each["state"] != "cleared")


def _clock(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "-"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
