"""What the log can be asked: the query of ``GET /v1/audit/events``, checked."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MOST_ROWS: Final = 1_000

_Index = Annotated[int, Field(ge=0, lt=2**63)]
_Count = Annotated[int, Field(ge=1, le=MOST_ROWS)]
# Operators know a reservation by its audit id, which is the reservation's with a prefix.
_Reservation = Annotated[str, Field(pattern="^(pva_)?[0-9a-f]{32}$"), AfterValidator(lambda text: text.removeprefix("pva_"))]


class Question(BaseModel):
    """Which events: those after index ``after``, or with ``last`` the newest ones; all of the filters that are given must match.

    Times are milliseconds since 1970, by central's clock.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    after: _Index = 0
    limit: _Count = 100
    last: _Count | None = None
    scope: str | None = None
    host: str | None = None
    run_ref: str | None = None
    job_id: str | None = None
    purpose: str | None = None
    kind: str | None = None
    outcome: Literal["success", "failure", "denied", "abandoned"] | None = None
    reservation: _Reservation | None = None
    since: _Index | None = None
    until: _Index | None = None


FILTERS: Final = tuple(name for name in Question.model_fields if name not in ("after", "limit", "last"))
