"""The shapes of single values: each function returns its text, or raises ``ValueError`` that says what is expected."""

from __future__ import annotations

import binascii
import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from prism_vault_agent.errors import ConfigError
from prism_vault_agent.notify.window import Window
from prism_vault_agent.scope import SecretReference
from prism_vault_agent.wanted.decryption import CIPHERTEXT

LONGEST_TEXT: Final = 4096
LONGEST_TIMEOUT: Final = 60.0
LONGEST_DURATION: Final = 3600.0
LONGEST_DNS: Final = 253
LONGEST_TTL: Final = 768 * 3600.0
OWNER: Final = 0o600
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_DURATION: Final = re.compile(r"([0-9]{1,7})(ms|s|m|h)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_MODE: Final = re.compile(r"0?[0246]{3}")
_FILE_MODE: Final = re.compile(r"0?[46][04]0")
_CONTAINER: Final = re.compile(r"[0-9a-f]{12,64}")
_CONTAINER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
# As systemd.unit(5) has it, without the kinds that can neither be reloaded nor restarted to any use.
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.(?:service|socket|target|mount|timer|path)")
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*://[!-+\--~]{1,2000}")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}")


def text(value: str) -> str:
    """Return text that is one printable line."""
    if not value or len(value) > LONGEST_TEXT or not value.isprintable() or value != value.strip():
        raise ValueError("must be one line of printable text; write it without control characters or spaces around it")
    return value


def namespace(value: str) -> str:
    """Return a namespace; empty is the root namespace."""
    return text(value) if value else value


def name(value: str) -> str:
    """Return the name of a scope, project, environment, purpose or host."""
    if not _NAME.fullmatch(value):
        raise ValueError("is not a name; use up to 100 letters, digits, '_', '.' and '-', a letter or digit first")
    return value


def path(value: str) -> str:
    """Return an absolute path."""
    if not text(value).startswith("/"):
        raise ValueError("is not an absolute path; write it from / on")
    return value


def pattern(value: str) -> str:
    """Return an entry of ``allow_paths``."""
    parts = value.removesuffix("/*").split("/")
    if not value.isprintable() or any(part in ("", ".", "..") or "*" in part or "#" in part for part in parts):
        raise ValueError("is not a path at the provider; write <mount>/<path>, or <mount>/* for all below it")
    if len(parts) == 1 and not value.endswith("/*"):
        raise ValueError("names a mount and nothing in it; write <mount>/* for all below it")
    return value


def container(value: str) -> str:
    """Return a container id or a prefix of one that is long enough to mean one container."""
    if not _CONTAINER.fullmatch(value):
        raise ValueError("is not a container id; write its 64 hexadecimal digits, or at least the first 12")
    return value


def container_name(value: str) -> str:
    """Return the name of a container, or its id."""
    if not _CONTAINER_NAME.fullmatch(value):
        raise ValueError("is not the name or id of a container; write it as docker ps or podman ps shows it")
    return value


def unit(value: str) -> str:
    """Return the name of a unit."""
    if not _UNIT.fullmatch(value) or value[0] in "-.":
        raise ValueError('is not the name of a unit; write it whole, for instance "web.service"')
    return value


def window(value: str) -> str:
    """Return a maintenance window."""
    Window.parse(value)
    return value


def mode(value: str) -> str:
    """Return the mode of a socket: an octal string of reading and writing bits."""
    if not _MODE.fullmatch(value) or int(value, 8) & OWNER != OWNER:
        raise ValueError('is not the mode of a socket; write it as an octal string, for instance "0660"')
    return value


def file_name(value: str) -> str:
    """Return the name of a rendered file."""
    if not _NAME.fullmatch(value):
        raise ValueError("is not a file's name; use up to 100 letters, digits, '_', '.' and '-', a letter or digit first")
    return value


def file_mode(value: str) -> str:
    """Return the mode of a rendered file: its owner may read and perhaps write it, its group may read it, others nothing."""
    if not _FILE_MODE.fullmatch(value):
        raise ValueError('is not the mode of a file of secrets; write it as an octal string, for instance "0400" or "0440"')
    return value


def template(value: str) -> str:
    """Return the path of a template."""
    if not path(value).endswith(".j2"):
        raise ValueError("is not a template; give it a name that ends in .j2")
    return value


def duration(value: str) -> str:
    """Return a duration of at most an hour."""
    if seconds(value) > LONGEST_DURATION:
        raise ValueError("is longer than an hour; write a shorter one")
    return value


def ttl(value: str) -> str:
    """Return the longest life of a lease."""
    if not 1 <= seconds(value) <= LONGEST_TTL:
        raise ValueError('is not the life of a lease; write one between "1s" and "768h"')
    return value


def life(*texts: str | None) -> int:
    """Return the shortest of some durations, in whole seconds; None says nothing."""
    return int(min(seconds(each) for each in texts if each))


def dns(value: str) -> str:
    """Return a DNS name, with ``*.`` before it where it is one for many."""
    labels = value.removeprefix("*.").split(".")
    if len(value) > LONGEST_DNS or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("is not a DNS name; write labels of letters, digits and '-', with dots between them")
    return value


def uri(value: str) -> str:
    """Return a URI with a scheme, as a certificate may hold it."""
    if not _URI.fullmatch(value):
        raise ValueError("is not a URI; write scheme://host/path in ASCII, without commas")
    return value


def ip(value: str) -> str:
    """Return an IP address."""
    if _address(value) is None:
        raise ValueError("is not an IP address")
    return value


def ciphertext(value: str) -> str:
    """Return a ciphertext of transit, or a reference to the one value where it is kept."""
    try:
        kept = not CIPHERTEXT.fullmatch(value) and SecretReference.parse(value)
    except ConfigError:
        raise ValueError("is not a ciphertext; write vault:v1:..., or vault://<mount>/<path>#<key> where it is kept") from None
    if kept and kept.key is None:
        raise ValueError("names no one value; add #<key>")
    return value


def base64(value: str) -> str:
    """Return base64 of something, as the provider wants it."""
    try:
        binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        raise ValueError("is not base64; write it as it was given to transit/encrypt") from None
    if not value:
        raise ValueError("is empty; leave it out")
    return value


def timeout(value: str) -> str:
    """Return a duration that a request may wait."""
    if not 0 < seconds(value) <= LONGEST_TIMEOUT:
        raise ValueError('is not a useful timeout; write one between "1ms" and "60s"')
    return value


def seconds(value: str) -> float:
    """Return a duration such as ``250ms``, ``10s``, ``5m`` or ``1h`` in seconds."""
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError('is not a duration; write a whole number and ms, s, m or h, for instance "10s"')
    return int(match[1]) * _UNITS[match[2]]


def url(value: str) -> str:
    """Return the address of a server, without a slash at its end: ``https``, or ``http`` on loopback.

    Credentials, queries and fragments have no place in it.
    """
    expected = "is not the address of a server; write https://<host>[:<port>] without user, query or fragment"
    try:
        parts = urlsplit(text(value))
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in ("https", "http") or "@" in parts.netloc or "?" in value or "#" in value or port == 0:
        raise ValueError(expected)
    if not (_HOST.fullmatch(host) or _address(host)) or " " in value:
        raise ValueError(expected)
    if parts.scheme == "http" and not loopback(host):
        raise ValueError("would send credentials in clear; write https://, http:// is for loopback only")
    return value.rstrip("/")


def log_key(value: str) -> str:
    """Return the verifying key of a log, as ``proof.keys.VerifyingKey`` writes it."""
    from prism_vault_agent.proof.keys import VerifyingKey  # noqa: PLC0415 - 5 ms, for those who set it

    try:
        return str(VerifyingKey.parse(value))
    except ConfigError:
        raise ValueError("is not a whole verifying key (name+hash+base64); copy it again, from central's operator") from None


def loopback(host: str) -> bool:
    """Tell whether a host name or address can only mean this host."""
    address = _address(host)
    return address.is_loopback if address is not None else host == "localhost"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
