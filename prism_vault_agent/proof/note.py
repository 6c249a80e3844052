"""Signed notes, and the checkpoints of a log, as C2SP defines them (https://c2sp.org/signed-note, /tlog-checkpoint). Pure.

A note is a text, an empty line, and signature lines. A checkpoint is a note whose text says how large the log is and what
the root of its tree is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.proof.keys import VerifyingKey, from_base64, is_name, is_utf8, to_base64
from prism_vault_agent.proof.merkle import WIDTH

# Room for the 16 signatures that every verifier must accept, at the 5 kB that the longest kind takes.
LARGEST_NOTE: Final = 128 * 1024
_MARK: Final = "\N{EM DASH} "
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_MEND: Final = "keep it as evidence, and compare the key with the one that central's operator gives"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How large a log is and the root of its tree, 32 bytes. ``extension`` lines of other logs are kept; ours has none."""

    origin: str
    size: int
    root: bytes
    extension: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the text that is signed."""
        return "".join(f"{line}\n" for line in (self.origin, self.size, to_base64(self.root), *self.extension))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what the text of a note says. Raises ``IntegrityError`` unless it is exactly what :meth:`text` writes."""
        lines = text.split("\n")
        if len(lines) >= 4 and all(lines[:-1]) and not lines[-1] and _SIZE.fullmatch(lines[1]):
            found = cls(lines[0], int(lines[1]), from_base64(lines[2]), tuple(lines[3:-1]))
            if len(found.root) == WIDTH:
                return found
        raise _malformed("its text is not a checkpoint's")


def seal(text: str, key: VerifyingKey, signature: bytes) -> str:
    """Return ``text``, which ends with a newline, as a note with this signature. Further lines may be appended to it."""
    return f"{text}\n{_MARK}{key.name} {to_base64(key.key_hash + signature)}\n"


def open_note(note: str, *keys: VerifyingKey) -> str:
    """Return the text of a note that at least one of ``keys`` signed.

    Signatures by other keys are ignored. Raises ``IntegrityError`` where one by these keys does not verify, where there is
    none, and for what is not a note at all.
    """
    if len(note) > LARGEST_NOTE:
        raise _malformed(f"it has more than {LARGEST_NOTE} characters")
    if _CONTROL.search(note) or not is_utf8(note):
        raise _malformed("it is not plain text")
    head, blank, tail = note.rpartition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise _malformed("no signature follows an empty line")
    text = f"{head}\n"
    known = {(key.name, key.key_hash): key for key in keys}
    signed = False
    for name, key_hash, signature in map(_signature, tail[:-1].split("\n")):
        if key := known.get((name, key_hash)):
            if not key.verifies(text.encode(), signature):
                raise IntegrityError(f"the signature of {name}+{key_hash.hex()} on a note does not verify", mend=_MEND)
            signed = True
    if not signed:
        wanted = " or ".join(f"{key.name}+{key.key_hash.hex()}" for key in keys)
        raise IntegrityError(f"a note is not signed by {wanted}", mend=_MEND)
    return text


def open_checkpoint(note: str, origin: str, *keys: VerifyingKey) -> Checkpoint:
    """Return a checkpoint of the log ``origin``, signed with at least one of ``keys``.

    Raises ``IntegrityError`` as :func:`open_note` and :meth:`Checkpoint.parse` do, and for a checkpoint of another log.
    """
    checkpoint = Checkpoint.parse(open_note(note, *keys))
    if checkpoint.origin != origin:
        raise IntegrityError(f"a checkpoint is not of the log {origin}", mend=_MEND)
    return checkpoint


def _signature(line: str) -> tuple[str, bytes, bytes]:
    """Return name, key hash and signature that a line holds."""
    name, _, encoded = line.removeprefix(_MARK).partition(" ")
    decoded = from_base64(encoded)
    if not line.startswith(_MARK) or not is_name(name) or len(decoded) < 5:
        raise _malformed("a line after the empty one is not a signature")
    return name, decoded[:4], decoded[4:]


def _malformed(why: str) -> IntegrityError:
    return IntegrityError(f"a note is malformed: {why}", mend=_MEND)
