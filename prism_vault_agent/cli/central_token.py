"""``prism-vault central token``: make, list and revoke service tokens; the first one directly in the database."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.cli import show
from prism_vault_agent.cli.central_client import CentralClient, add_options
from prism_vault_agent.errors import AuditUnavailable, Denied, UsageError

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.show import Json

HEAD: Final = ("NAME", "ROLE", "HOST", "PROJECTS", "SCOPES", "MADE BY", "ENDS", "STATE")
NEVER: Final = "never"
_TIME: Final = re.compile(r"(?P<number>[1-9][0-9]{0,5})(?P<unit>[smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add(actions: Any) -> None:
    """Add ``token`` and its actions."""
    told = "make, list and revoke service tokens"
    parser = actions.add_parser("token", help=told, description=f"{told[0].upper()}{told[1:]}. Each is on the audit log.")
    commands = parser.add_subparsers(dest="token_command", required=True, metavar="ACTION")
    create = commands.add_parser(
        "create",
        help="make a token and print it, once",
        description="Make a token. It is printed on stdout, this once; central keeps only its SHA-256.",
    )
    create.add_argument("name", metavar="NAME", help="what the audit log calls its holder; never used again")
    create.add_argument("--role", choices=("operator", "agent"), required=True, help="who holds it")
    create.add_argument("--host", metavar="HOST", help="which host an agent's token speaks for")
    create.add_argument("--project", action="append", metavar="PROJECT", required=True, help="a project, or *; may be repeated")
    create.add_argument("--scope", action="append", metavar="SCOPE", help="for instance audit:read; may be repeated")
    create.add_argument("--expires", default="90d", metavar="TIME", help=f"when it ends: 12h, 90d (the default), {NEVER}")
    create.add_argument("--config", type=Path, metavar="FILE", help="without central: into the database of this configuration")
    create.add_argument("--database", metavar="PATH_OR_URL", help="the same with the database named")
    listing = commands.add_parser("list", help="every token that was made", description="Every token that was made.")
    listing.add_argument("--json", action="store_true", help="central's own answer, as JSON")
    revoke = commands.add_parser("revoke", help="end a token, everywhere and now", description="End a token, everywhere and now.")
    revoke.add_argument("name", metavar="NAME", help="the token's name")
    for command, act in ((create, _create), (listing, _list), (revoke, _revoke)):
        add_options(command)
        command.set_defaults(act=act)


def _central(args: argparse.Namespace) -> CentralClient:
    return CentralClient(args)


def _create(args: argparse.Namespace) -> int:
    asked = {
        "name": args.name,
        "role": args.role,
        "host": args.host or "",
        "projects": args.project,
        "scopes": args.scope,
        "expires_in": _lasts(args.expires),
    }
    if args.config is not None or args.database is not None:
        made = _made_directly(args, asked)
    else:
        made = _central(args).ask("POST", "/v1/tokens", json=asked)
    print(made["token"])
    print(f"token {args.name} ends {_when(made['expires_at'])}; it is not shown again", file=sys.stderr)
    return 0


def _made_directly(args: argparse.Namespace, asked: Json) -> Json:
    """Make a token in the database itself, as whoever may write it. Raises ``UsageError`` and ``Denied``."""
    import os  # noqa: PLC0415

    from pydantic import ValidationError  # noqa: PLC0415 - the extra central, only here

    from prism_vault_agent.central.access import token_rows  # noqa: PLC0415
    from prism_vault_agent.central.access.identity import Identity  # noqa: PLC0415
    from prism_vault_agent.central.access.permission import SCOPES, Refused  # noqa: PLC0415
    from prism_vault_agent.central.access.token_request import TokenRequest, new_token  # noqa: PLC0415
    from prism_vault_agent.central.config import load  # noqa: PLC0415
    from prism_vault_agent.central.log.store import StorageError, Store  # noqa: PLC0415
    from prism_vault_agent.central.storage.engines import reading_engine, require_current, writing_engine  # noqa: PLC0415

    database = load(args.config).database if args.config is not None else args.database
    try:
        request = TokenRequest.model_validate(asked)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}") from None
    engine = reading_engine(database)
    require_current(engine, args.config or Path("FILE"))
    engine.dispose()
    who = Identity(f"uid {os.geteuid()}", "operator", "", frozenset({"*"}), SCOPES["operator"], "database")
    token, sha256 = new_token()
    store = Store(writing_engine(database))
    try:
        (made,) = store.run([partial(token_rows.make, who=who, grant=request.grant, sha256=sha256, lasts=request.lasts)])
    except StorageError as error:
        raise AuditUnavailable(f"the database did not take the token ({error})", mend="see its disk and state") from None
    finally:
        store.close()
    if isinstance(made, Refused):
        raise Denied(f"the token is not made: {made.message}", reason=made.reason)
    assert isinstance(made, token_rows.Token)
    return {**made.plain(), "token": token}


def _list(args: argparse.Namespace) -> int:
    answer = _central(args).ask("GET", "/v1/tokens")
    if args.json:
        print(show.dump(answer))
        return 0
    rows = [
        [
            *(token[key] for key in ("name", "role", "host", "projects", "scopes")),
            (token["made_by"] or {}).get("name", "the configuration"),
            _when(token["expires_at"]),
            _state(token),
        ]
        for token in answer["tokens"]
    ]
    print(show.table(HEAD, rows), end="")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    from urllib.parse import quote  # noqa: PLC0415

    answer = _central(args).ask("DELETE", f"/v1/tokens/{quote(args.name, safe='')}")
    print(f"token {args.name} was revoked {_when(answer['revoked_at'])}")
    return 0


def _lasts(text: str) -> int | None:
    """Return the seconds that a token lasts, or None for ever. Raises ``UsageError``."""
    match = _TIME.fullmatch(text)
    if match is None and text != NEVER:
        raise UsageError("--expires is not a time", mend=f"write 12h, 90d or {NEVER}")
    return int(match["number"]) * _SECONDS[match["unit"]] if match else None


def _when(milliseconds: int | None) -> str:
    return NEVER if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _state(token: Json) -> str:
    if token["revoked_at"] is not None:
        return f"revoked by {token['revoked_by']['name']}"
    ended = token["expires_at"] is not None and token["expires_at"] / 1000 <= datetime.now(UTC).timestamp()
    return "ended" if ended else "holds"
