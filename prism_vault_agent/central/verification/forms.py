"""Canonical events told by their form: which keys there are, and what kind of value behind each. Pure.

To read JSON and to write it again takes half of a verification's time, and nearly all events have one of a few forms. Of an event
that was found to be canonical, a regular expression is kept that has its keys, and plain values where its values are: strings of
ASCII without an escape, whole numbers of up to 18 digits, null, true and false, of which each is written in one way only. So
whatever it matches is canonical. What it does not match may be so too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MOST_FORMS: Final = 4  # of one kind of event
MOST_KINDS: Final = 32
TEXT: Final = r'"[ !#-\[\]-~]*+"'
NUMBER: Final = r"(?:0|-?[1-9][0-9]{0,17}+)"
_PLAIN: Final = rf"(?:{TEXT}|null|{NUMBER}|true|false)"
_LIST: Final = rf"\[(?:{_PLAIN}(?:,{_PLAIN})*+)?+\]"
_KEY: Final = re.compile("[a-z0-9_]+")
# The fields that columns repeat, in the order of those.
FIELDS: Final = ("event_id", "host", "epoch", "seq", "prev", "reservation", "kind")
_NAMED: Final = {name: f'"(?P<{name}>{TEXT[1:-1]})"' for name in FIELDS} | {"seq": f"(?P<seq>{NUMBER})"}
Said = tuple[str, str, str, int, str, str, str]


class Forms:
    """The forms of the events that were seen. There are never more than a few: what has another is read the long way."""

    def __init__(self) -> None:
        """Know none."""
        self._known: dict[str, dict[str, Callable[[str], re.Match[str] | None]]] = {}

    def said(self, body: bytes, kind: str) -> Said | None:
        """Return what an event says for each of ``FIELDS``, where its form is one that events of this ``kind`` have had."""
        known = self._known.get(kind)
        if known is None or not body.isascii():
            return None
        text = body.decode()
        for matches in known.values():
            if (match := matches(text)) is not None:
                event_id, host, epoch, seq, prev, reservation, what = match.group(*FIELDS)
                return event_id, host, epoch, int(seq), prev, reservation, what
        return None

    def learn(self, fields: Mapping[str, Any], kind: str) -> None:
        """Keep the form of a canonical event, in the order of its keys, that has text in ``FIELDS`` and a number in ``seq``."""
        try:
            form = _form(fields, _NAMED)
        except ValueError:
            return
        known = self._known.setdefault(kind, {}) if len(self._known) < MOST_KINDS else self._known.get(kind, {})
        if len(known) < MOST_FORMS and form not in known:
            known[form] = re.compile(form).fullmatch


def _form(value: Any, named: Mapping[str, str]) -> str:
    """Return the pattern of a value. Raises ``ValueError`` for one that has a key which is no plain name."""
    if isinstance(value, dict):
        if not all(map(_KEY.fullmatch, value)):
            raise ValueError
        inner = ",".join(f'"{key}":{named.get(key) or _form(value[key], {})}' for key in value)
        return rf"\{{{inner}\}}"
    if not isinstance(value, list):
        return _PLAIN
    if any(isinstance(each, dict | list) for each in value):
        return rf"\[{','.join(_form(each, {}) for each in value)}\]"
    return _LIST
