"""Central's promise that it has rows and will have them in the tree: one signature for all rows of one answer. Pure.

The text that is signed, each line ended by a newline::

    prism-vault receipt v1
    <origin>
    <time of the promise, milliseconds since 1970 UTC>
    <n> <hash of its leaf, 64 hex digits>       one line for each row

Its first line has spaces, so it is never the origin of a checkpoint: a signature on one cannot be shown as one on the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.proof.keys import VerifyingKey

TITLE: Final = "prism-vault receipt v1"


def receipt_text(origin: str, at_ms: int, leaves: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the text that central signs for these rows: the number and the leaf's hash of each."""
    lines = [TITLE, origin, str(at_ms), *(f"{n} {leaf.hex()}" for n, leaf in leaves)]
    return "".join(f"{line}\n" for line in lines).encode()


def check_receipt(key: VerifyingKey, signature: bytes, origin: str, at_ms: int, leaves: Iterable[tuple[int, bytes]]) -> None:
    """Raise ``IntegrityError`` unless ``signature`` is that of ``key`` on the receipt for exactly these rows."""
    if not key.verifies(receipt_text(origin, at_ms, leaves), signature):
        raise IntegrityError(
            f"central's receipt does not verify with {key.name}+{key.key_hash.hex()}",
            mend="compare the key with the one that central's operator gives",
        )
