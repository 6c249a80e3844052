"""The files of a scope, or of several, written by a worker where nobody sees them yet."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prism_vault_agent.dialects.contents import LARGEST_FILE, contents, texts
from prism_vault_agent.errors import CannotCreate, PrismVaultError, ProtocolError, to_plain
from prism_vault_agent.helper.client import asking
from prism_vault_agent.scope import File
from prism_vault_agent.sink.generation import Content, discard, stage
from prism_vault_agent.sink.place import cannot

if TYPE_CHECKING:
    from prism_vault_agent.vault.reading import Reading
    from prism_vault_agent.worker.messages import Message


def staged(job: Message, found: Reading, place: int | None) -> Message:
    """Write the files of one scope; return what was read and written, described."""
    if place is None:
        raise ProtocolError("files came without their place")
    read = described(found)
    wanted = [
        Content(path, content, file.uid, file.gid, file.mode)
        for file in (File(**plain) for plain in job["files"])
        for path, content in written(file, found.values).items()
    ]
    try:
        with asking(job["helper"]) as owners:
            files = [{**plain, "text": ""} for plain in job["files"]]
            made = stage(place, job["scope"], wanted, {**job["told"], "files": files, **read}, owners, name=job["unseen"])
    except OSError as error:
        raise cannot(f"{job['place']}/{job['scope']}", error) from None
    return {**read, "staged": dataclasses.asdict(made)}


def staged_or_why(job: Message, found: Reading | PrismVaultError, place: int | None) -> Message:
    """Return the answer for one of several scopes: as :func:`staged`, or the error that concerns it alone."""
    try:
        if isinstance(found, PrismVaultError):
            raise found
        return staged(job, found, place)
    except PrismVaultError as error:
        return {"error": to_plain(error)}


def unheard(job: Message, answer: Message, place: int) -> None:
    """Remove what an answer says is staged, since nobody waits for it any more."""
    for each in answer.get("each", [answer]):
        if "staged" in each:
            with contextlib.suppress(OSError, CannotCreate), asking(job["helper"]) as owners:
                discard(place, each["staged"]["name"], owners)


def written(file: File, values: Mapping[str, str | bytes]) -> dict[str, bytes]:
    """Return the contents of a file by path; a template has its bounds of time and memory."""
    if file.format != "template":
        return contents(file.format, file.path, values)
    plain = texts(file.format, values)
    from prism_vault_agent.dialects.template import rendered  # noqa: PLC0415 - only who has a template pays for it
    from prism_vault_agent.worker.bounds import bounded  # noqa: PLC0415 - as above

    with bounded():
        return {file.path: rendered(file.template, file.text, plain, LARGEST_FILE)}


def described(found: Reading) -> Message:
    """Return what was read, without the values."""
    return {
        "names": list(found.values),
        "leases": [dataclasses.asdict(lease) for lease in found.leases],
        "mounts": found.mounts,
    }
