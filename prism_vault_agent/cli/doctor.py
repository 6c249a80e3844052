"""``prism-vault doctor``: which guarantees hold on this host, each with its reason and its mend.

Exit status: 0 where everything that the configuration needs holds, 78 where something does not. What is merely better to have
is told and does not count.
"""

from __future__ import annotations

import dataclasses
import os
import socket as kernel
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from prism_vault_agent.cli import host, reach, show, socket
from prism_vault_agent.cli.agent import add_config
from prism_vault_agent.cli.checks import Check, judge
from prism_vault_agent.cli.main import COMMANDS
from prism_vault_agent.cli.rights import rights
from prism_vault_agent.cli.whole import at_end, trees
from prism_vault_agent.config.places import HOST_HELPER
from prism_vault_agent.errors import ConfigError, PrismVaultError
from prism_vault_agent.relay import DIRECTORY

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers
    from prism_vault_agent.cli.show import Json
    from prism_vault_agent.config.settings import CentralSettings, Settings


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("doctor", help=COMMANDS["doctor"][1], description=COMMANDS["doctor"][1])
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    add_config(parser)
    socket.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Tell each guarantee in one line; 78 where one that is needed does not hold."""
    settings, config = configuration(args.config)
    rules = [rule for scope in settings.scopes.values() for rule in scope.callers] if settings else []
    found = [*host.checks(units=any(rule.unit or rule.container for rule in rules)), config]
    place = args.socket or (settings.agent.socket if settings else None)
    status, serves = agent(place)
    if settings is not None:
        relay = relays(settings, status)
        found += files(settings)
        found += reach.vault(dataclasses.replace(settings.vault, relay=relay))
        found += rights(place, status)
        found += reach.central(dataclasses.replace(settings.central, relay=relay))
    found += [*([proved(settings.central, status), helper(settings, status)] if settings else []), trees(status)]
    found += [at_end(status), serves]
    if args.json:
        print(show.dump([dataclasses.asdict(check) for check in found]))
    else:
        for check in found:
            print(show.text(check.line()))
    wanting = [check.name for check in found if check.needed and check.state == "does not hold"]
    if wanting:
        raise ConfigError(f"needed and does not hold: {', '.join(wanting)}", mend="mend it as told above")
    return 0


def configuration(path: str | None) -> tuple[Settings | None, Check]:
    """Return the settings where they can be read, and the check of that."""
    from prism_vault_agent.config.load import load  # noqa: PLC0415 - pydantic takes its time

    name = "the configuration is valid and safe"
    try:
        settings = load(path, os.environ)
    except PrismVaultError as error:
        return None, Check(name, "G7", "does not hold", error.message, error.mend, needed=True)
    return settings, judge(name, "G7", holds=True, why=settings.files[0], mend="", needed=True)


def relays(settings: Settings, status: Json) -> str:
    """Return the directory of the relays that the agent asks its servers by, as it tells; empty where it has a network.

    Without an agent it is that of the configuration, else that of the host where the agent would be the host's.
    """
    if "relay" in status:
        return str(status["relay"])
    usual = DIRECTORY if os.geteuid() == 0 and os.path.isdir(DIRECTORY) else ""
    return settings.vault.relay or usual


def files(settings: Settings) -> list[Check]:
    """Return the checks of the socket's directory, and of every file that holds a credential."""
    auth, central = settings.vault.auth, settings.central
    held = [auth.role_id_file, auth.secret_id_file, auth.password_file, auth.token_file, central.token_file]
    held += [settings.vault.tls.key_file, central.tls.key_file]
    # Kubernetes shows a service account's token to everything in the pod, which is one tenant.
    held += [auth.jwt_file] if auth.method != "kubernetes" else []
    return [directory(Path(settings.agent.socket).parent), *(credential(Path(path)) for path in dict.fromkeys(held) if path)]


