"""The command ``prism-vault``: finds the command, runs it, and tells every failure in one line.

Only the module of the chosen command is imported. It has ``add(subparsers)``, which adds its parser, and ``run(args)``, which
returns the exit status or raises a ``PrismVaultError``.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent import __version__
from prism_vault_agent.cli.parser import Parser
from prism_vault_agent.errors import PrismVaultError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from types import ModuleType

    Subparsers = argparse._SubParsersAction[Parser]  # noqa: SLF001 - argparse has no public name for it

COMMANDS: Final = {
    "exec": ("prism_vault_agent.cli.exec", "become a command that has the secrets of a scope in its environment"),
    "agent": ("prism_vault_agent.cli.agent", "run this host's agent"),
    "helper": ("prism_vault_agent.cli.helper", "do for an agent that is not root what root's configuration names"),
    "render": ("prism_vault_agent.cli.render", "render the files of scopes"),
    "run-sidecar": ("prism_vault_agent.cli.run_sidecar", "be the agent of a container, and keep files of scopes for the others"),
    "clear": ("prism_vault_agent.cli.clear", "take the rendered files of scopes away"),
    "status": (
        "prism_vault_agent.cli.status",
        "show the agent's state, what is running with secrets, and which files it has rendered",
    ),
    "plan": ("prism_vault_agent.cli.plan", "show what a scope would give you, and why it would be denied"),
    "rotate": ("prism_vault_agent.cli.rotate", "have the agent look now for newer values of a scope or secret"),
    "revoke": ("prism_vault_agent.cli.revoke", "take back what a scope, secret or agent run has on this host"),
    "doctor": ("prism_vault_agent.cli.doctor", "check which guarantees hold on this host, and how to mend the others"),
    "install": ("prism_vault_agent.cli.install", "put the units for systemd in place, or take them away again"),
    "witness": ("prism_vault_agent.cli.witness", "show what this host holds of central's log, or accept another one"),
    "config": ("prism_vault_agent.cli.config", "check, show or describe the configuration"),
    "import": ("prism_vault_agent.cli.imports", "make a scope of a .env file, or of a configuration of Vault Agent"),
    "central": ("prism_vault_agent.cli.central", "run the central service, and what its operators do"),
    "audit": ("prism_vault_agent.cli.audit", "read and verify the audit log"),
    "dev": ("prism_vault_agent.cli.dev", "run everything on this machine, for trying it out"),
}
EPILOG: Final = """\
exit statuses: 64 usage, 65 audit log does not verify, 66 secret not found, 69 agent unreachable, 70 internal error,
73 cannot create a file, 75 temporary (retry), 76 protocol, 77 denied (do not retry), 78 configuration
"""
EXTRAS: Final = {"dev": "dev-stack"}
INTERNAL: Final = 70
NOT_INSTALLED: Final = 78
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141


def main(argv: Sequence[str]) -> int:
    """Run the command line ``argv`` (without the program's name) and return its exit status. Never shows a traceback."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on something has to be tidied up
        status = _run(argv)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last place that can keep a traceback from the user
        return failed(error, argv)
    return status


def parser(chosen: str | None = None) -> tuple[Parser, ModuleType | None]:
    """Return the parser of the whole command line with the options of the command ``chosen``, and that command's module."""
    whole = Parser(prog="prism-vault", description="Scoped secrets for processes on a host, recorded before they are released.")
    whole.epilog = EPILOG
    whole.add_argument("--version", action="version", version=f"prism-vault {__version__}")
    commands: Any = whole.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    module = None
    for name, (path, told) in COMMANDS.items():
        if name == chosen:
            module = importlib.import_module(path)
            module.add(commands)
        else:
            commands.add_parser(name, help=told, add_help=False)
    return whole, module


def tell(line: str) -> None:
    """Print one line of ours on standard error, where there is one; control characters cannot forge another line."""
    shown = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line)
    with contextlib.suppress(OSError, AttributeError):
        sys.stderr.write(f"prism-vault: {shown}\n")


def _run(argv: Sequence[str]) -> int:
    chosen = argv[0] if argv and argv[0] in COMMANDS else None
    whole, module = parser(chosen)
    try:
        args = whole.parse_args(argv)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    if module is None:
        raise UsageError("the command must be the first word", mend="see prism-vault --help")
    status = module.run(args)
    assert isinstance(status, int)
    return status


def failed(error: BaseException, argv: Sequence[str]) -> int:
    """Tell a failure and return its exit status."""
    if isinstance(error, PrismVaultError):
        tell(error.line())
        return error.exit_status
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # What is left in the buffer has no reader any more: the interpreter must not trip over it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("prism_vault_agent"):
        extra = EXTRAS.get(argv[0], "central")
        tell(f"{argv[0]} needs the package {error.name}; install prism-vault-agent[{extra}]")
        return NOT_INSTALLED
    tell(f"internal error in {_place(error)} ({type(error).__name__}); please report it")
    return INTERNAL


def _place(error: BaseException) -> str:
    """Return the last place of ours that an error came through. Nothing else of it is told: its text may hold anything."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.startswith("prism_vault_agent."):
            place = f"{module}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
