"""What an SSH certificate is to be that an engine signs for a release: a noun of the core, without I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prism_vault_agent.scope import SecretReference

# A public key as sshd(8) has it in its files: type and base64 of the key; what stands behind is a comment.
PUBLIC_KEY: Final = re.compile(
    r"(?:ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp(?:256|384|521)) ([A-Za-z0-9+/]{40,4000}={0,2})(?: [ -~]*)?"
)


@dataclass(frozen=True, slots=True)
class SshCertificate:
    """Who it names (``principals``), for what, and for how many seconds it lives at most.

    ``options`` and ``extensions`` are names with values (None: those that the engine's role adds by itself). ``authorities`` are
    the keys in base64 of which one has to sign it; none for whichever the engine has.
    """

    principals: tuple[str, ...]
    cert_type: Literal["user", "host"]
    options: tuple[tuple[str, str], ...]
    extensions: tuple[tuple[str, str], ...] | None
    authorities: tuple[str, ...]
    seconds: int
    kind: Literal["ssh_certificate"] = "ssh_certificate"

    @property
    def leased(self) -> bool:
        """Whether it has an end of its own."""
        return True

    @property
    def sources(self) -> tuple[SecretReference, ...]:
        """What else is read for it."""
        return ()

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> SshCertificate:
        """Return the one that ``dataclasses.asdict`` made ``plain`` of."""
        lists = {key: tuple(plain[key]) for key in ("principals", "authorities")}
        options, extensions = _pairs(plain["options"]), None if plain["extensions"] is None else _pairs(plain["extensions"])
        return cls(**{**plain, **lists, "options": options, "extensions": extensions})


def _pairs(plain: Iterable[Iterable[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in plain)
