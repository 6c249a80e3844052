"""``prism-vault run-sidecar``: the main process of a container that renders files for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_vault_agent.cli import show, socket
from prism_vault_agent.cli.agent import add_config
from prism_vault_agent.cli.main import COMMANDS
from prism_vault_agent.errors import CannotCreate, Unavailable, UsageError
from prism_vault_agent.model import Request
from prism_vault_agent.scope import Purpose, ScopeName

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers

EPILOG = """\
Without --check it is the agent of its container until SIGTERM: it renders the scopes as itself (callers must name its user),
renders them anew when they change, and takes them away when it stops. exit statuses: 0 stopped, everything cleared; 73
something could not be cleared; what waiting does not mend ends it as it ends render (64, 65, 66, 76, 77, 78).
With --check: 0 healthy, 69 no agent, 75 not healthy, with one line that says why.
"""


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("run-sidecar", help=COMMANDS["run-sidecar"][1], description=COMMANDS["run-sidecar"][1])
    parser.epilog = EPILOG
    parser.add_argument("scopes", nargs="*", metavar="SCOPE", help="the scope; several are rendered one after the other")
    parser.add_argument(
        "--check", action="store_true", help="tell whether the one that runs here is healthy: every scope rendered and current"
    )
    socket.add_request(parser)
    add_config(parser)
    socket.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Be the sidecar until it is told to stop, or check the one that runs."""
    if bool(args.scopes) == args.check:
        raise UsageError("run-sidecar takes scopes, or --check", mend="name what is to be rendered")
    return _check(args) if args.check else _serve(args)


def _check(args: argparse.Namespace) -> int:
    """Say that it is healthy, or raise why it is not."""
    told = socket.ask(socket.find(args.socket), "GET", "/v1/status")[1].get("sidecar")
    if not isinstance(told, dict):
        raise Unavailable("the agent here is no sidecar", mend="start it with prism-vault run-sidecar SCOPE")
    if why := told.get("why"):
        raise Unavailable(show.text(why))
    print(f"healthy: {show.text(told.get('scopes'))}")
    return 0


def _serve(args: argparse.Namespace) -> int:
    from prism_vault_agent.agent import agent  # noqa: PLC0415 - --check needs no daemon
    from prism_vault_agent.agent.files.sidecar import Sidecar  # noqa: PLC0415 - as above

    purpose = Purpose(args.purpose) if args.purpose else None
    scopes = tuple(ScopeName(name) for name in args.scopes)
    sidecar = Sidecar(Request(scopes, purpose, args.run_ref, args.job_id))
    status = agent.run(args.config, sidecar)
    if sidecar.left:
        raise CannotCreate(f"not everything was cleared: {'; '.join(sidecar.left)}", mend="see the log, and remove the volume")
    return status
