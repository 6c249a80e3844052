"""What an expression of a Go template means here: a secret, one of its keys, or text of the template. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prism_vault_agent.migrate.go_lexer import NotGo, Token

if TYPE_CHECKING:
    from collections.abc import Callable

_FILTERS: Final = {"base64Encode": "base64", "trimSpace": "trim"}
_ELSEWHERE: Final = {
    **dict.fromkeys(("toJSON", "toJSONPretty", "toYAML", "toTOML"), "spells some characters in a way of its own; take |json"),
    **dict.fromkeys(("toUpper", "toLower", "toTitle", "urlquery"), "changes some characters in a way of its own"),
    **dict.fromkeys(("key", "keyOrDefault", "keyExists", "ls", "safeLs", "tree", "safeTree"), "reads Consul's keys"),
    **dict.fromkeys(("service", "services", "node", "nodes", "datacenters", "connect"), "reads Consul's services"),
    **dict.fromkeys(("env", "envOrDefault", "mustEnv", "file"), "reads the host, not Vault"),
    **dict.fromkeys(("pkiCert", "caRoots", "caLeaf"), "has a certificate made"),
    **dict.fromkeys(("secrets", "timestamp", "executeTemplate", "writeToFile"), "does what is not reading one secret"),
}


@dataclass(frozen=True, slots=True)
class Secret:
    """What ``secret "PATH"`` gives; ``below`` are the fields that were asked for."""

    path: str
    below: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """An expression of Jinja2 that can be printed; ``literal`` is the text that it spells, where that is known."""

    text: str
    literal: str | None = None


Meaning = Secret | Shown | None


def reference_of(secret: Secret) -> str | None:
    """Return the reference of a key, as ours are; None where the fields name no key (yet, or any more)."""
    mount, data, rest = secret.path.partition("/data/")
    if secret.below[:2] == ("Data", "data") and data:
        return f"vault://{mount}/{rest}#{secret.below[2]}" if len(secret.below) == 3 else None
    if secret.below[:1] == ("Data",) and len(secret.below) == 2 and not data:
        return f"vault://{secret.path}#{secret.below[1]}"
    return None


@dataclass(slots=True)
class Expressions:
    """Reads expressions; ``bind`` gives the variable for a reference, or raises ``ValueError`` that says why none.

    ``dot`` and ``variables`` are what the template has set, ``line`` is where it is, ``tested`` has what its conditions ask for.
    """

    bind: Callable[[str], str]
    dot: Meaning = None
    variables: dict[str, Meaning] = field(default_factory=dict)
    line: int = 1
    tested: list[str] = field(default_factory=list)

    def pipeline(self, tokens: list[Token]) -> tuple[str, Meaning]:
        """Return the variable that a pipeline declares, if any, and what it gives."""
        name = ""
        if len(tokens) > 1 and tokens[0].kind == "variable" and tokens[1].text in (":=", "="):
            name, assigned, tokens = tokens[0].text, tokens[1].text == "=", tokens[2:]
            if name == "$" or assigned:
                raise self.wrong("changes a variable")
        commands: list[list[Token]] = [[]]
        depth = 0
        for token in tokens:
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            if token.text == "|" and not depth:
                commands.append([])
            else:
                commands[-1].append(token)
        meaning: Meaning = None
        for number, command in enumerate(commands):
            meaning = self._command(command, meaning, is_piped=number > 0)
        return name, meaning

    def _command(self, tokens: list[Token], piped: Meaning, *, is_piped: bool) -> Meaning:
        if not tokens:
            raise self.wrong("has an empty command")
        if tokens[0].kind != "name":
            meaning, rest = self.operand(tokens)
            if rest or is_piped:
                raise self.wrong("calls what is no function")
            return meaning
        arguments, rest = [], tokens[1:]
        while rest:
            argument, rest = self.operand(rest)
            arguments.append(argument)
        return self._call(tokens[0].text, [*arguments, piped] if is_piped else arguments)

    def _call(self, name: str, arguments: list[Meaning]) -> Meaning:
        if name == "secret":
            path = _text(arguments[0]) if arguments else None
            if path is None:
                raise self.wrong("reads a path that is computed")
            if len(arguments) > 1:
                raise self.wrong("passes parameters to a secret, which makes a new one each time")
            return Secret(path.strip("/"))
        if name == "index" and len(arguments) > 1 and isinstance(arguments[0], Secret):
            keys = [_text(each) for each in arguments[1:]]
            if None not in keys:
                return Secret(arguments[0].path, (*arguments[0].below, *map(str, keys)))
        if name in _FILTERS and len(arguments) == 1:
            return Shown(f"{self.shown(arguments[0])}|{_FILTERS[name]}")
        if name == "replaceAll" and len(arguments) == 3:
            old, new = _text(arguments[0]), _text(arguments[1])
            if old and new is not None:
                return Shown(f"{self.shown(arguments[2])}|replace({literal(old)}, {literal(new)})")
        raise self.wrong(f"uses {name}" + (f", which {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""))

    def operand(self, tokens: list[Token]) -> tuple[Meaning, list[Token]]:
        """Return what the first operand means, with the fields behind it, and the tokens that are left."""
        if not tokens:
            raise self.wrong("lacks an argument")
        first, rest = tokens[0], tokens[1:]
        if first.kind == "string":
            text = self._unquoted(first.text)
            return Shown(literal(text), text), rest
        meaning, rest = self._head(tokens)
        while rest and rest[0].kind == "field" and (not rest[0].spaced or rest is tokens):
            if not isinstance(meaning, Secret):
                raise self.wrong(f"asks for {rest[0].text} of what is no secret")
            meaning = Secret(meaning.path, (*meaning.below, rest[0].text[1:]))
            rest = rest[1:]
        return meaning, rest

    def _head(self, tokens: list[Token]) -> tuple[Meaning, list[Token]]:
        """Return what an operand is before its fields, and the tokens behind that."""
        first, rest = tokens[0], tokens[1:]
        if first.kind == "field":
            return self.dot, tokens
        if first.text == ".":
            return self.dot, rest
        if first.kind == "variable":
            if first.text not in self.variables:
                raise self.wrong(f"uses {first.text}, which stands for no secret")
            return self.variables[first.text], rest
        if first.text != "(":
            raise self.wrong(f"uses {first.text}")
        close = _closing(rest)
        if close < 0:
            raise self.wrong("has a parenthesis that does not close")
        name, meaning = self.pipeline(rest[:close])
        if name:
            raise self.wrong("declares a variable within parentheses")
        return meaning, rest[close + 1 :]

    def shown(self, meaning: Meaning) -> str:
        """Return the expression that prints something."""
        if isinstance(meaning, Shown):
            return meaning.text
        if meaning is None:
            raise self.wrong("prints what is no value of a secret")
        reference = reference_of(meaning)
        if reference is None:
            below = "".join(f".{each}" for each in meaning.below)
            raise self.wrong(f"prints {below or 'a whole secret'}, which is not one key of a secret")
        try:
            return self.bind(reference)
        except ValueError as error:
            raise self.wrong(str(error)) from None

    def _unquoted(self, literal: str) -> str:
        if literal.startswith("`"):
            return literal[1:-1].replace("\r", "")
        try:
            text = json.loads(literal)
        except ValueError:
            raise self.wrong("has a string with an escape that cannot be taken over") from None
        return str(text)

    def condition(self, meaning: Meaning) -> str:
        """Return the expression that is false where a value is empty. That its key is missing ends the render here."""
        if not isinstance(meaning, Secret):
            raise self.wrong("tests what is not one value")
        self.tested.append(found := self.shown(meaning))
        return found

    def wrong(self, what: str) -> NotGo:
        """Return the error for what cannot be taken over, with the line."""
        return NotGo(self.line, what)


def literal(text: str) -> str:
    """Return text as a string of Jinja2, which knows the escapes of JSON but no surrogate pairs."""
    return json.dumps(text, ensure_ascii=False)


def _text(meaning: Meaning) -> str | None:
    """Return the text of a literal; None for anything else."""
    return meaning.literal if isinstance(meaning, Shown) else None


def _closing(tokens: list[Token]) -> int:
    depth = 1
    for number, token in enumerate(tokens):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if not depth:
            return number
    return -1
