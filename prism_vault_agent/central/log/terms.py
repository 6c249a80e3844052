"""What an event can be found by: its scopes, project, run, job, purpose, host and signal, each as one number. Pure.

A term is the first 8 bytes of a SHA-256, so that the index is small whatever the names are; a question compares the names
themselves in the rows that it finds.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# Kinds that are rare, so that a scan would look at many rows for each one.
RARE: Final = frozenset({"denied", "failure", "abandoned", "policy", "admin"})


@lru_cache(maxsize=4_096)
def term(what: str, name: str) -> int:
    """Return the number that stands for ``name`` as ``what``: scope, project, run_ref, job_id, purpose, host, signal or kind."""
    return int.from_bytes(hashlib.sha256(f"{what}\0{name}".encode("utf-8", "surrogatepass")).digest()[:8], signed=True)


def terms(kind: str, host: str, fields: Mapping[str, Any]) -> set[int]:
    """Return the terms of an event of ``host``."""
    found = {term("scope", scope) for scope in fields.get("scopes") or ()}
    found.add(term("host", host))
    for what in ("project", "run_ref", "job_id", "purpose"):
        if fields.get(what):
            found.add(term(what, fields[what]))
    if fields.get("about_host"):
        found.add(term("host", fields["about_host"]))
    if fields.get("signal"):
        found.add(term("signal", str(fields["signal"])))
    if kind in RARE:
        found.add(term("kind", kind))
    return found
