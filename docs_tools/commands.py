"""The reference of the command line, from the parsers. Not argparse's own help: that differs from one Python to the next."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from docs_tools.markdown import GENERATED, code, table
from prism_vault_agent.cli.main import COMMANDS, EPILOG, parser

if TYPE_CHECKING:
    from collections.abc import Iterator


def page() -> str:
    """Return the page."""
    overview = table(("command", "what it does"), [(f"[`{name}`](#{name})", told) for name, (_, told) in COMMANDS.items()])
    parts = [
        f"{GENERATED}# Command line\n\n",
        "Options cannot be abbreviated, and none takes a secret: what is secret is named by a file.\n\n",
        f"{overview}\n{EPILOG[:1].upper()}{EPILOG[1:].strip()}. See [exit statuses](exit-statuses.md).\n",
    ]
    for name in COMMANDS:
        parts += _command(f"prism-vault {name}", _below(parser(name)[0])[name], 2)
    return "".join(parts)


def _command(name: str, command: argparse.ArgumentParser, level: int) -> Iterator[str]:
    """Give the section of a command, then those of the commands below it."""
    heading = name.removeprefix("prism-vault ") if level == 2 else name
    yield f"\n{'#' * level} {heading}\n\n"
    if command.description:
        yield f"{_sentence(command.description)}\n\n"
    below = _below(command)
    yield code(_usage(name, command, below=bool(below)))
    rows = [(_spelling(action), action.help or _shown(action)) for action in _actions(command)]
    if rows:
        yield "\n" + table(("option", "meaning"), rows)
    if command.epilog:
        yield f"\n{command.epilog.strip()}\n"
    helps = {
        choice.dest: choice.help or ""
        for action in command._actions  # noqa: SLF001 - argparse has no other way to read a parser
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001 - as above
        for choice in action._choices_actions  # noqa: SLF001 - as above
    }
    for choice, inner in below.items():
        inner.description = inner.description or helps.get(choice)
        yield from _command(f"{name} {choice}", inner, level + 1)


def _usage(name: str, command: argparse.ArgumentParser, *, below: bool) -> str:
    words = [name]
    for action in _actions(command):
        spelling = _spelling(action).replace("`", "").split(", ")[-1]
        words.append(spelling if action.required else f"[{spelling}]")
    return " ".join([*words, "ACTION ..."] if below else words)


def _spelling(action: argparse.Action) -> str:
    """Return how an option or argument is written."""
    value = _shown(action)
    if not action.option_strings:
        many = action.nargs in ("+", "*") and not value.endswith("]")
        return f"`{value}{' ...' if many else ''}`"
    takes = "" if action.nargs == 0 else f" {value}"
    return ", ".join(f"`{option}{takes}`" for option in action.option_strings)


def _shown(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    return "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()


def _actions(command: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the options and arguments of a command: neither --help nor the commands below it."""
    return [
        action
        for action in command._actions  # noqa: SLF001 - as above
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)  # noqa: SLF001 - as above
    ]


def _below(command: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in command._actions:  # noqa: SLF001 - as above
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            return dict(action.choices)
    return {}


def _sentence(text: str) -> str:
    told = text.strip()
    return told[0].upper() + told[1:] + ("" if told.endswith(".") else ".")
