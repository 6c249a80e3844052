"""Central's log over HTTP, as far as it goes when it is asked for: for whoever copies or verifies it from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_vault_agent.central.verification.export import look_at_plain, sealed
from prism_vault_agent.cli.audit_proof import ask_for_proof
from prism_vault_agent.cli.central_client import PAGE
from prism_vault_agent.errors import AuditUnavailable, Denied, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prism_vault_agent.central.verification.tree import Sealed
    from prism_vault_agent.cli.central_client import CentralClient
    from prism_vault_agent.cli.show import Json


class CentralLog:
    """The rows of a checkpoint that is about every event that there is, and that checkpoint."""

    look = staticmethod(look_at_plain)

    def __init__(self, central: CentralClient) -> None:
        """Wait for that. Raises ``Denied`` for a token that does not see all, and what asking raises."""
        self._central = central
        if not central.log(limit=1)[2].get("all_projects"):
            raise Denied("only an operator of all projects sees the whole log", mend="use a token whose projects are *")
        newest = central.ask("GET", "/v1/audit/events", last=1)["events"]
        if not newest:
            raise AuditUnavailable("there is no event on the log yet", mend="try again once there is one")
        answer = ask_for_proof(central, newest[0]["n"])
        if answer is None:
            raise AuditUnavailable(f"central makes no checkpoint about event {newest[0]['n']}", mend="see central's log")
        try:
            self.size, self.note = int(answer["size"]), str(answer["note"])
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("central's answer is not a checkpoint", mend="is central of this version?") from None

    def expected(self) -> int:
        """Return how many rows there are."""
        return self.size

    def parts(self) -> Iterator[list[Json]]:
        """Yield the rows."""
        first = 0
        while first < self.size:
            rows, after, _ = self._central.log(from_=first, limit=min(PAGE, self.size - first))
            if rows := [row for row in rows if not isinstance(row.get("index"), int) or row["index"] < self.size]:
                yield rows
            if after <= first:
                return  # the log has fewer leaves than its checkpoint says: whoever counts them tells
            first = after

    def checkpoints(self) -> Iterator[Sealed]:
        """Yield nothing: the one checkpoint is that of all rows."""
        return iter(())

    def nodes(self) -> Mapping[int, Iterator[tuple[int, bytes]]]:
        """Return nothing: stored nodes are not shown."""
        return {}

    def unguarded(self) -> list[str]:
        """Return nothing: central's guards are not seen from here."""
        return []

    def seal(self) -> Sealed:
        """Return the checkpoint."""
        return sealed(self.size, self.note, "central's answer")
