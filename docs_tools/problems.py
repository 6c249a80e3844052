"""The reference of problem codes, from central's table, which is held against the code that uses it."""

from __future__ import annotations

import ast
import re
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from docs_tools.markdown import GENERATED, table
from prism_vault_agent.central.http import codes
from prism_vault_agent.central.http.codes import CODES

if TYPE_CHECKING:
    from collections.abc import Iterator

CENTRAL: Final = Path(__file__).parents[1] / "prism_vault_agent" / "central"
# Calls that name a code: which arguments are the status and the code, or the status that they always have.
_CALLS: Final[dict[str, tuple[int | HTTPStatus, int]]] = {
    "Problem": (0, 1),
    "Unauthenticated": (HTTPStatus.UNAUTHORIZED, 0),
    "refused": (1, 2),
    "Denial": (HTTPStatus.FORBIDDEN, 0),
    "Refused": (0, 1),
    "Refusal": (HTTPStatus.CONFLICT, 0),
}
_INTRODUCTION: Final = """\
Every error of central's HTTP interface is `application/problem+json` (RFC 9457): `type` (`urn:prism-vault:problem:` and the
code), `title`, `status`, `detail`, the stable `code`, and `request_id`, which is also in the header `X-Request-Id` and in
central's log. 401 has `WWW-Authenticate`, 405 has `Allow`, 429 and 503 have `Retry-After`. Nothing that was sent is repeated.
Which routes give which codes is in [openapi.json](openapi.json).

A code's meaning does not change. **Only 429, 500 and 503 are worth a retry**; nothing of such a request is on the log, unless its
answer was lost, and then the same events get their first answer.
"""

_OF_EVENTS: Final = """\
These are the `reason` of a result in a batch; the routes that take one event answer with a problem that has the result's fields
too. *Appended* says that the event is on the log all the same, and central's denial with it.
"""


class Used(NamedTuple):
    """A place where a code is named; ``code`` is a pattern."""

    where: str
    status: int | None
    code: str


def page() -> str:
    """Return the page. Raises ``SystemExit`` where the table and the code that uses it differ."""
    used = list(_used())
    for place in used:
        if not any(_fits(place, name) for name in CODES):
            raise SystemExit(f"{place.where}: {place.code!r} with status {place.status} is not in central/http/codes.py")
    for name in CODES:
        if not any(re.fullmatch(place.code, name) for place in used):
            raise SystemExit(f"central/http/codes.py: nothing uses {name!r}")
    requests = {name: code for name, code in CODES.items() if not code.of_event}
    events = {name: code for name, code in CODES.items() if code.of_event}
    return (
        f"{GENERATED}# Problems\n\n{_INTRODUCTION}\n"
        f"## Of a request\n\n{_table(requests)}\n"
        f"## Of one event\n\n{_OF_EVENTS}\n{_table(events)}"
    )


def _table(some: dict[str, codes.Code]) -> str:
    rows = sorted((", ".join(map(str, code.statuses)), name, code) for name, code in some.items())
    return table(
        ("status", "code", "meaning", "what to do"),
        [(status, f"`{name}`", f"{code.meaning}{' (appended)' * code.appended}", code.mend) for status, name, code in rows],
    )


def _fits(place: Used, name: str) -> bool:
    """Tell whether a code of the table is the one named there, and has that status."""
    return re.fullmatch(place.code, name) is not None and (place.status is None or place.status in CODES[name].statuses)


def _used() -> Iterator[Used]:
    """Yield every place in central that names a code."""
    for path in sorted(CENTRAL.rglob("*.py")):
        if path == Path(codes.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield from _named(node, f"{path.relative_to(CENTRAL.parent)}:{node.lineno}")
            elif isinstance(node, ast.Dict):
                yield from _mapped(node, f"{path.relative_to(CENTRAL.parent)}:{node.lineno}")


def _named(call: ast.Call, where: str) -> Iterator[Used]:
    """Yield the codes that a call names."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    if name in _CALLS:
        at, code_at = _CALLS[name]
        if len(call.args) > code_at and (code := _pattern(call.args[code_at])):
            yield Used(where, at if isinstance(at, HTTPStatus) else _number(call.args[at]), code)
    for keyword in call.keywords:
        if keyword.arg in ("reason", "code") and (code := _pattern(keyword.value)):
            yield Used(where, _number(call.args[0]) if name == "Answer" else None, code)


def _mapped(mapping: ast.Dict, where: str) -> Iterator[Used]:
    """Yield the codes of a map from statuses to codes."""
    for key, value in zip(mapping.keys, mapping.values, strict=True):
        status = _number(key) if key is not None else None
        if status is not None and (code := _pattern(value)):
            yield Used(where, status, code)


def _number(node: ast.expr) -> int | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int) else None


def _pattern(node: ast.expr) -> str:
    """Return what a text or an f-string can be as a regular expression; nothing for what is computed elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.escape(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = (re.escape(str(part.value)) if isinstance(part, ast.Constant) else "[a-z_]+" for part in node.values)
        return "".join(parts)
    return ""
