"""Translates a Go template that reads Vault, as Vault Agent and consul-template have them, to one of Jinja2. Pure.

What stands for a secret's key becomes a variable; text stays to the byte. What has no equal here is refused with its line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from prism_vault_agent.migrate.go_expression import Expressions, Meaning, Secret, Shown, literal, reference_of
from prism_vault_agent.migrate.go_lexer import NotGo, Piece, Token, cut

# Text that Jinja2 would take for its own, or change: its marks, a brace before one of them, and carriage returns.
_MARKS: Final = re.compile(r"\{*\r|\{+[%#]|\{{2,}|\{\Z")


@dataclass(slots=True)
class _Block:
    """An open ``with`` or ``if``: what the dot was before, and what closes it here."""

    line: int
    dot: Meaning
    closing: str
    may_else: bool


@dataclass(slots=True)
class Translation:
    """Translates one template, whose expressions mean what ``said`` says."""

    said: Expressions
    blocks: list[_Block] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    def of(self, text: str, left: str = "{{", right: str = "}}") -> str:
        """Return the template. Raises :class:`NotGo` for the first thing that has no equal."""
        for piece in cut(text, left, right):
            self.said.line = piece.line
            if piece.tokens is None:
                self.parts.append(_MARKS.sub(lambda found: f"{{{{ {literal(found[0])} }}}}", piece.text))
            else:
                self._action(piece)
        if self.blocks:
            raise NotGo(self.blocks[-1].line, "has a block without its end")
        return "".join(self.parts)

    def _action(self, piece: Piece) -> None:
        tokens = list(piece.tokens or ())
        word = tokens[0].text if tokens and tokens[0].kind == "name" else ""
        if word in ("with", "if"):
            self._open(word, tokens[1:])
        elif word == "end" and len(tokens) == 1:
            if not self.blocks:
                raise self.said.wrong("ends a block that there is not")
            block = self.blocks.pop()
            self.parts.append(block.closing)
            self.said.dot = block.dot
        elif word == "else":
            self._else(tokens[1:])
        elif word in ("range", "define", "template", "block", "break", "continue"):
            why = "; list the secret in env_from and take a format that has all of it" if word == "range" else ""
            raise self.said.wrong(f"uses {word}{why}")
        else:
            name, meaning = self.said.pipeline(tokens)
            if name:
                self.said.variables[name] = meaning
            else:
                self.parts.append(f"{{{{ {self.said.shown(meaning)} }}}}")

    def _open(self, word: str, tokens: list[Token]) -> None:
        if word == "if":
            self.blocks.append(_Block(self.said.line, self.said.dot, "{% endif %}", may_else=True))
            self.parts.append(f"{{% if {self._condition(tokens)} %}}")
            return
        name, meaning = self.said.pipeline(tokens)
        whole = isinstance(meaning, Secret) and reference_of(meaning) is None
        self.blocks.append(_Block(self.said.line, self.said.dot, "" if whole else "{% endif %}", may_else=not whole))
        if not whole:
            self.parts.append(f"{{% if {self.said.condition(meaning)} %}}")
        if name:
            self.said.variables[name] = meaning
        self.said.dot = meaning

    def _else(self, tokens: list[Token]) -> None:
        if not self.blocks or not self.blocks[-1].may_else:
            raise self.said.wrong("has an else for a secret that is not there, which here ends the render")
        self.said.dot = self.blocks[-1].dot
        if not tokens:
            self.parts.append("{% else %}")
            self.blocks[-1].may_else = False
        elif tokens[0].text == "if":
            self.parts.append(f"{{% elif {self._condition(tokens[1:])} %}}")
        else:
            raise self.said.wrong("uses else with")

    def _condition(self, tokens: list[Token]) -> str:
        if tokens and tokens[0].text == "not":
            return f"not {self._condition(tokens[1:])}"
        if len(tokens) > 2 and tokens[0].text in ("eq", "ne"):
            left, rest = self.said.operand(tokens[1:])
            right, rest = self.said.operand(rest)
            if rest or not isinstance(right, Shown) or right.literal is None:
                raise self.said.wrong("compares with what is not one text")
            return f"{self.said.shown(left)} {'==' if tokens[0].text == 'eq' else '!='} {right.text}"
        name, meaning = self.said.pipeline(tokens)
        if name:
            raise self.said.wrong("declares a variable within if")
        return self.said.condition(meaning)
