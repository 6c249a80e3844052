"""What the front answers to ``POST /v1/render`` and ``POST /v1/clear``: which files there are now, and which are gone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prism_vault_agent.errors import Denied, UsageError

if TYPE_CHECKING:
    from prism_vault_agent.agent.files.files import Files
    from prism_vault_agent.agent.files.renders import FileRenders
    from prism_vault_agent.agent.status import Status
    from prism_vault_agent.model import Caller, Grant, Lease, Request
    from prism_vault_agent.scope import ScopeName


@dataclass(slots=True)
class FileRequests:
    """The two requests about files, on these parts."""

    files: Files
    renders: FileRenders
    status: Status

    async def render(self, caller: Caller, request: Request) -> dict[str, Any]:
        """Render each scope that is asked for, in turn: what was rendered before one that fails stays.

        Each is a decision, a reservation and a generation of its own. Raises as a render does.
        """
        if not request.scopes:
            raise UsageError("no scope was asked for", mend="name one")
        told = []
        for name in dict.fromkeys(request.scopes):
            rendered = await self.renders.render(caller, replace(request, scopes=(name,)))
            told.append({**rendered.describe(), "directory": f"{self.files.place().path}/{name}"})
        return {"rendered": told}

    async def differences(self, grant: Grant) -> list[dict[str, Any]]:
        """Return, for each scope of a grant that has files, which version of each path is rendered and which is the newest.

        Asked by metadata alone: no value is read. ``newest`` is None where that cannot be told.
        """
        paths = {each.path: each.version for binding in grant.bindings for each in binding.references}
        newest = await self.renders.newest(paths)
        told = []
        for scope in grant.scopes:
            found = self.files.of_scopes([scope.name])
            held = {lease.path: lease.version or _leased(lease) for each in found for lease in each.render.leases}
            mine = {each.path for binding in scope.bindings for each in binding.references}
            told += [
                {"scope": scope.name, "path": path, "rendered": held.get(path), "newest": paths.get(path) or newest.get(path)}
                for path in sorted(mine | held.keys())
                if scope.files or found
            ]
        return told

    def clear(self, asker: int, names: tuple[ScopeName, ...] | None) -> dict[str, Any]:
        """Clear what is rendered of these scopes, or all that user ``asker`` may; it is done when this returns.

        Who had it rendered may, and root and the agent's user. Raises ``Denied`` for what is another user's.
        """
        found = list(self.files) if names is None else self.files.of_scopes(dict.fromkeys(names))
        mine = [each for each in found if self.status.may_revoke(asker, each.render.reservation.grant.caller.uid)]
        if names is not None and len(mine) < len(found):
            theirs = next(each for each in found if each not in mine)
            raise Denied(
                "it was rendered for another user",
                mend="ask root or the agent's user to clear it",
                reason="not_your_files",
                scope=theirs.scope.name,
            )
        if self.status.may_revoke(asker, -1):
            if names is None:
                self.files.under_way.void_all()
            for name in names or ():
                self.files.under_way.void(name)
        return self.files.clear_each(mine, "cleared")


def _leased(lease: Lease) -> str | None:
    """Return what stands for the version of what has none."""
    return "leased" if lease.seconds else None
