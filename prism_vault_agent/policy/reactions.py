"""What is to be done with what is out there when secrets of it are rotated or revoked. Pure: no clock, and nobody is asked.

What is known to have changed is a path, since only a worker sees values: a new version of a path is one of all its keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from prism_vault_agent.scope import ROTATED, Reaction

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from prism_vault_agent.scope import Binding, Does, Scope

# A process with a supervisor of ours, a unit that systemd gave a credential to, or a process that nobody starts again.
Holder = Literal["supervised", "unit", "process"]
Step = Literal["restart", "restart_unit", "signal", "terminate", "cannot_restart", "leave"]

STRONGEST_FIRST: Final[tuple[Does, ...]] = ("terminate", "restart", "signal", "notify", "rewrite", "clear", "none")
NOTHING: Final = Reaction("none")
TERMINATE: Final = Reaction("terminate")


def at_rotation(
    scopes: Iterable[Scope], held: Iterable[Binding], changed: Collection[str], own: Reaction | None = None
) -> Reaction:
    """Return the strongest of what ``scopes`` say about those of the ``held`` bindings whose path is ``changed``.

    What a process says of its ``own`` goes before what is not stronger: it asks for more than its scopes, never for less.
    A binding that names its version has no newer one. What no scope binds, as a reference of the caller's own, is of each scope.
    Return ``none`` where nothing of it is meant, and ``notify`` where nobody says anything.
    """
    meant = [each for each in held if any(read.path in changed and read.version is None for read in each.references)]
    if not meant:
        return NOTHING
    said = strongest(list(_said(list(scopes), meant, "on_rotate")) or [ROTATED])
    return own if own and _rank(own) <= _rank(said) else said


def may_restart(scopes: Iterable[Scope], own: Reaction | None) -> bool:
    """Tell whether a rotation of anything that ``scopes`` give may have a process started anew that says its ``own``."""
    said = [each for scope in scopes for each in (scope.on_rotate, *(key.on_rotate for key in scope.keys))]
    return any(each is not None and each.does == "restart" for each in (own, *said))


def at_revocation(scopes: Iterable[Scope], held: Iterable[Binding], paths: Collection[str] | None = None) -> Reaction:
    """Return the strongest of what ``scopes`` say about those of the ``held`` bindings whose path is revoked, or about all.

    Return ``terminate`` where no scope is left to say anything, and where nothing is known of what is meant.
    """
    meant = [each for each in held if paths is None or any(read.path in paths for read in each.references)]
    said = list(_said(list(scopes), meant, "on_revoke"))
    return strongest(said) if said else TERMINATE


def reactions(scope: Scope) -> list[dict[str, str]]:
    """Return what a scope says (without a ``name``), and each variable of it that says its own, as ``plan`` shows it."""
    own = [(key.name, key.on_rotate or scope.on_rotate, key.on_revoke or scope.on_revoke) for key in scope.keys]
    return [
        {"scope": scope.name, "name": name, "on_rotate": str(rotate), "on_revoke": str(revoke)}
        for name, rotate, revoke in [("", scope.on_rotate, scope.on_revoke), *own]
    ]


def strongest(reactions: Iterable[Reaction]) -> Reaction:
    """Return the strongest of several, of two signals the one that is first in the alphabet; ``none`` for none at all."""
    return min(reactions, key=lambda each: (_rank(each), each.signal), default=NOTHING)


def _rank(reaction: Reaction) -> int:
    return STRONGEST_FIRST.index(reaction.does)


def writes_files(reaction: Reaction) -> bool:
    """Tell whether files are rendered anew."""
    return reaction.does != "none"


def tells_consumers(reaction: Reaction) -> bool:
    """Tell whether who is to be told of changed files (``notify``) is told."""
    return reaction.does not in ("rewrite", "none")


def step(reaction: Reaction, holder: Holder) -> Step:
    """Return what is to be done with one that holds values in its environment, or as credentials of systemd's."""
    if reaction.does == "restart":
        return {"supervised": "restart", "unit": "restart_unit", "process": "cannot_restart"}[holder]  # type: ignore[return-value]
    if reaction.does in ("signal", "terminate"):
        return reaction.does
    return "leave"


def _said(scopes: list[Scope], meant: Iterable[Binding], when: Literal["on_rotate", "on_revoke"]) -> Iterator[Reaction]:
    """Yield what each scope says about each binding that is its own, or nobody's."""
    for binding in meant:
        owners = [scope for scope in scopes if _binds(scope, binding)] or scopes
        for scope in owners:
            yield from _of_names(scope, binding, when)


def _binds(scope: Scope, binding: Binding) -> bool:
    """Tell whether a scope binds the same variable to the same secret."""
    return any((each.name, each.reference) == (binding.name, binding.reference) for each in scope.bindings)


def _of_names(scope: Scope, binding: Binding, when: Literal["on_rotate", "on_revoke"]) -> Iterator[Reaction]:
    """Yield what a scope says about the variables of a binding; those of a whole secret are all that no other binding has."""
    named = {each.name for each in scope.bindings if each.name is not None}
    keys = [key for key in scope.keys if (key.name not in named if binding.name is None else key.name == binding.name)]
    said = [reaction for key in keys if (reaction := getattr(key, when)) is not None]
    yield from said
    if binding.name is None or not said:
        yield getattr(scope, when)
