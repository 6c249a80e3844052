"""What a rotation or a revocation is about, and whether it means a release. Pure: the agent acts by it, central counts by it.

A target is conditions that must all hold, within projects. One without conditions is everything of those projects, which has
to be said in so many words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from prism_vault_agent.errors import ConfigError
from prism_vault_agent.scope import SecretReference

EVERYTHING: Final = "everything"
ANY: Final = "*"
_NAMES: Final = ("scope", "host", "run_ref")


@dataclass(frozen=True, slots=True)
class Released:
    """A release as a target sees it. The version of a reference is the one that was read, None where it is not known."""

    host: str
    project: str
    scopes: frozenset[str]
    run_ref: str | None
    references: tuple[SecretReference, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Conditions on a release, None for none. ``projects`` may hold ``*``."""

    projects: frozenset[str]
    scope: str | None = None
    reference: SecretReference | None = None
    host: str | None = None
    run_ref: str | None = None

    @classmethod
    def parse(cls, target: Mapping[str, Any], projects: Iterable[str]) -> Target:
        """Return what a signal's ``target`` says.

        Raises ``ValueError`` for one with a condition that is not known here, or without any that does not say ``everything``.
        """
        found = {name: value for name, value in target.items() if value is not None}
        everything = found.pop(EVERYTHING, False)
        reference = found.pop("reference", None)
        if found.keys() - set(_NAMES) or not all(isinstance(value, str) and value for value in found.values()):
            raise ValueError("a condition is not known, or is not a name")
        if everything is not (not found and reference is None):
            raise ValueError("a target is everything, or has conditions")
        try:
            parsed = None if reference is None else SecretReference.parse(reference)
        except (ConfigError, AttributeError, TypeError):
            raise ValueError("not a secret reference") from None
        return cls(frozenset(projects), reference=parsed, **found)

    @property
    def paths(self) -> frozenset[str] | None:
        """The path that it is about; None for one that is about a release as a whole."""
        return None if self.reference is None else frozenset({self.reference.path})

    def plain(self) -> dict[str, Any]:
        """Return what :meth:`parse` reads, without the projects."""
        conditions = {name: value for name in _NAMES if (value := getattr(self, name)) is not None}
        if self.reference is not None:
            conditions["reference"] = str(self.reference)
        return conditions or {EVERYTHING: True}

    def words(self) -> str:
        """Return the target as a sentence says it."""
        plain = self.plain()
        told = EVERYTHING if EVERYTHING in plain else ", ".join(f"{name} {value}" for name, value in sorted(plain.items()))
        return told if ANY in self.projects else f"{told} of project {', '.join(sorted(self.projects))}"

    def means(self, released: Released) -> bool:
        """Tell whether a release is meant: it is of one of the projects, and every condition holds for it."""
        return (
            (ANY in self.projects or released.project in self.projects)
            and (self.scope is None or self.scope in released.scopes)
            and (self.host is None or self.host == released.host)
            and (self.run_ref is None or self.run_ref == released.run_ref)
            and (self.reference is None or any(_same(self.reference, each) for each in released.references))
        )


def as_read(references: Iterable[SecretReference], versions: Mapping[str, int | None]) -> tuple[SecretReference, ...]:
    """Return references with the version that was read of each path."""
    return tuple(replace(each, version=versions.get(each.path, each.version)) for each in references)


def _same(asked: SecretReference, read: SecretReference) -> bool:
    """Tell whether ``read`` may hold what ``asked`` names; a key or version that one of them does not say may be the other's."""
    return (
        asked.path == read.path
        and (asked.key is None or read.key is None or asked.key == read.key)
        and (asked.version is None or read.version is None or asked.version == read.version)
    )
