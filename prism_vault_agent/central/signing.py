"""The key with which central signs: from a file of the operator's, or made beside a database file at the first start."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prism_vault_agent.central.config import check_ours
from prism_vault_agent.errors import CannotCreate, ConfigError
from prism_vault_agent.proof.keys import SigningKey

if TYPE_CHECKING:
    from prism_vault_agent.central.config import CentralConfig
    from prism_vault_agent.proof.keys import Signer

BESIDE_DATABASE: Final = "signing.key"
MEND: Final = "make one: prism-vault central keygen"


def signer(config: CentralConfig) -> Signer:
    """Return what signs this log's checkpoints. Raises :class:`ConfigError` where the key cannot be used."""
    if config.log.key_file:
        return read_key(Path(config.log.key_file))
    path = Path(config.database).with_name(BESIDE_DATABASE)
    if not path.exists():
        write_key(path, SigningKey.generate(f"{socket.gethostname()}/prism-vault/{secrets.token_hex(4)}"))
    return read_key(path)


def read_key(path: Path) -> SigningKey:
    """Return the key in a file that only we or root can read. Raises :class:`ConfigError`."""
    try:
        with path.open() as file:
            check_ours(path, os.fstat(file.fileno()), forbidden=0o077)
            return SigningKey.parse(file.read().strip())
    except OSError as error:
        raise ConfigError(f"the signing key {path} cannot be read: {error.strerror}", mend=MEND) from None
    except UnicodeDecodeError:
        raise ConfigError(f"the signing key {path} is not text", mend=MEND) from None


def write_key(path: Path, key: SigningKey) -> None:
    """Write a key to a new file, mode 0600. Raises :class:`CannotCreate` where there is one, or it cannot be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key.private_text() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CannotCreate(f"the signing key {path} cannot be written: {error.strerror}") from None
