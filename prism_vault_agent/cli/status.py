"""``prism-vault status``: how the agent is, and what runs with secrets of it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli import rotation, show, socket
from prism_vault_agent.cli.main import COMMANDS
from prism_vault_agent.errors import PrismVaultError

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers
    from prism_vault_agent.cli.show import Json

WATCH_SECONDS: Final = 2.0
CLEAR: Final = "\x1b[H\x1b[2J"


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("status", help=COMMANDS["status"][1], description=COMMANDS["status"][1])
    parser.add_argument("--json", action="store_true", help="the agent's own answer, as JSON")
    parser.add_argument("--metrics", action="store_true", help="the agent's figures, in the text format of Prometheus")
    parser.add_argument("--watch", action="store_true", help=f"again every {WATCH_SECONDS:.0f} seconds until Ctrl-C")
    socket.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Show the status once, or until interrupted. While watching, an agent that is away is shown as such."""
    while args.watch:
        try:
            told = _told(args)
        except PrismVaultError as error:
            told = f"{error.line()}\n"
        sys.stdout.write((CLEAR if sys.stdout.isatty() else "") + told)
        sys.stdout.flush()
        time.sleep(WATCH_SECONDS)
    sys.stdout.write(_told(args))
    return 0


def _told(args: argparse.Namespace) -> str:
    path = socket.find(args.socket)
    if args.metrics:
        return socket.text(path, "/metrics")
    status = socket.ask(path, "GET", "/v1/status")[1]
    return show.dump(status) + "\n" if args.json else page(status, path)


def page(status: Json, path: str) -> str:
    """Return the status as a person reads it."""
    vault, central, config = status.get("vault", {}), status.get("central", {}), status.get("config", {})
    up = show.age(time.time() - status.get("started_at", time.time()))
    lines = [
        f"agent    {show.text(status.get('version'))} on {show.text(status.get('host'))}, pid {status.get('pid')}, up {up}",
        f"socket   {show.text(path)}"
        + ("" if status.get("socket", {}).get("ours") else " (not the agent's any more: restart it)"),
        *_credentials_socket(status.get("credentials_socket", {})),
        f"vault    {_state(vault)}{_expiry(vault)}",
        f"central  {_state(central)}, {central.get('queued', 0)} records waiting"
        + (f", {central['lost']} denials or reloads only counted" if central.get("lost") else ""),
        f"signals  {_signals(status.get('signals', {}))}",
        f"log      {_log(status.get('log', {}))}",
        f"leases   {_all_leases(status.get('leases', {}))}",
        f"workers  {status.get('workers', {}).get('idle', 0)} ready",
        f"memory   {status.get('process', {}).get('memory_bytes', 0) / 1_048_576:.0f} MiB in the front",
    ]
    lines += [f"at end   {_end(status['end'])}"] if status.get("end") else []
    if config.get("error"):
        lines.append(f"config   changed but not in use: {show.text(config['error'])}")
    scopes = show.table(
        ("SCOPE", "PROJECT", "ENVIRONMENT", "PURPOSES"),
        [[scope.get(key) for key in ("name", "project", "environment", "purposes")] for scope in status.get("scopes", [])],
    )
    lines += [f"files    {_count(status, 'files')}{_memory(status)}", *_files(status), *_consumers(status)]
    lines += [f"scopes   {_count(status, 'scopes')}", *scopes.splitlines()]
    lines += [f"runs     {_count(status, 'runs')}", *_runs(status)]
    return "\n".join(lines) + "\n"


def _end(end: Json) -> str:
    """Return what becomes of files and processes when the agent ends."""
    if end.get("on_end") != "clear":
        return "files and processes stay, for the next agent"
    sentinel = f"pid {end['sentinel']}" if end.get("sentinel") else "NONE"
    return f"files and processes are taken back (sentinel: {sentinel})"


def _runs(status: Json) -> list[str]:
    """Return the table of runs."""
    told = show.table(
        "SCOPES|PURPOSE|RUN REF|JOB|UNIT|COMMAND|PID|UID|KIND|AGE|VERSIONS|NEXT CHECK|ROTATION|LAST ROTATION|LEASES|ID".split(
            "|"
        ),
        [
            [
                *(run.get(key) for key in ("scopes", "purpose", "run_ref", "job_id", "unit", "command", "pid", "uid", "kind")),
                _age(run),
                _versions(run),
                f"within {show.age(run.get('next_check') or 0)}",
                rotation.of_run(run),
                rotation.took(run.get("last_rotation")),
                [*_not_confirmed(run), *_leases(run)],
                run.get("id"),
            ]
            for run in status.get("runs", [])
        ],
    )
    return told.splitlines()


