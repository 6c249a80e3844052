"""The key with which central signs: in a file, in a credential of systemd's, in OpenBao's transit, or made beside a database."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prism_vault_agent.central.config import check_ours
from prism_vault_agent.central.transit import TransitSigner
from prism_vault_agent.errors import CannotCreate, ConfigError
from prism_vault_agent.proof.keys import SigningKey

if TYPE_CHECKING:
    from prism_vault_agent.central.config import CentralConfig
    from prism_vault_agent.proof.keys import Signer

BESIDE_DATABASE: Final = "signing.key"
MEND: Final = "make one: prism-vault central keygen FILE"
PRIVATE: Final = 0o077
# systemd lets the unit's user read its credentials by an ACL, whose mask shows as the group's bits; it may only be to read.
CREDENTIAL: Final = 0o037


def signer(config: CentralConfig, origin: str | None) -> Signer:
    """Return what signs the log whose checkpoints so far are of ``origin``, or None before the first one.

    Raises ``ConfigError`` where the key cannot be used or has another name, and ``ProviderUnavailable`` where it is away.
    """
    key = _signer(config, origin)
    name = key.verifying_key.name
    if origin not in (None, name):
        raise ConfigError(
            f"the log's checkpoints are of the origin {origin}, and the key's name is {name}",
            mend="a log keeps its origin: give it a key of that name",
        )
    return key


def _signer(config: CentralConfig, origin: str | None) -> Signer:
    log = config.log
    if log.credential:
        return read_key(_credentials() / log.credential, forbidden=CREDENTIAL)
    if log.transit:
        return TransitSigner(log.transit)
    if log.key_file:
        return read_key(Path(log.key_file))
    path = Path(config.database).with_name(BESIDE_DATABASE)
    if not path.exists():
        if origin is not None:
            raise ConfigError(
                f"the key of the log {origin} is no longer in {path}",
                mend="bring it back, or make another of the same name with prism-vault central keygen and tell every agent",
            )
        write_key(path, SigningKey.generate(default_name()))
    return read_key(path)


def default_name() -> str:
    """Return a name for a key that nobody named: unlike any other log's."""
    return f"{socket.gethostname()}/prism-vault/{secrets.token_hex(4)}"


def read_key(path: Path, *, forbidden: int = PRIVATE) -> SigningKey:
    """Return the key in a file that only we or root can read. Raises :class:`ConfigError`."""
    try:
        with path.open() as file:
            check_ours(path, os.fstat(file.fileno()), forbidden=forbidden)
            return SigningKey.parse(file.read().strip())
    except OSError as error:
        raise ConfigError(f"the signing key {path} cannot be read: {error.strerror}", mend=MEND) from None
    except UnicodeDecodeError:
        raise ConfigError(f"the signing key {path} is not text", mend=MEND) from None


def write_key(path: Path, key: SigningKey) -> None:
    """Write a key to a new file, mode 0600. Raises :class:`CannotCreate` where there is one, or it cannot be written."""
    new = False
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        new = True
        with os.fdopen(descriptor, "w") as file:
            file.write(key.private_text() + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)
    except OSError as error:
        if new:
            path.unlink(missing_ok=True)
        raise CannotCreate(f"the signing key {path} cannot be written: {error.strerror}") from None


def sync_directory(path: Path) -> None:
    """Make durable which files are in a directory. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _credentials() -> Path:
    """Return where systemd has put the unit's credentials."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not directory:
        raise ConfigError("there is no $CREDENTIALS_DIRECTORY", mend="give the unit LoadCredential=, and start central by it")
    return Path(directory)