def directory(path: Path) -> Check:
    """Return whether nobody else can put a socket of theirs in place of the agent's."""
    name = "nobody else can take the socket's place"
    try:
        found = path.stat()
    except OSError as error:
        return Check(name, "G7", "unknown", f"{path}: {error.strerror}", "the agent's unit makes it (RuntimeDirectory=)")
    safe = found.st_uid in (0, os.geteuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    why = f"{path} belongs to uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}"
    return judge(name, "G7", holds=safe, why=why, mend=f"chown it to the agent's user and chmod go-w {path}", needed=True)


def credential(path: Path) -> Check:
    """Return whether a credential can be read by us and by nobody else."""
    name = f"{path.name} is ours alone"
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
    except PermissionError:
        return Check(name, "G4", "unknown", f"{path} cannot be read by you", "run doctor as the agent's user")
    except OSError as error:
        return Check(name, "G4", "does not hold", f"{path}: {error.strerror}", "put the credential there", needed=True)
    safe = found.st_uid in (0, os.geteuid()) and not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    why = f"{path} belongs to uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}"
    return judge(name, "G4", holds=safe, why=why, mend=f"chmod go= {path}", needed=True)


def agent(path: str | None) -> tuple[Json, Check]:
    """Return the agent's status, empty without one, and whether one serves here, on a socket that is still its own."""
    name = "the agent serves on its own socket"
    try:
        place = socket.find(path)
        status = socket.ask(place, "GET", "/v1/status")[1]
    except PrismVaultError as error:
        return {}, Check(name, "G7", "does not hold", error.message, error.mend)
    ours = bool(status.get("socket", {}).get("ours"))
    why = f"pid {status.get('pid')} on {place}" + ("" if ours else ", which leads elsewhere now")
    return status, judge(name, "G7", holds=ours, why=why, mend="restart the agent")


def helper(settings: Settings, status: Json) -> Check:
    """Return whether the agent can do what takes root: it is root, or a helper listens for it."""
    name = "files of other users can be made, and their processes ended"
    uid = int(status.get("process", {}).get("uid", os.geteuid()))
    if uid == 0:
        return judge(name, "G6", holds=True, why="the agent is root", mend="")
    path = settings.agent.helper or HOST_HELPER
    needed = any(file.uid not in (uid, os.geteuid()) for scope in settings.scopes.values() for file in scope.files)
    try:
        with kernel.socket(kernel.AF_UNIX, kernel.SOCK_SEQPACKET) as asking:
            asking.connect(path)
    except PermissionError:
        return Check(name, "G6", "unknown", f"{path} is not for you to connect to", "run doctor as the agent's user", needed)
    except OSError as error:
        without = f"no helper listens at {path} ({error.strerror}): what is another user's is refused, or told as failed"
        return Check(name, "G6", "does not hold", without, "start prism-vault-helper.socket, or run the agent as root", needed)
    return judge(name, "G6", holds=True, why=f"a helper listens at {path}", mend="", needed=needed)


def proved(central: CentralSettings, status: Json) -> Check:
    """Return whether central's log is known to be whole, from what the agent tells; ``status`` is empty without one."""
    name = "central's records are proved"
    if not central.log_keys:
        mend = "set it to the key that central's operator gives"
        return Check(name, "G8", "does not hold", "[central] log_key is not set, so central is believed", mend)
    log = status.get("log", {})
    state, why = log.get("state"), str(log.get("last_error") or "")
    if state is None:
        return Check(name, "G8", "unknown", "no agent tells", "start it")
    if state == "believed":
        return Check(name, "G8", "does not hold", "the agent runs without log_key", "restart it", needed=True)
    if state == "refused":
        return Check(name, "G8", "does not hold", why, "settle it: see prism-vault witness show", needed=True)
    holds = f"{log.get('size')} rows of {log.get('origin')}"
    return judge(name, "G8", holds=state == "proved", why=why or holds, mend="see the agent's log and central's", needed=True)
