"""Generations for tests: every file of one says which one it is, in every line, so that a torn or mixed one is seen."""

from __future__ import annotations

import os

from prism_vault_agent.sink.generation import Content, Staged, stage, switch

NAMES = ("web.env", "keys/TLS_KEY", "keys/TOKEN")


def content(number: int, name: str, *, lines: int = 200) -> bytes:
    """Return what stands in a file of generation ``number``."""
    return f"{number} {name}\n".encode() * lines


def contents(number: int, mode: int = 0o400, lines: int = 200) -> list[Content]:
    """Return the files of a generation."""
    return [Content(name, content(number, name, lines=lines), os.geteuid(), os.getegid(), mode) for name in NAMES]


def render(place: int, number: int, scope: str = "web") -> Staged:
    """Make generation ``number`` visible."""
    staged = stage(place, scope, contents(number), {"number": number})
    switch(place, scope, staged)
    return staged
