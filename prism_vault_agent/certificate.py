"""What a certificate is to be that an engine issues for a release: a noun of the core, without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate is to be that is issued for a release: its names, and for how many seconds it lives at most."""

    common_name: str
    dns: tuple[str, ...]
    uris: tuple[str, ...]
    ips: tuple[str, ...]
    seconds: int

    @classmethod
    def of(cls, plain: Mapping[str, Any] | None) -> Certificate | None:
        """Return the one that ``dataclasses.asdict`` made ``plain`` of; None for None."""
        if plain is None:
            return None
        names = {key: tuple(plain[key]) for key in ("dns", "uris", "ips")}
        return cls(**{**plain, **names})
