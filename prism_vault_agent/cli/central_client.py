"""Central's HTTP interface, as the commands of operators use it: with a token, errors told in one line."""

from __future__ import annotations

import ipaddress
import os
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.errors import AuditUnavailable, ConfigError, Denied, ProtocolError, SecretNotFound, UsageError

if TYPE_CHECKING:
    import argparse
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

    from prism_vault_agent.cli.show import Json

URL: Final = "PRISM_VAULT_CENTRAL_URL"
CERT_FILE: Final = "PRISM_VAULT_CENTRAL_CERT_FILE"
KEY_FILE: Final = "PRISM_VAULT_CENTRAL_KEY_FILE"
TOKEN: Final = "PRISM_VAULT_OPERATOR_TOKEN"  # noqa: S105 - the name of a variable
PAGE: Final = 1000
SECONDS: Final = 30  # more than central waits for news
_MEND_401: Final = f"check {TOKEN} or --token-file, and --cert-file"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options that say where central is, and who asks."""
    from pathlib import Path  # noqa: PLC0415 - as an option's type

    command.add_argument("--url", metavar="URL", help=f"central's URL (default {URL})")
    command.add_argument("--token-file", type=Path, metavar="FILE", help=f"instead of {TOKEN}")
    command.add_argument("--ca-file", metavar="FILE", help="the authority of central's certificate")
    command.add_argument(
        "--cert-file", metavar="FILE", help=f"our certificate, beside or instead of a token (default {CERT_FILE})"
    )
    command.add_argument("--key-file", metavar="FILE", help=f"its private key (default {KEY_FILE})")


class CentralClient:
    """Central, for whoever has the operator's token or certificate."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Speak to central as the options of :func:`add_options` or the environment say.

        Raises ``UsageError`` or ``ConfigError`` before it sends.
        """
        import httpx2  # noqa: PLC0415 - most of what these commands cost to start

        where = args.url or os.environ.get(URL, "")
        if not where:
            raise UsageError("where is central?", mend=f"give --url, or set {URL}")
        parts = urllib.parse.urlsplit(where)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("the URL of central is not http:// or https://")
        if parts.scheme == "http" and not _loopback(parts.hostname):
            raise ConfigError("the token would cross the network in clear", mend="use https:// for central off loopback")
        cert_file = args.cert_file or os.environ.get(CERT_FILE, "")
        key_file = args.key_file or os.environ.get(KEY_FILE, "")
        if bool(cert_file) != bool(key_file):
            raise UsageError(
                "a certificate needs its key", mend=f"give --cert-file and --key-file, or set {CERT_FILE} and {KEY_FILE}"
            )
        if cert_file and parts.scheme == "http":
            raise UsageError("a certificate is shown over TLS only", mend="use https:// for central")
        verify: Any = True
        if parts.scheme == "https" and (args.ca_file or cert_file):
            verify = _context(args.ca_file, cert_file, key_file)
        token = _token(args.token_file, needed=not cert_file)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx2.Client(base_url=where, headers=headers, verify=verify, trust_env=False, timeout=SECONDS)
        self._errors = (httpx2.HTTPError, httpx2.InvalidURL)

    def answer(
        self, method: str, path: str, *, json: Any = None, headers: dict[str, str] | None = None, **query: object
    ) -> tuple[int, Json]:
        """Return the status and the JSON of an answer, be it a problem. Raises ``AuditUnavailable`` and ``ProtocolError``."""
        params = {name.rstrip("_"): str(value) for name, value in query.items() if value is not None}
        try:
            answer = self._client.request(
                method, path, params=params, headers=headers, **({} if json is None else {"json": json})
            )
        except self._errors as error:
            raise AuditUnavailable(f"central does not answer ({type(error).__name__})", mend="check its URL and state") from None
        try:
            content = answer.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise ProtocolError("central's answer is not one of central's", mend="is the URL that of central?")
        return answer.status_code, content

    def ask(self, method: str, path: str, *, json: Any = None, headers: dict[str, str] | None = None, **query: object) -> Json:
        """Return the JSON of an answer. Raises the error that a problem is to the one who asked; ``reason`` is its code."""
        status, content = self.answer(method, path, json=json, headers=headers, **query)
        if status < 400:
            return content
        code, told = str(content.get("code", "")), str(content.get("detail", ""))[:300]
        match status:
            case 401:
                raise Denied(f"central does not take the operator's credential ({code})", mend=_MEND_401, reason=code)
            case 403:
                raise Denied(f"central does not allow it: {told}", reason=code)
            case 404:
                raise SecretNotFound(f"central says: {told}", reason=code)
            case 429 | 500 | 502 | 503 | 504:
                mend = "see central's log" if status == 500 else "try again"
                raise AuditUnavailable(f"central answered with status {status}: {told}", mend=mend, reason=code)
        raise UsageError(f"central refused the question with status {status}: {told}", reason=code)

    def events(self, **filters: Any) -> Iterator[Json]:
        """Yield all matching events in the order of their index."""
        after: int | None = 0
        while after is not None:
            page = self.ask("GET", "/v1/audit/events", **filters, after=after, limit=PAGE)
            yield from _list(page, "events")
            after = page["next"]

    def log(self, **query: Any) -> tuple[list[Json], int, Json]:
        """Return rows of the log in its final order, from which leaf to go on, and the answer as a whole."""
        page = self.ask("GET", "/v1/audit/log", **query)
        rows = _list(page, "rows")
        if not isinstance(page.get("next"), int) or not isinstance(page.get("size"), int):
            raise ProtocolError("central's answer is not a page of the log", mend="is central of this version?")
        return rows, page["next"], page


def _list(page: Json, name: str) -> list[Json]:
    rows = page.get(name)
    if not isinstance(rows, list) or "next" not in page:
        raise ProtocolError("central's answer is not a page of events", mend="is the URL that of central?")
    return rows


def _context(ca_file: str | None, cert_file: str, key_file: str) -> ssl.SSLContext:
    """Return how TLS is spoken: with the authorities of a file or the system's, and with a certificate where one is given."""
    import ssl  # noqa: PLC0415 - for https only

    from prism_vault_agent.config.settings import TlsFiles  # noqa: PLC0415 - as above
    from prism_vault_agent.vault.tls import identify  # noqa: PLC0415 - as above

    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"--ca-file {ca_file} cannot be used: {error.strerror or 'not PEM'}") from None
    if cert_file:
        identify(context, TlsFiles("", cert_file, key_file))
    return context


def _token(file: Path | None, *, needed: bool) -> str:
    try:
        token = file.read_text().strip() if file is not None else os.environ.get(TOKEN, "")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    if not token and needed:
        raise UsageError("who is asking?", mend=f"set {TOKEN}, or give --token-file, or --cert-file and --key-file")
    return token


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
