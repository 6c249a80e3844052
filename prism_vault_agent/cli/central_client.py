"""Central's HTTP interface, as the commands of operators use it: with a token, errors told in one line."""

from __future__ import annotations

import ipaddress
import os
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.errors import AuditUnavailable, ConfigError, Denied, ProtocolError, SecretNotFound, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

URL: Final = "PRISM_VAULT_CENTRAL_URL"
TOKEN: Final = "PRISM_VAULT_OPERATOR_TOKEN"  # noqa: S105 - the name of a variable
PAGE: Final = 1000
SECONDS: Final = 30  # more than central waits for news
Json = dict[str, Any]


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options that say where central is, and who asks."""
    from pathlib import Path  # noqa: PLC0415 - as an option's type

    command.add_argument("--url", metavar="URL", help=f"central's URL (default {URL})")
    command.add_argument("--token-file", type=Path, metavar="FILE", help=f"instead of {TOKEN}")
    command.add_argument("--ca-file", metavar="FILE", help="the authority of central's certificate")


class CentralClient:
    """Central, for whoever has the operator's token."""

    def __init__(self, url: str | None, token_file: Path | None, ca_file: str | None) -> None:
        """Speak to ``url`` or to what the environment names. Raises ``UsageError`` or ``ConfigError`` before it sends."""
        import httpx2  # noqa: PLC0415 - most of what these commands cost to start

        where = url or os.environ.get(URL, "")
        if not where:
            raise UsageError("where is central?", mend=f"give --url, or set {URL}")
        parts = urllib.parse.urlsplit(where)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("the URL of central is not http:// or https://")
        if parts.scheme == "http" and not _loopback(parts.hostname):
            raise ConfigError("the token would cross the network in clear", mend="use https:// for central off loopback")
        verify: Any = True
        if parts.scheme == "https" and ca_file:
            import ssl  # noqa: PLC0415

            verify = ssl.create_default_context(cafile=ca_file)
        headers = {"Authorization": f"Bearer {_token(token_file)}"}
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
                raise Denied("central does not take the operator's token", mend=f"check {TOKEN} or --token-file", reason=code)
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


def _token(file: Path | None) -> str:
    try:
        token = file.read_text().strip() if file is not None else os.environ.get(TOKEN, "")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    if not token:
        raise UsageError("who is asking?", mend=f"set {TOKEN}, or give --token-file")
    return token


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
