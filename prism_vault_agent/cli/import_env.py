"""``prism-vault import env``: from a ``.env`` file to a scope of references, and to what is stored at the provider."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli import import_scope
from prism_vault_agent.errors import ConfigError, UsageError
from prism_vault_agent.exec import Failure, envfile
from prism_vault_agent.policy.names import fault, shown
from prism_vault_agent.scope import SecretReference

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from prism_vault_agent.cli.main import Subparsers

DESCRIPTION: Final = """\
Print a scope that binds the variables of a .env file to a secret, for a file below scopes.d: references, no values.
With --values, print the values instead, as JSON for `bao kv put MOUNT/PATH -`. Nothing is stored and nothing is run.
The file is read as by `exec --env-file`. What cannot be taken over is told in the scope, and ends the command with 78.
"""
_HEAD: Final = """\
# Made of an env file: references, no values. Put the values where these point to,
#   prism-vault import env FILE --values | bao kv put {path} -
# (or `bao kv patch`, where that secret has other keys), say below who may ask and why, and remove the env file.
"""
_EXPANDED: Final = re.compile(r"\$[A-Za-z_({]|`")
_NAMED: Final = 10


@dataclass(slots=True)
class Taken:
    """What becomes of the variables: which have a value to be stored, which a reference of their own, which neither and why."""

    values: dict[str, str] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def expanded(self) -> list[str]:
        """Return the variables whose values other readers would expand."""
        return [name for name, value in self.values.items() if _EXPANDED.search(value)]


def add(actions: Subparsers) -> None:
    """Add the action's parser."""
    env = actions.add_parser("env", help="from a .env file", description=DESCRIPTION)
    env.add_argument("file", metavar="FILE", help="the .env file")
    import_scope.add_options(env)
    env.add_argument("--path", metavar="MOUNT/PATH", help="the secret (KV) that has the values, or will have them")
    env.add_argument("--values", action="store_true", help="print the values, into a pipe or a file")


def run(args: argparse.Namespace) -> int:
    """Print the scope or the values; raises ``ConfigError`` behind that where something could not be taken over."""
    scope = {key: getattr(args, key) for key in (*import_scope.NAMES, "path")}
    given = [f"--{key}" for key, text in scope.items() if text is not None]
    if args.values:
        if given:
            raise UsageError(f"--values goes without {given[0]}", mend="give the options of the scope without --values")
        if sys.stdout.isatty():
            raise UsageError("values are not shown on a terminal", mend="pipe them into bao kv put MOUNT/PATH -")
    elif len(given) < len(scope):
        missing = next(f"--{key}" for key, text in scope.items() if text is None)
        raise UsageError(f"{missing} is missing", mend="give --scope, --project, --environment and --path, or --values")
    else:
        _check(scope)
    taken = translate(_read(args.file))
    if args.values:
        print(json.dumps(taken.values, indent=1))
    else:
        print(written(taken, **scope), end="")
    if taken.left:
        names = ", ".join(map(shown, list(taken.left)[:_NAMED])) + (", ..." if len(taken.left) > _NAMED else "")
        raise ConfigError(
            f"cannot be taken over: {names}",
            mend="the scope says why" if not args.values else "the scope that it makes without --values says why",
        )
    return 0


def translate(variables: Mapping[bytes, bytes]) -> Taken:
    """Return what becomes of the variables of an env file. Pure."""
    taken = Taken()
    twins: dict[str, str] = {}
    for raw, content in variables.items():
        name = raw.decode()
        if (why := fault(name)) is not None:
            taken.left[name] = why
        elif (twin := twins.setdefault(name.lower(), name)) != name:
            taken.left[name] = f"differs from {twin} only by case, which no scope has"
        elif (text := _text(content)) is None:
            taken.left[name] = "is not UTF-8, which the provider needs: store it in base64"
        elif text.startswith("vault://"):
            if (reference := _reference(text)) is None:
                taken.left[name] = "begins like a reference and is none: write vault://<mount>/<path>#<key>"
            else:
                taken.references[name] = reference
        else:
            taken.values[name] = text
    return taken


def written(taken: Taken, *, scope: str, project: str, environment: str, path: str) -> str:
    """Return the scope as TOML. No value is in it. Pure, but for who we are."""
    bound = {name: f"vault://{path}#{name}" for name in taken.values} | taken.references
    lines = import_scope.head(scope=scope, project=project, environment=environment, names=bound)
    lines.append(f"[{import_scope.table(scope)}.env]")
    expanded = taken.expanded()
    for name, reference in bound.items():
        if name in expanded:
            lines.append(
                f"# {name} holds a dollar sign or backtick that other readers of env files expand; it is stored as it is."
            )
        lines.append(f"{name} = {import_scope.quoted(reference)}")
    lines += [f"# left out: {shown(name)} {why}" for name, why in taken.left.items()]
    return _HEAD.format(path=path) + "\n" + "\n".join(lines) + "\n"


def _check(scope: Mapping[str, str]) -> None:
    """Raise ``UsageError`` for an option that no scope could have."""
    import_scope.check(scope)
    reference = _reference(f"vault://{scope['path']}#KEY")
    if reference is None or "#" in scope["path"] or "?" in scope["path"]:
        raise UsageError("--path is not the path of a secret", mend="write <mount>/<path>, for instance secret/prism/lan/web")


def _read(path: str) -> dict[bytes, bytes]:
    try:
        found = envfile.read(path)
    except Failure as failure:
        raise ConfigError(failure.line) from None
    if not found:
        raise ConfigError("the env file has no variables", mend="name another")
    return found


def _text(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _reference(text: str) -> str | None:
    """Return a whole reference with its key; None for anything else."""
    try:
        reference = SecretReference.parse(text)
    except ConfigError:
        return None
    return str(reference) if reference.key is not None else None
