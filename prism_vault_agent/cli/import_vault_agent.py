"""``prism-vault import vault-agent``: from the configuration of Vault Agent or consul-template to a scope and its templates."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli import import_scope
from prism_vault_agent.errors import CannotCreate, ConfigError, UsageError
from prism_vault_agent.migrate.taken import FileOf, Taken
from prism_vault_agent.migrate.vault_agent import translate

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers

DESCRIPTION: Final = """\
Print a scope that does what the templates in a configuration (HCL) of Vault Agent, OpenBao's agent or consul-template do, for a
file below scopes.d, and write their templates, in Jinja2, into the directory that --templates names. Nothing is guessed: what
does not translate is told in the scope, by line, and ends the command with 78. Nothing is read from Vault and nothing is run.
"""
LARGEST: Final = 1024 * 1024
_CALLS: Final = "# Made of a configuration of Vault Agent. Say below who may ask and why.\n"


def add(actions: Subparsers) -> None:
    """Add the action's parser."""
    parser = actions.add_parser("vault-agent", help="from a configuration of Vault Agent", description=DESCRIPTION)
    parser.add_argument("file", metavar="FILE", help="the configuration")
    import_scope.add_options(parser)
    parser.add_argument("--templates", metavar="DIR", help="directory for the templates, below that of agent.toml")


def run(args: argparse.Namespace) -> int:
    """Write the templates and print the scope; raises ``ConfigError`` behind that where something does not translate."""
    scope = {key: getattr(args, key) for key in import_scope.NAMES}
    missing = next((f"--{key}" for key, text in scope.items() if text is None), None)
    if missing is not None:
        raise UsageError(f"{missing} is missing", mend="give --scope, --project and --environment")
    import_scope.check(scope)
    taken = translate(_read(args.file), _read)
    if taken.files and args.templates is None:
        mend = "name a directory below that of agent.toml, for instance /etc/prism-vault/templates"
        raise UsageError("--templates is missing", mend=mend)
    paths = {file.path: os.path.join(os.path.abspath(args.templates), f"{scope['scope']}-{file.path}.j2") for file in taken.files}
    for file in taken.files:
        _write(paths[file.path], file.text)
    print(written(taken, paths, **scope), end="")
    if taken.left:
        lines = ", ".join(dict.fromkeys(str(line) for line, _ in taken.left[:20]))
        raise ConfigError(f"cannot be taken over: what is on line {lines}", mend="the scope says why")
    return 0


def written(taken: Taken, paths: dict[str, str], *, scope: str, project: str, environment: str) -> str:
    """Return the scope as TOML, with all that there is to say; ``paths`` has the template of each file."""
    lines = [_CALLS]
    if taken.server or taken.login:
        lines.append("# For agent.toml, where it does not say so yet:")
        lines += [f"#   {line}" for line in ["[vault]", *taken.server, *(["[vault.auth]", *taken.login] if taken.login else [])]]
        lines.append("")
    if taken.command:
        lines += [f"# Instead of exec:  prism-vault exec --scope {scope} -- {taken.command}", ""]
    if taken.env:
        lines += import_scope.head(scope=scope, project=project, environment=environment, names=taken.env)
        lines.append(f"[{import_scope.table(scope)}.env]")
        lines += [f"{name} = {import_scope.quoted(reference)}" for name, reference in taken.env.items()]
        for file in taken.files:
            lines += ["", *_file(file, paths[file.path], import_scope.table(scope))]
    if taken.notes:
        lines += ["", "# Otherwise than there:", *(f"#   line {line}: {what}" for line, what in sorted(taken.notes))]
    if taken.left:
        lines += ["", "# Left out:", *(f"#   line {line}: {what}" for line, what in sorted(taken.left))]
    return "\n".join(lines) + "\n"


def _file(file: FileOf, template: str, table: str) -> list[str]:
    pairs = {
        "path": file.path,
        "format": "template",
        "template": template,
        "owner": file.owner,
        "group": file.group,
        "mode": file.mode,
    }
    told = f"notify = {{ command = [{', '.join(map(import_scope.quoted, file.notify))}] }}"
    return [
        f"# Was {re.sub(r'[^ -~]', '?', file.destination)}; it is now below the scope's directory: name it where it is read.",
        f"[[{table}.files]]",
        *(f"{key} = {import_scope.quoted(text)}" for key, text in pairs.items() if text),
        *([told] if file.notify else []),
    ]


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {os.strerror(error.errno or 0)}", mend="name another") from None
    if len(content) > LARGEST:
        raise ConfigError(f"{path}: is larger than 1 MiB", mend="name another")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8", mend="save the file as UTF-8") from None


def _write(path: str, text: str) -> None:
    """Write a template, which has no value in it; one that is there already must be the same."""
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        except FileExistsError:
            if _read(path) == text:
                return
            raise CannotCreate(f"{path} is there already, with another text", mend="move it away") from None
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError as error:
        raise CannotCreate(f"cannot write {path}: {os.strerror(error.errno or 0)}", mend="name another --templates") from None
