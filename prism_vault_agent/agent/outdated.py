"""What of a release is no longer the newest, and what is to be done about that: the same for runs and for rendered files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_vault_agent.policy.reactions import at_revocation, at_rotation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from prism_vault_agent.model import Render
    from prism_vault_agent.scope import Reaction, Scope, ScopeName

# By path: what is newer, as a version in decimal digits, or as a word where another one has to be made.
Marks = dict[str, str]


def unpinned(render: Render) -> Iterator[tuple[str, int]]:
    """Yield the paths and versions that a release has of references that do not name theirs."""
    bindings = render.reservation.grant.bindings
    paths = {each.path for binding in bindings for each in binding.references if each.version is None}
    yield from ((lease.path, lease.version) for lease in render.leases if lease.path in paths and lease.version)


def newer(render: Render, newest: Mapping[str, int]) -> Marks:
    """Return what of a release has a newer version."""
    return {path: str(newest[path]) for path, version in unpinned(render) if newest.get(path, 0) > version}


def still(render: Render, marks: Iterable[tuple[str, str]]) -> Marks:
    """Return which of these ``marks``, made while it was under way, mean a release that may not be the newest for that."""
    versions = {lease.path: lease.version or 0 for lease in render.leases}
    return {path: mark for path, mark in marks if path in versions and not (mark.isdigit() and int(mark) <= versions[path])}


def leased(render: Render, word: str) -> Marks:
    """Return all that is leased for a release, of which another one is due for this reason."""
    return {lease.path: word for lease in render.leases if lease.version is None and lease.seconds}


def unversioned(render: Render, word: str) -> Marks:
    """Return all of a release of which nobody can tell whether there is a newer one: it is read anew for this reason."""
    return {lease.path: word for lease in render.leases if lease.version is None}


def paths(render: Render) -> set[str]:
    """Return the paths of all that a release has."""
    return {lease.path for lease in render.leases}


def reaction(scopes: Mapping[ScopeName, Scope], render: Render, changed: Collection[str]) -> Reaction:
    """Return what is to be done about paths that have changed, as ``scopes`` say now and the run itself said."""
    grant = render.reservation.grant
    return at_rotation(_present(scopes, render), grant.bindings, changed, grant.request.on_rotate)


def revocation(scopes: Mapping[ScopeName, Scope], render: Render, paths: Collection[str] | None) -> Reaction:
    """Return what is to be done with who holds it when these paths are taken back, or all of it, as ``scopes`` say now."""
    return at_revocation(_present(scopes, render), render.reservation.grant.bindings, paths)


def _present(scopes: Mapping[ScopeName, Scope], render: Render) -> list[Scope]:
    return [scopes[scope.name] for scope in render.reservation.grant.scopes if scope.name in scopes]
