"""What a key of transit is to decrypt for a release: a noun of the core, without I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from prism_vault_agent.scope import SecretReference

if TYPE_CHECKING:
    from collections.abc import Mapping

# What transit/encrypt answers; the number is the version of the key.
CIPHERTEXT: Final = re.compile(r"vault:v([1-9][0-9]{0,8}):[!-~]+")


@dataclass(frozen=True, slots=True)
class Ciphertext:
    """One value, by the key that references name it by: its ciphertext, as ``text`` or kept at ``source``, which is one of both.

    ``context`` (of a derived key) and ``associated_data`` are base64, as the engine wants them; empty for none.
    """

    key: str
    text: str
    source: SecretReference | None
    context: str
    associated_data: str


@dataclass(frozen=True, slots=True)
class Decryption:
    """The values that one key of transit decrypts for a scope, in one request."""

    ciphertexts: tuple[Ciphertext, ...]
    kind: Literal["decryption"] = "decryption"

    @property
    def leased(self) -> bool:
        """Whether it has an end of its own."""
        return False

    @property
    def sources(self) -> tuple[SecretReference, ...]:
        """Where the ciphertexts are kept that are not in the configuration."""
        return tuple(each.source for each in self.ciphertexts if each.source)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Decryption:
        """Return the one that ``dataclasses.asdict`` made ``plain`` of."""
        return cls(
            tuple(
                Ciphertext(**{**each, "source": SecretReference(**each["source"]) if each["source"] else None})
                for each in plain["ciphertexts"]
            )
        )
