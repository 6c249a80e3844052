"""The parser of the command line: errors are ours, say nothing of values, and options cannot be abbreviated."""

from __future__ import annotations

import argparse
import re
from typing import Any, Final, NoReturn

from prism_vault_agent.errors import UsageError

# What argparse repeats of the words it was given: an option's value may be a secret that was put in the wrong place.
_UNRECOGNIZED: Final = re.compile(r"unrecognized arguments: (?P<words>.*)", re.DOTALL)
_VALUE: Final = re.compile(
    r"(?P<what>argument [^:]*: (?:invalid \w+ value|invalid choice|ignored explicit argument))\b.*", re.DOTALL
)
_CHOICES: Final = re.compile(r"\(choose from (?P<choices>[^()]*)\)$")
_OPTION: Final = re.compile(r"--?[a-z][a-z-]*")


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are ``UsageError``, exit status 64."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Raise the ``UsageError`` for what argparse found, without the words that it found."""
        raise UsageError(_without_values(message), mend=f"see {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Suggest the nearest choice; argparse would repeat the word."""
        choices = [str(choice) for choice in action.choices or ()]
        if choices and value not in choices:
            import difflib  # noqa: PLC0415 - 2 ms, for who misspells a word

            near = difflib.get_close_matches(str(value), choices, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(choices)}"
            raise UsageError(f"no such {action.metavar or action.dest}".lower(), mend=hint)


def _without_values(message: str) -> str:
    if unrecognized := _UNRECOGNIZED.fullmatch(message):
        options = [word.partition("=")[0] for word in unrecognized["words"].split() if word.startswith("-")]
        known = [option for option in options if _OPTION.fullmatch(option)]
        return f"unknown option {known[0]}" if known else "there is a word too many"
    if value := _VALUE.fullmatch(message):
        choices = _CHOICES.search(message)
        return value["what"] + (f", choose from {choices['choices']}" if choices else "")
    return message
