"""What a certificate is to be that an engine issues for a release: a noun of the core, without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prism_vault_agent.scope import SecretReference


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate is to be that is issued for a release: its names, and for how many seconds it lives at most."""

    common_name: str
    dns: tuple[str, ...]
    uris: tuple[str, ...]
    ips: tuple[str, ...]
    seconds: int
    kind: Literal["certificate"] = "certificate"

    @property
    def leased(self) -> bool:
        """Whether it has an end of its own."""
        return True

    @property
    def sources(self) -> tuple[SecretReference, ...]:
        """What else is read for it."""
        return ()

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Certificate:
        """Return the one that ``dataclasses.asdict`` made ``plain`` of."""
        names = {key: tuple(plain[key]) for key in ("dns", "uris", "ips")}
        return cls(**{**plain, **names})
