"""Keys and certificates in OpenSSH's own formats: a pair made here, and what a certificate says. Pure but for the randomness.

PROTOCOL.key and PROTOCOL.certkeys of OpenSSH describe the formats, RFC 8709 the keys.
"""

from __future__ import annotations

import binascii
import os
from dataclasses import dataclass, field

from prism_vault_agent.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KEY_TYPE = b"ssh-ed25519"
CERTIFICATE_TYPE = b"ssh-ed25519-cert-v01@openssh.com"
CIPHER_BLOCK = 8
COLUMNS = 70


@dataclass(frozen=True, slots=True)
class Pair:
    """A key pair as text of OpenSSH: ``private`` is a file, never shown; ``public`` a line."""

    private: str = field(repr=False)
    public: str


@dataclass(frozen=True, slots=True)
class Says:
    """What a certificate says: the key and who signed it in base64, whom it names, and its end in seconds since 1970."""

    key: str
    host: bool
    principals: tuple[str, ...]
    ends: int
    authority: str


def pair(comment: str) -> Pair:
    """Make an Ed25519 key pair."""
    from nacl.bindings import crypto_sign_seed_keypair  # noqa: PLC0415 - 25 ms, for those who want a key

    public, secret = crypto_sign_seed_keypair(os.urandom(32))
    blob, check = _strings(KEY_TYPE, public), os.urandom(4)
    inner = check + check + blob + _strings(secret, comment.encode())
    inner += bytes(range(1, -len(inner) % CIPHER_BLOCK + 1))
    whole = b"openssh-key-v1\0" + _strings(b"none", b"none", b"") + _number(1) + _strings(blob, inner)
    text = _base64(whole)
    lines = [text[at : at + COLUMNS] for at in range(0, len(text), COLUMNS)]
    private = "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----", ""])
    return Pair(private, f"{KEY_TYPE.decode()} {_base64(blob)} {comment}\n")


def says(certificate: str) -> Says:
    """Return what a certificate of an Ed25519 key says. Raises :class:`ProtocolError` for anything else; it shows none of it."""
    try:
        kind, text = certificate.split()[:2]
        parts = _Parts(binascii.a2b_base64(text, strict_mode=True))
        if kind.encode() != CERTIFICATE_TYPE or parts.string() != CERTIFICATE_TYPE:
            raise ValueError("another type")
        parts.string()  # nonce
        key = parts.string()
        parts.number(8)  # serial number
        who, _, principals = parts.number(4), parts.string(), _Parts(parts.string())
        _, ends, _, _, _, authority = parts.number(8), parts.number(8), *(parts.string() for _ in range(4))
        parts.string()  # signature
        if who not in (1, 2) or len(key) != 32 or parts.left:
            raise ValueError("not a certificate")
        named = tuple(each.decode() for each in principals.strings())
    except ValueError:
        raise ProtocolError("the answer's field signed_key is not a certificate of our key", reason="malformed_answer") from None
    return Says(_base64(_strings(KEY_TYPE, key)), who == 2, named, ends, _base64(authority))


class _Parts:
    """What stands in bytes, part by part. Raises ``ValueError`` where they end before that."""

    def __init__(self, left: bytes) -> None:
        self.left = left

    def number(self, size: int) -> int:
        return int.from_bytes(self._take(size))

    def string(self) -> bytes:
        return self._take(self.number(4))

    def strings(self) -> Iterator[bytes]:
        while self.left:
            yield self.string()

    def _take(self, size: int) -> bytes:
        found, self.left = self.left[:size], self.left[size:]
        if len(found) != size:
            raise ValueError("cut short")
        return found


def _strings(*parts: bytes) -> bytes:
    return b"".join(_number(len(part)) + part for part in parts)


def _number(value: int) -> bytes:
    return value.to_bytes(4)


def _base64(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode()
