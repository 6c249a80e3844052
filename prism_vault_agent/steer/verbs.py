"""What each of these verbs asks of the agent, and how it shows the answer."""

from prism_vault_agent.steer.asking import ask, find
from prism_vault_agent.steer.shown import dump, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from prism_vault_agent.steer.arguments import Asked

    Args = Asked | argparse.Namespace
    Own = Mapping[bytes, bytes]

RENDER_SECONDS = 35.0  # of each scope: longer than the agent tries
# A scope's grace is an hour at most, but nobody waits that long at a prompt: the agent goes on after we stop waiting.
REVOKE_SECONDS = 120.0


def render(args: "Args", own: "Own") -> int:
    """Render and say where the files are. ``own`` are the caller's variables, here and below."""
    seconds = RENDER_SECONDS * len(args.scopes)
    told = ask(find(args.socket, own), "POST", "/v1/render", request(args), seconds=seconds)[1]
    if args.json:
        print(dump(told))
        return 0
    for each in told.get("rendered", []):
        print(f"{text(each.get('scope'))}: generation {text(each.get('generation'))} ({text(each.get('id'))})")
        for path in each.get("files", []):
            print(f"  {text(each.get('directory'))}/{text(path)}")
    return 0


def clear(args: "Args", own: "Own") -> int:
    """Clear and say what is gone; nothing to clear is no error. 75 where something could not be cleared."""
    if bool(args.scopes) == args.all:
        from prism_vault_agent.errors import UsageError  # noqa: PLC0415 - only a failure pays for it, here and below

        raise UsageError("clear takes scopes, or --all", mend="name what is to be cleared")
    told = ask(find(args.socket, own), "POST", "/v1/clear", {"scopes": args.scopes, "all": args.all})[1]
    failed = told.get("failed", [])
    if args.json:
        print(dump(told))
    else:
        _cleared(told)
        if not told.get("cleared") and not failed:
            print("nothing of it was rendered")
    return _left("cleared", failed)


def rotate(args: "Args", own: "Own") -> int:
    """Have each be looked at, and say how much of it there is; none is no error."""
    for what in args.what or ():
        told = ask(find(args.socket, own), "POST", "/v1/rotate", conditions(what))[1]
        if args.json:
            print(dump(told))
        else:
            print(f"{text(what)}: {told.get('files', 0)} sets of files, {told.get('runs', 0)} runs")
    return 0


def revoke(args: "Args", own: "Own") -> int:
    """Take it back, and say what is gone and how each process ended; 75 where something is left."""
    if bool(args.what) == bool(args.run_ref):
        from prism_vault_agent.errors import UsageError  # noqa: PLC0415

        raise UsageError("revoke takes a scope, a secret, or --run-ref", mend="name what is to be taken back")
    asked = conditions(args.what) if isinstance(args.what, str) and args.what else {"run_ref": args.run_ref}
    told = ask(find(args.socket, own), "POST", "/v1/revoke", asked, seconds=REVOKE_SECONDS)[1]
    if args.json:
        print(dump(told))
    else:
        _cleared(told)
        for end in told.get("ended", []):
            print(f"pid {text(end.get('pid'))}: {text(end.get('how'))}")
    return _left("taken back", told.get("failed", []))


def request(args: "Args") -> "dict[str, Any]":
    """Return what a request about a render of scopes says."""
    return {"scopes": args.scopes, "purpose": args.purpose, "run_ref": args.run_ref, "job_id": args.job_id}


def conditions(what: str) -> dict[str, str]:
    """Return what a request about a scope or a secret says."""
    return {"reference" if what.startswith("vault://") else "scope": what}


def _cleared(told: "dict[str, Any]") -> None:
    """Say which files are gone."""
    for each in told.get("cleared", []):
        print(f"{text(each.get('scope'))}: cleared {text(each.get('files'))}")


def _left(done: str, failed: "list[dict[str, Any]]") -> int:
    """Return 0 where nothing has failed; else raise ``Unavailable``, which names each that has, and why."""
    if not failed:
        return 0
    from prism_vault_agent.errors import Unavailable  # noqa: PLC0415

    why = "; ".join([f"{_name(each)}: {text(each.get('why'))}" for each in failed])
    raise Unavailable(f"not everything was {done}: {why}", mend="see the agent's log")


def _name(given: "dict[str, Any]") -> str:
    return f"scope {text(given['scope'])}" if "scope" in given else f"pid {text(given.get('pid'))}"
