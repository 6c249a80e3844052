"""PEM as RFC 7468 has it, made of what stores and forms do to it: lost or literal line ends, lines of other lengths. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

WIDTH: Final = 64
_BLOCK: Final = re.compile(r"\s*-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]*)-----END \1-----\s*")


def wrapped(text: str) -> str:
    r"""Return every block of ``text`` with its base64 in lines of 64 and a line end behind each; a literal ``\n`` counts as one.

    Raises ``ValueError``, which says what is wrong and not with what, where it is not blocks of PEM and nothing else.
    """
    text = text.replace("\\r", "\n").replace("\\n", "\n")
    blocks, at = [], 0
    while at < len(text):
        if (block := _BLOCK.match(text, at)) is None:
            raise ValueError("is not PEM: blocks from BEGIN to END, without headers, and nothing beside them")
        body = "".join(block[2].split())
        try:
            base64.b64decode(body, validate=True)
        except binascii.Error:
            raise ValueError("is not PEM: what stands between BEGIN and END is not base64") from None
        lines = [body[start : start + WIDTH] for start in range(0, len(body), WIDTH)]
        blocks += [f"-----BEGIN {block[1]}-----", *lines, f"-----END {block[1]}-----"]
        at = block.end()
    if not blocks:
        raise ValueError("is not PEM: it is empty")
    return "\n".join(blocks) + "\n"