def _files(status: Json) -> list[str]:
    """Return the table of rendered files."""
    told = show.table(
        ("SCOPE", "FILES", "GENERATION", "AGE", "VERSIONS", "NEXT CHECK", "LAST ROTATION", "STATE", "LEASES", "ID"),
        [
            [
                *(each.get(key) for key in ("scope", "files", "generation")),
                _age(each),
                _versions(each),
                f"within {show.age(each.get('next_check', 0))}",
                rotation.took(each.get("last_rotation")),
                rotation.of_files(each),
                [*_not_confirmed(each), *_leases(each)],
                each.get("id"),
            ]
            for each in status.get("files", [])
        ],
    )
    return told.splitlines()


def _credentials_socket(part: Json) -> list[str]:
    """Return the line of the socket that systemd asks for credentials, where there is one."""
    if not part:
        return []
    return [f"systemd  {show.text(part.get('path'))}" + ("" if part.get("ours") else " (not the agent's any more: restart it)")]


def _memory(status: Json) -> str:
    """Return what is to be known of where the files are, if it is not the best."""
    told = {"swap": "on a tmpfs that may be swapped out", "disk": "on a disk, not in memory"}
    risk = told.get(str(status.get("files_memory")))
    return f" ({risk}, as files_risks allows)" if risk else ""


def _consumers(status: Json) -> list[str]:
    """Return who is told of changed files, a line for each; none where nobody is."""
    rows = [
        [each.get("scope"), one.get("consumer"), _told_of(one)]
        for each in status.get("files", [])
        for one in each.get("consumers", [])
    ]
    return show.table(("SCOPE", "IS TOLD", "STATE"), rows).splitlines() if rows else []


def _told_of(consumer: Json) -> str:
    """Return whether a consumer knows the newest files, and if not, why and since when it is tried."""
    if not consumer.get("due"):
        return "knows them" + (f" ({show.text(consumer['note'])})" if consumer.get("note") else "")
    when = "now" if not consumer.get("due_in") else f"in {show.age(consumer['due_in'])}"
    if not consumer.get("error"):
        return f"is told {when}"
    return f"FAILED {consumer.get('failures')} times: {show.text(consumer['error'])}; again {when}"


def _age(each: Json) -> str:
    """Return how old it is, and whether it is from before the agent's start."""
    return show.age(each.get("age", 0)) + (", adopted" if each.get("adopted") else "")


def _versions(each: Json) -> list[str]:
    """Return the versions that it has."""
    return [f"{show.text(path)} {version}" for path, version in each.get("versions", {}).items()]


def _leases(each: Json) -> list[str]:
    """Return what is leased, and for how long still."""
    told = []
    for lease in each.get("leases", []):
        left = lease.get("expires_in")
        ends = "end not known yet" if left is None else f"{'ends' if lease.get('final') else 'renewed'} within {show.age(left)}"
        told.append(f"{show.text(lease.get('path'))} ({ends})")
    return told


def _not_confirmed(each: Json) -> list[str]:
    """Return for how long the provider has not said that it stands, and how long it may be used so; nothing where it has."""
    if each.get("stale_for") is None:
        return []
    return [f"not confirmed for {show.age(each['stale_for'])}, used for {show.age(each.get('stale_ends_in', 0))} more"]


def _all_leases(part: Json) -> str:
    """Return how many leases are held, and how many the provider is to end."""
    why = f" ({show.text(part['last_error'])})" if part.get("last_error") else ""
    return f"{part.get('held', 0)} held, {part.get('revoking', 0)} being revoked{why}"


def _signals(part: Json) -> str:
    """Return whether central can tell this host to end what it runs."""
    last = f", last {part['last']}" if part.get("last") else ""
    waiting = f", {part['unanswered']} not answered yet" if part.get("unanswered") else ""
    return _state({**part, "state": "connected" if part.get("connected") else "away"}) + last + waiting


def _log(log: Json) -> str:
    """Return how central's log is known to be whole."""
    state, why = log.get("state"), show.text(log.get("last_error"))
    if state == "refused":
        return f"REFUSED, nothing is released: {why}; see prism-vault witness show"
    if state == "believed":
        return "central is believed, since [central] log_key is not set"
    checked = log.get("checked_at")
    proved = f"{log.get('size')} rows, proved {show.age(time.time() - checked)} ago" if checked else "not proved yet"
    return proved + (f" ({why})" if log.get("last_error") else "")


def _count(status: Json, what: str) -> str:
    return str(len(status.get(what, []))) if status.get(what) else "none"


def _state(part: Json) -> str:
    why = part.get("last_error")
    return show.text(str(part.get("state", "unknown")).replace("_", " ")) + (f" ({show.text(why)})" if why else "")


def _expiry(vault: Json) -> str:
    seconds = vault.get("token_expires_in")
    return f", token ends in {show.age(seconds)}" if isinstance(seconds, int | float) else ""
