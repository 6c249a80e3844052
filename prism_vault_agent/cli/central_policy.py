"""``prism-vault central policy``: what may be reserved: list, set, remove, explain, and who changed it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from prism_vault_agent.cli import show
from prism_vault_agent.cli.central_client import CentralClient, add_options
from prism_vault_agent.errors import Denied

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.show import Json

RULE: Final = ("project", "environment", "scopes", "hosts", "kinds", "purposes")
HEAD: Final = ("NAME", "VERSION", "PROJECT", "ENVIRONMENT", "SCOPES", "HOSTS", "KINDS", "PURPOSES", "BY")


def add(actions: Any) -> None:
    """Add ``policy`` and its actions."""
    told = "list, set, remove and explain policies"
    parser = actions.add_parser("policy", help=told, description=f"{told[0].upper()}{told[1:]}. Each change is on the audit log.")
    commands = parser.add_subparsers(dest="policy_command", required=True, metavar="ACTION")
    listing = commands.add_parser("list", help="what holds", description="What holds, or held at a version.")
    listing.add_argument("--version", type=int, metavar="VERSION", help="what held then")
    setting = commands.add_parser("set", help="add or replace a policy", description="Let a name mean this rule.")
    removing = commands.add_parser("remove", help="remove a policy", description="Let a name mean nothing.")
    history = commands.add_parser("history", help="every version of one", description="Every version of one policy.")
    for command in (setting, removing, history):
        command.add_argument("name", metavar="NAME", help="the policy's name")
    for command in (setting, removing):
        command.add_argument("--if-version", type=int, metavar="VERSION", help="only if it is at this version; 0: there is none")
    explaining = commands.add_parser("explain", help="would it be allowed, and why", description="Would it be allowed, and why?")
    for command, several in ((setting, True), (explaining, False)):
        command.add_argument("--project", required=True, metavar="PROJECT", help="the project")
        command.add_argument("--environment", required=True, metavar="ENVIRONMENT", help="the environment")
        command.add_argument("--scope", action="append", required=True, metavar="SCOPE", help="a scope; may be repeated")
        for name in ("host", "kind", "purpose"):
            repeated = {"action": "append", "help": f"a {name}; may be repeated"} if several else {"help": f"the {name}"}
            command.add_argument(f"--{name}", required=True, metavar=name.upper(), **repeated)
    explaining.add_argument("--run-ref", metavar="REF", help="the agent run")
    explaining.add_argument("--job-id", metavar="ID", help="the job")
    acts = ((listing, _list), (setting, _set), (removing, _remove), (history, _history), (explaining, _explain))
    for command, act in acts:
        command.add_argument("--json", action="store_true", help="central's own answer, as JSON")
        add_options(command)
        command.set_defaults(act=act)


def _central(args: argparse.Namespace) -> CentralClient:
    return CentralClient(args)


def _path(args: argparse.Namespace) -> str:
    return f"/v1/policies/{quote(args.name, safe=':')}"


def _list(args: argparse.Namespace) -> int:
    answer = _central(args).ask("GET", "/v1/policies", version=args.version)
    return _shown(args, answer, answer["policies"])


def _history(args: argparse.Namespace) -> int:
    answer = _central(args).ask("GET", _path(args))
    return _shown(args, answer, answer["versions"])


def _set(args: argparse.Namespace) -> int:
    rule = {
        "project": args.project,
        "environment": args.environment,
        "scopes": args.scope,
        "hosts": args.host,
        "kinds": args.kind,
        "purposes": args.purpose,
    }
    return _changed(args, _central(args).ask("PUT", _path(args), json=rule, headers=_condition(args)))


def _remove(args: argparse.Namespace) -> int:
    return _changed(args, _central(args).ask("DELETE", _path(args), headers=_condition(args)))


def _explain(args: argparse.Namespace) -> int:
    asked = {name: getattr(args, name) for name in ("host", "project", "environment", "kind", "purpose", "run_ref", "job_id")}
    answer = _central(args).ask("POST", "/v1/policies:explain", json={**asked, "scopes": args.scope})
    if args.json:
        print(show.dump(answer))
        return 0 if answer["allowed"] else Denied.exit_status
    if answer["allowed"]:
        print(f"allowed at version {answer['version']} by {', '.join(map(show.text, answer['allowed_by']))}")
        return 0
    print(show.table(("POLICY", "FAILS AT"), [[policy["name"], policy["fails"]] for policy in answer["policies"]]), end="")
    raise Denied(f"it would be denied: {answer['message']}", reason=str(answer["reason"]))


def _condition(args: argparse.Namespace) -> dict[str, str]:
    if args.if_version is None:
        return {}
    return {"If-Match": f'"{args.if_version}"'} if args.if_version else {"If-None-Match": "*"}


def _changed(args: argparse.Namespace, answer: Json) -> int:
    done = "removed" if answer["removed"] else "set"
    print(show.dump(answer) if args.json else f"policy {args.name} is {done}, version {answer['version']}")
    return 0


def _shown(args: argparse.Namespace, answer: Json, policies: list[Json]) -> int:
    if args.json:
        print(show.dump(answer))
        return 0
    rows = [
        [
            policy["name"],
            policy["version"],
            *(policy.get(name, "(removed)") for name in RULE),
            (policy["by"] or {}).get("name", "the configuration"),
        ]
        for policy in policies
    ]
    print(show.table(HEAD, rows), end="")
    return 0
