"""``prism-vault exec`` as the command line proper knows it: its ``--help``, and ``--direct``, which asks no agent.

Everything else of ``exec`` is the thin client's (``prism_vault_agent/exec``), which shares the table of options.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.cli import main
from prism_vault_agent.errors import PrismVaultError
from prism_vault_agent.exec import Failure, arguments, client, report

if TYPE_CHECKING:
    from prism_vault_agent.exec.arguments import ExecOptions

DESCRIPTION: Final = """\
Become a command that has the secrets of a scope in its environment: same process, terminal, signals and exit status.
Nothing runs unless the agent has recorded the release at central.
"""
EPILOG: Final = """\
Without --scope: the scope of .prism-vault.toml here or in a directory above, else of PRISM_VAULT_SCOPE.
PRISM_VAULT_PURPOSE, _RUN_REF, _JOB_ID and _SOCKET are the defaults of the options of that name.
exit statuses: those of the command; 126 it cannot be executed, 127 there is none; before it runs 64 usage, 66 secret not
found, 69 no agent, 75 temporary (retry), 76 protocol, 77 denied (do not retry), 78 configuration; with --supervise 128 and the
number of the signal that ended the command
"""


def add(subparsers: Any) -> None:
    """Add the parser of ``exec`` with every option of the shared table."""
    parser = subparsers.add_parser(
        "exec",
        help="become a command that has the secrets of a scope in its environment",
        description=DESCRIPTION,
        epilog=EPILOG,
        usage="prism-vault exec [options] -- CMD [ARG...]",
    )
    for option, field, value, told in arguments.OPTIONS:
        if field in arguments.LISTS:
            parser.add_argument(option, dest=field, metavar=value, help=told, action="append", default=[])
        elif value:
            parser.add_argument(option, dest=field, metavar=value, help=told, default="")
        else:
            parser.add_argument(option, dest=field, help=told, action="store_true")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- CMD [ARG...]", help="the command and its arguments")


def run(args: argparse.Namespace) -> int:
    """Become the command, or supervise it; returns the exit status."""
    started, options = time.monotonic(), arguments.ExecOptions()
    try:
        command = read(args, options)
    except Failure as failure:
        return report(failure, options.scopes)
    return client.start(options, lambda begun: become(options, command, begun), started)


def become(options: ExecOptions, command: list[str], started: float) -> int:
    """Turn this process into the command, or tell why not and return the exit status."""
    if not options.direct:
        return client.run(options, command, started)
    from prism_vault_agent import direct  # noqa: PLC0415 - `--help` does not need what reads secrets

    try:
        direct.run(options, command)
    except Failure as failure:
        return report(failure, options.scopes)
    except PrismVaultError as error:
        if not options.unsaid(error.exit_status):
            main.tell(error.line())  # here, since with --supervise nobody above would
        return error.exit_status


def read(args: argparse.Namespace, options: ExecOptions) -> list[str]:
    """Fill ``options`` as the thin client's own parser would and return the command. Raises ``Failure`` (64)."""
    for _, field, _, _ in arguments.OPTIONS:
        told = getattr(args, field)
        if told and field not in arguments.LISTS:
            arguments.store(options, field, "" if told is True else told)
        elif told:
            setattr(options, field, told)
    arguments.check(options)
    words: list[str] = args.words
    return words[1:] if words[:1] == ["--"] else words
