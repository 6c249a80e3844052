"""The TLS context for the provider: verification is always on, and nothing is taken from the environment."""

from __future__ import annotations

import os
import ssl

from prism_vault_agent.errors import ConfigError
from prism_vault_agent.vault import credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prism_vault_agent.config.settings import TlsFiles


def tls_context(address: str, tls: TlsFiles) -> ssl.SSLContext | None:
    """Return the context for an ``https`` address, to be built once and shared across forks; None for plain http.

    TLS 1.2 at least, host names checked, and the authorities of ``tls.ca_file`` only, where it is set.
    Raises :class:`ConfigError` for a file that is missing, unsafe or not what it should be.
    """
    if not address.lower().startswith("https:"):
        return None
    # Not ssl.create_default_context: it obeys SSLKEYLOGFILE, SSL_CERT_FILE and SSL_CERT_DIR of whoever started us.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _trust(context, tls.ca_file)
    if tls.cert_file:
        identify(context, tls)
    return context


def _trust(context: ssl.SSLContext, ca_file: str) -> None:
    try:
        if ca_file:
            context.load_verify_locations(cafile=ca_file)
            return
        system = ssl.get_default_verify_paths()
        if os.path.isfile(system.openssl_cafile):
            context.load_verify_locations(cafile=system.openssl_cafile)
        if os.path.isdir(system.openssl_capath):
            context.load_verify_locations(capath=system.openssl_capath)
    except OSError as error:
        raise ConfigError(
            f"cannot use {ca_file or 'the certificate authorities of the system'}: {_why(error)}",
            mend="ca_file must name a PEM file of certificate authorities",
        ) from None


def identify(context: ssl.SSLContext, tls: TlsFiles) -> None:
    """Show the certificate of ``tls``. Raises :class:`ConfigError` for a file that is missing, unsafe or not what it must be."""
    key_file = tls.key_file or tls.cert_file
    try:
        with open(key_file, "rb") as file:
            credentials.check(file.fileno(), key_file)
        context.load_cert_chain(tls.cert_file, key_file, password=_no_password)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot use {tls.cert_file} with the key {key_file}: {_why(error)}",
            mend="cert_file and key_file must name a PEM certificate and its unencrypted key",
        ) from None


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    if isinstance(error, OSError):
        return os.strerror(error.errno or 0)
    return str(error)
