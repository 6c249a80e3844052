"""Ed25519 keys with a name, which sign and verify (RFC 8032; https://c2sp.org/signed-note). Pure.

As text they are those of Go's ``golang.org/x/mod/sumdb/note``: ``name+hash+base64`` for the public one,
``PRIVATE+KEY+name+hash+base64`` for the private one. ``hash`` is the key's own in 8 hex digits, so that a key cut short or
under another's name is noticed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Protocol, Self

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair, randombytes
from nacl.exceptions import BadSignatureError

from prism_vault_agent.errors import ConfigError

SIGNATURE_BYTES: Final = 64
_ED25519: Final = b"\x01"
_PRIVATE: Final = "PRIVATE+KEY+"
_NOT_IN_NAMES: Final = re.compile(r"[\s+\x00-\x1f]")


class Signer(Protocol):
    """What signs for central: a key at hand, or a service that holds one and signs many texts in one request."""

    @property
    def verifying_key(self) -> VerifyingKey:
        """The public key, under the name with which it signs."""

    @property
    def at_hand(self) -> bool:
        """Whether signing takes microseconds and waits for nobody."""

    def sign_many(self, texts: Sequence[bytes]) -> list[bytes]:
        """Return the signature of each text, 64 bytes."""

    def close(self) -> None:
        """Close what it holds open. It signs no more."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key of 32 bytes and the name with which its owner signs. Raises ``ConfigError`` for what cannot be one."""

    name: str
    public: bytes
    key_hash: bytes = field(init=False)

    def __post_init__(self) -> None:
        if not is_name(self.name) or len(self.public) != 32:
            raise ConfigError("a key has a name without spaces and '+', and 32 bytes", mend="name it as central's origin")
        hashed = sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()
        object.__setattr__(self, "key_hash", hashed[:4])

    def __str__(self) -> str:
        return f"{self.name}+{self.key_hash.hex()}+{to_base64(_ED25519 + self.public)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that ``str()`` wrote. Raises ``ConfigError`` for anything else."""
        name, public = _parts(text)
        key = cls(name, public) if is_name(name) and public else None
        if key is None or str(key) != text:
            raise ConfigError("the verifying key is not a whole name+hash+base64", mend="copy it again, from central's operator")
        return key

    def verifies(self, text: bytes, signature: bytes) -> bool:
        """Tell whether this key signed exactly ``text``."""
        if len(signature) != SIGNATURE_BYTES:
            return False
        try:
            crypto_sign_open(signature + text, self.public)
        except BadSignatureError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key that this process holds. It is written by :meth:`private_text` and nowhere else."""

    verifying_key: VerifyingKey
    _secret: bytes = field(repr=False)

    @classmethod
    def from_seed(cls, name: str, seed: bytes) -> Self:
        """Return the key that is made of 32 random bytes (RFC 8032, section 5.1.5)."""
        public, secret = crypto_sign_seed_keypair(seed)
        return cls(VerifyingKey(name, public), secret)

    @classmethod
    def generate(cls, name: str) -> Self:
        """Return a new key."""
        return cls.from_seed(name, randombytes(32))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that :meth:`private_text` wrote. Raises ``ConfigError`` for anything else, which it does not repeat."""
        name, seed = _parts(text.removeprefix(_PRIVATE))
        key = cls.from_seed(name, seed) if is_name(name) and seed else None
        if key is None or key.private_text() != text:
            raise ConfigError(
                f"the signing key is not a whole {_PRIVATE}name+hash+base64",
                mend="give the file that prism-vault central keygen wrote",
            )
        return key

    def private_text(self) -> str:
        """Return the private key as text, for a file that only its owner may read."""
        key = self.verifying_key
        return f"{_PRIVATE}{key.name}+{key.key_hash.hex()}+{to_base64(_ED25519 + self._secret[:32])}"

    @property
    def at_hand(self) -> bool:
        """True: the key is in this process."""
        return True

    def sign(self, text: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return crypto_sign(text, self._secret)[:SIGNATURE_BYTES]

    def sign_many(self, texts: Sequence[bytes]) -> list[bytes]:
        """Return the signature of each text, 64 bytes."""
        return [self.sign(text) for text in texts]

    def close(self) -> None:
        """Do nothing: a key at hand holds nothing open."""


def is_name(name: str) -> bool:
    """Tell whether a key may have this name: not empty, no space, no ``+``, no control character."""
    return bool(name) and not _NOT_IN_NAMES.search(name) and is_utf8(name)


def is_utf8(text: str) -> bool:
    """Tell whether ``text`` can be written at all: JSON can bring in half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def to_base64(data: bytes) -> str:
    """Return the bytes as RFC 4648, section 4 spells them."""
    return base64.b64encode(data).decode()


def from_base64(text: str) -> bytes:
    """Return the bytes that :func:`to_base64` spelled; no bytes at all for anything else."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return decoded if to_base64(decoded) == text else b""


def _parts(text: str) -> tuple[str, bytes]:
    """Return the name and the 32 bytes that a key's text holds, or no bytes; the caller compares the text as a whole."""
    name, _, encoded = text.partition("+")
    decoded = from_base64(encoded.partition("+")[2])
    return name, decoded[1:] if len(decoded) == 33 and decoded[:1] == _ED25519 else b""
