"""Where the audit commands read events: central over HTTP, or a database file of central's, opened so that it cannot change."""

from __future__ import annotations

import ipaddress
import os
import sqlite3
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.central.log.verify import Row
from prism_vault_agent.errors import AuditUnavailable, ConfigError, Denied, ProtocolError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

URL: Final = "PRISM_VAULT_CENTRAL_URL"
TOKEN: Final = "PRISM_VAULT_OPERATOR_TOKEN"  # noqa: S105 - the name of a variable
PAGE: Final = 1000
Json = dict[str, Any]


class Central:
    """Central's reading routes, with the operator's token."""

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
        self._client = httpx2.Client(base_url=where, headers=headers, verify=verify, trust_env=False, timeout=20)
        self._errors = (httpx2.HTTPError, httpx2.InvalidURL)

    def page(self, **filters: object) -> Json:
        """Return one page of ``GET /v1/audit/events``."""
        params = {name: str(value) for name, value in filters.items() if value is not None}
        try:
            answer = self._client.get("/v1/audit/events", params=params)
        except self._errors as error:
            raise AuditUnavailable(f"central does not answer ({type(error).__name__})", mend="check its URL and state") from None
        if answer.status_code in (401, 403):
            raise Denied("central does not take the operator's token", mend=f"check {TOKEN} or --token-file")
        if answer.status_code >= 500:
            raise AuditUnavailable(f"central answered with status {answer.status_code}", mend="see central's log")
        if answer.status_code != 200:
            raise UsageError(f"central refused the question with status {answer.status_code}", mend="check the filters")
        try:
            page: Json = answer.json()
            if not isinstance(page["events"], list):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise ProtocolError("central's answer is not a page of events", mend="is the URL that of central?") from None
        return page

    def events(self, **filters: object) -> Iterator[Json]:
        """Return all matching events in the order of their index."""
        after: int | None = 0
        while after is not None:
            page = self.page(**filters, after=after, limit=PAGE)
            yield from page["events"]
            after = page["next"]

    def rows(self) -> Iterator[Row]:
        """Return every row for verification. Raises ``Denied`` for a token that does not see all."""
        if not self.page(limit=1)["all_projects"]:
            raise Denied("only an operator of all projects can verify", mend="use a token whose projects are *")
        for event in self.events():
            columns = {name: event[name] for name in Row.__slots__ if name != "body"}
            yield Row(**columns, body=event["body"].encode("utf-8", "surrogatepass"))


def rows_of_file(path: Path) -> Iterator[Row]:
    """Return every row of a database file. Raises ``ConfigError`` where it is not one of central's."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    # A copy without its -wal file is read as it is; beside a running central the -wal file has the newest rows.
    mode = "ro" if path.with_name(path.name + "-wal").exists() else "ro&immutable=1"
    columns = "n, hex(event_id), host_id, hex(host_epoch), host_seq, hex(prev_hash), hex(reservation_id), kind, body"
    try:
        database = sqlite3.connect(f"file:{urllib.parse.quote(str(path.absolute()))}?mode={mode}", uri=True)
        try:
            for n, event_id, host, epoch, seq, prev, reservation, kind, body in database.execute(
                f"SELECT {columns} FROM event ORDER BY n"  # noqa: S608 - both are constants
            ):
                yield Row(n, event_id.lower(), host, epoch.lower(), seq, prev.lower(), reservation.lower(), kind, bytes(body))
        finally:
            database.close()
    except sqlite3.Error as error:
        raise ConfigError(f"{path} is not a readable audit database: {error}") from None


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
