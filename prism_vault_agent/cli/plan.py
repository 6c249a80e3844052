"""``prism-vault plan``: what a render would give, and why it is allowed or denied. Reads no value and leaves no record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli import rotation, show, socket
from prism_vault_agent.cli.main import COMMANDS
from prism_vault_agent.errors import Denied
from prism_vault_agent.steer import verbs

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers
    from prism_vault_agent.cli.show import Json

RESTARTS: Final = (
    "restart: what runs with --supervise, and units that a scope's callers name; any other process is left as it is\n"
)


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("plan", help=COMMANDS["plan"][1], description=COMMANDS["plan"][1])
    parser.add_argument("scopes", nargs="+", metavar="SCOPE", help="the scope; several are planned together")
    socket.add_request(parser)
    parser.add_argument("--diff", action="store_true", help="which versions the scopes' files have, and which are the newest")
    parser.add_argument("--json", action="store_true", help="the agent's own answer, as JSON")
    socket.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Show the plan; a denial is shown and then told as the error that it would be."""
    plan = socket.ask(socket.find(args.socket), "POST", "/v1/plan", {**verbs.request(args), "diff": args.diff})[1]
    if args.json:
        print(show.dump(plan))
        return 0 if plan.get("allowed") else Denied.exit_status
    print(page(plan), end="")
    if not plan.get("allowed"):
        raise Denied(
            str(plan.get("message", "denied")),
            mend=str(plan.get("mend", "")),
            reason=str(plan.get("rule", "")),
            scope=",".join(args.scopes),
        )
    return 0


def page(plan: Json) -> str:
    """Return the plan as a person reads it."""
    bindings = show.table(
        ("NAME", "FROM"),
        [
            [each.get("name") or "every key of", f"{each.get('reference')}{' (leased)' if each.get('leased') else ''}"]
            for each in plan.get("bindings", [])
        ],
    )
    if not plan.get("allowed"):
        return f"denied by rule {show.text(plan.get('rule'))}\n{bindings}{_credentials(plan)}{_reactions(plan)}{_given(plan)}"
    environment = "only a few of your own variables" if plan.get("pristine") else "your own variables"
    head = f"allowed for a caller of kind {show.text(plan.get('kind'))}, purpose {show.text(plan.get('purpose'))}"
    later = f"{_reactions(plan)}{_given(plan)}{_differences(plan)}"
    return f"{head}; the command gets {environment} and:\n{bindings}{_credentials(plan)}{later}"


def _credentials(plan: Json) -> str:
    """Return what systemd is given for which units; nothing where that is nothing."""
    rows = [[each.get("unit"), each.get("name"), each.get("of")] for each in plan.get("credentials", [])]
    return "credentials:\n" + show.table(("UNIT", "NAME", "OF"), rows) if rows else ""


def _reactions(plan: Json) -> str:
    """Return what is done when secrets are rotated or revoked."""
    rows = [
        [each.get("scope"), each.get("name") or "all", each.get("on_rotate"), each.get("on_revoke")]
        for each in plan.get("reactions", [])
    ]
    if not rows:
        return ""
    restarts = any(each.get("on_rotate") == "restart" for each in plan.get("reactions", []))
    return "later:\n" + show.table(("SCOPE", "OF", "ON ROTATE", "ON REVOKE"), rows) + (RESTARTS if restarts else "")


def _given(plan: Json) -> str:
    """Return what is out there already, and what a rotation would do with it; nothing where nothing is."""
    rows = [
        [
            each.get("scopes"),
            "files" if each.get("pid") is None else f"process {each['pid']}",
            [f"{show.text(path)} {version}" for path, version in (each.get("versions") or {}).items()],
            show.age(each.get("age", 0)) + (", adopted" if each.get("adopted") else ""),
            f"within {show.age(each.get('next_check') or 0)}",
            rotation.of_files(each) if each.get("pid") is None else rotation.of_run(each),
            rotation.would(each),
            rotation.took(each.get("last_rotation")),
        ]
        for each in plan.get("given", [])
    ]
    names = ("SCOPES", "WHAT", "VERSIONS", "AGE", "NEXT CHECK", "STATE", "AT A ROTATION", "LAST ROTATION")
    return "out there:\n" + show.table(names, rows) if rows else ""


def _differences(plan: Json) -> str:
    """Return what a render to files would change, by versions; nothing where that was not asked for."""
    if "differences" not in plan:
        return ""
    rows = [
        [each.get("scope"), each.get("path"), each.get("rendered") or "not rendered", each.get("newest") or "not known"]
        for each in plan["differences"]
    ]
    return "files:\n" + show.table(("SCOPE", "PATH", "RENDERED", "NEWEST"), rows) if rows else "files: none\n"
