"""Replaces every form of the values in a stream of bytes, wherever it is cut into pieces. Pure.

What is printed for a form is made of a byte that is in no form. So nothing that is printed can be a part of one, and no
form can be made by what is taken out.
"""

import sys

from prism_vault_agent.exec.forms import forms

_MARKS = b"*#=.-_~^@"
_STARS = 8
UNSEEN = 4  # bytes of the beginning of a form that are never shown, however long nothing more comes
_GRAM = 4
# Blocks that are looked at: so many bytes of them, so far apart. Short ones stand in ordinary text more often.
_BLOCKS = (*((8, apart) for apart in range(128, 0, -8)), (4, 8), (4, 4))
_LOOKUP = 185  # what it costs to look up blocks of all bytes, as many times as to search for one form


class Mask:
    """The forms of some values, and what is printed instead."""

    __slots__ = ("beginnings", "few", "forms", "grams", "having", "longest", "mark", "sizes", "starts", "wanted")

    def __init__(self, values: list[bytes]) -> None:
        """Make the forms; values that are too short have none."""
        self.forms = set().union(*map(forms, values)) if values else set()
        used = set(b"".join(self.forms))
        self.mark = bytes((next(byte for byte in (*_MARKS, *range(256)) if byte not in used),)) * _STARS
        self.longest = max(map(len, self.forms), default=0)
        self.starts: dict[bytes, list[bytes]] = {}
        for form in self.forms:
            self.starts.setdefault(form[:_GRAM], []).append(form)
        self.grams = [slice(at, at + _GRAM) for at in range(self.longest - _GRAM)]
        self.sizes = size, apart = cheapest([len(form) for form in self.forms])
        self.few = {form for form in self.forms if len(form) < size + apart - 1}
        self.having: dict[int, list[bytes]] = {}
        for form in self.forms - self.few:
            for block in {form[at : at + size] for at in range(apart)}:
                self.having.setdefault(int.from_bytes(block, sys.byteorder), []).append(form)
        self.wanted = frozenset(self.having)
        self.beginnings = {form[:length] for form in self.forms for length in range(1, _GRAM)}

    def found(self, text: bytes) -> list[tuple[int, int]]:
        """Return where the forms are in ``text``: start and end of each, those that overlap joined.

        Not every form is searched for, which would take the longer the more there are: the text is looked at in blocks, and
        searched for those forms that have one of these blocks in them.
        """
        met = set(self.few)
        if self.wanted:
            size, apart = self.sizes
            whole = memoryview(text)[: len(text) // size * size]
            blocks = (whole.cast("Q") if size == 8 else whole.cast("I"))[:: apart // size]
            for block in self.wanted.intersection(blocks):
                met.update(self.having[block])
        places = []
        for form in met:
            at = text.find(form)
            while at >= 0:
                places.append((at, at + len(form)))
                at = text.find(form, at + 1)
        joined: list[tuple[int, int]] = []
        for start, end in sorted(places):
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], end))
            else:
                joined.append((start, end))
        return joined

    def begun(self, text: bytes) -> int:
        """Return where the longest end of ``text`` starts with which a form may begin that is not all there."""
        length = len(text)
        first = max(length - self.longest + 1, 0)
        # Nearly always there is none: that is found out in one go.
        if any(map(self.starts.__contains__, map(text[first:].__getitem__, self.grams))):
            for at in range(first, length - _GRAM + 1):
                for form in self.starts.get(text[at : at + _GRAM], ()):
                    if len(form) > length - at and form.startswith(text[at:]):
                        return at
        return next((at for at in range(max(length - _GRAM + 1, 0), length) if text[at:] in self.beginnings), length)


def cheapest(lengths: list[int]) -> tuple[int, int]:
    """Return of how many bytes the blocks are that are looked at, and how far apart, for forms of these lengths.

    One of the blocks is within any form of at least both lengths together, less one. Shorter forms are searched for one by one.
    """
    return min(_BLOCKS, key=lambda each: sum(length < sum(each) - 1 for length in lengths) + _LOOKUP / each[1])


class Stream:
    """One stream through a mask. ``held`` is what may be the beginning of a form, of which ``shown`` bytes are dealt with."""

    __slots__ = ("held", "mask", "masked", "shown")

    def __init__(self, mask: Mask) -> None:
        """Begin; ``masked`` is up to where in ``held`` a form reaches that was printed as the mark."""
        self.mask = mask
        self.held = b""
        self.shown = self.masked = 0

    def feed(self, piece: bytes) -> bytes:
        """Return what can be printed now that ``piece`` has come: everything but what may begin a form."""
        text = self.held + piece
        return self._print(text, self.mask.begun(text))

    def rest(self, *, end: bool) -> bytes:
        """Return what is printed where nothing more comes for a while, or ever: all at the end, else a few bytes."""
        if end:
            return self._print(self.held, len(self.held))
        if len(self.held) >= UNSEEN:
            return b""
        told = self.held[self.shown :]
        self.shown = len(self.held)
        return told

    def _print(self, text: bytes, until: int) -> bytes:
        printed = []
        shown, masked = self.shown, self.masked
        for start, end in self.mask.found(text):
            if start >= until:
                break  # it may turn out to be a part of one that begins before it
            if start >= masked:
                printed += [text[shown:start], self.mask.mark]
            shown = masked = max(end, masked)
        printed.append(text[shown:until])
        self.held = text[until:]
        self.shown, self.masked = max(shown - until, 0), max(masked - until, 0)
        return b"".join(printed)
