"""The certificate that central serves with: read again when its files change, and kept where the new one cannot be used."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
from cryptography import x509
from watchfiles import awatch

from prism_vault_agent.central.config import check_ours
from prism_vault_agent.errors import ConfigError

if TYPE_CHECKING:
    from prism_vault_agent.central.config import CentralConfig

SETTLE_MS: Final = 100
OTHERS: Final = 0o077


class ServerCertificate:
    """A certificate and its key in two files, and the context for a listening socket, whose new connections get the newest.

    A connection that is open keeps the certificate with which it began. With ``[mtls]``, a client is asked for one of its own,
    which it may not have; one that does not verify ends the handshake.
    """

    def __init__(self, config: CentralConfig) -> None:
        """Read the files that ``config`` names. Raises :class:`ConfigError` where they cannot be used."""
        self._cert = Path(config.tls_cert)
        self._key = Path(config.tls_key)
        self._clients = Path(config.mtls.ca_file) if config.mtls is not None else None
        self._log = structlog.get_logger("tls")
        self._content = self._read()
        self._ends = self._end()
        self.context = self._newest = self._load()
        # TLS has no other moment at which a connection can still be given another context; it comes without SNI too.
        self.context.sni_callback = self._give_newest

    def end(self) -> float:
        """Return when the certificate that is served ends, in seconds since 1970."""
        return self._ends.timestamp()

    def reload(self) -> None:
        """Use the files as they are now for new connections, where they hold a pair that can be used; log it either way."""
        try:
            content = self._read()
            if content == self._content:
                return
            ends, newest = self._end(), self._load()
        except ConfigError as error:
            self._log.error("certificate_refused", cause=error.message, mend=error.mend)
            return
        self._content, self._ends, self._newest = content, ends, newest
        self._log.info("certificate_applied", ends=ends.isoformat())

    async def watch(self) -> None:
        """Reload when a file beside one of ours changes (directories, since renewal replaces files)."""
        directories = {each.parent for each in (self._cert, self._key, self._clients) if each is not None}
        try:
            async for _ in awatch(*directories, step=SETTLE_MS, recursive=False, rust_timeout=1000):
                await asyncio.to_thread(self.reload)
        except OSError as error:  # the user's limit of watches (fs.inotify.max_user_watches) is used up
            self._log.error("certificate_unwatched", errno=error.errno, mend="a changed one is applied at SIGHUP only")

    def _give_newest(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest

    def _read(self) -> bytes:
        """Return what tells the files' content apart from another. Raises :class:`ConfigError`."""
        try:
            check_ours(self._key, self._key.stat(), forbidden=OTHERS)
            content = [self._cert.read_bytes(), self._key.read_bytes()]
            if self._clients is not None:
                check_ours(self._clients, self._clients.stat())
                content.append(self._clients.read_bytes())
            return hashlib.sha256(b"\0".join(content)).digest()
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be read: {error.strerror}") from None

    def _end(self) -> datetime:
        """Return when the certificate ends. Raises :class:`ConfigError` where it is none, or has ended."""
        try:
            ends = x509.load_pem_x509_certificate(self._cert.read_bytes()).not_valid_after_utc
        except (OSError, ValueError):
            raise ConfigError(f"tls_cert {self._cert} is not a certificate in PEM") from None
        if ends <= datetime.now(UTC):
            raise ConfigError(f"the certificate {self._cert} has ended at {ends.isoformat()}", mend="renew it")
        return ends

    def _load(self) -> ssl.SSLContext:
        """Return a context of the pair. Raises :class:`ConfigError` where the key is not the certificate's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._cert, self._key)
        except (OSError, ssl.SSLError) as error:
            told = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigError(f"tls_cert and tls_key cannot be used together: {told}") from None
        if self._clients is not None:
            _ask_for_certificates(context, self._clients)
        return context


def _ask_for_certificates(context: ssl.SSLContext, authorities: Path) -> None:
    """Verify clients' certificates by ``authorities`` only. Raises :class:`ConfigError` where there are none in the file."""
    context.verify_mode = ssl.CERT_OPTIONAL
    # A resumed session would bring a certificate along without its being verified again; only TLS 1.3 can be told to have none.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    try:
        context.load_verify_locations(cafile=authorities)
    except (OSError, ssl.SSLError):
        raise ConfigError(f"[mtls] ca_file {authorities} is not certificates in PEM") from None
