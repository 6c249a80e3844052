"""What others hold of the log, from files: checkpoints, heads of chains, and receipts."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import TYPE_CHECKING, Any

from prism_vault_agent.central.verification.elsewhere import Elsewhere
from prism_vault_agent.central.verification.export import sealed
from prism_vault_agent.errors import IntegrityError, UsageError
from prism_vault_agent.proof.note import open_note
from prism_vault_agent.proof.receipt import check_receipt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from prism_vault_agent.proof.keys import VerifyingKey


def held(notes: Sequence[Path], heads: Sequence[Path], receipts: Sequence[Path], keys: Sequence[VerifyingKey]) -> Elsewhere:
    """Return what the files hold. Raises ``UsageError`` for what is not such a thing, or not signed by one of ``keys``."""
    found = Elsewhere()
    for path in notes:
        _note(path, found, keys)
    for path in heads:
        _heads(path, found)
    for path in receipts:
        _receipts(path, found, keys)
    return found


def _note(path: Path, found: Elsewhere, keys: Sequence[VerifyingKey]) -> None:
    """Take a note as it is, or from a JSON object with a ``note``."""
    text = _text(path)
    if text.startswith("{"):
        text = next((str(each["note"]) for each in _objects(path) if "note" in each), "")
    try:
        if keys:
            open_note(text, *keys)
    except IntegrityError as error:
        raise UsageError(f"{path} is no evidence: {error.message}") from None
    checkpoint = sealed(0, text, str(path))
    if not checkpoint.root:
        raise UsageError(f"{path} is not a checkpoint")
    size = int(text.split("\n", 2)[1])
    if size:
        found.checkpoints.append(checkpoint._replace(size=size))


def _heads(path: Path, found: Elsewhere) -> None:
    for head in _objects(path):
        try:
            chain, seq, hashed = (str(head["host"]), str(head["epoch"])), int(head["seq"]), str(head["hash"])
        except (KeyError, TypeError, ValueError):
            raise UsageError(f"{path} is not a head: host, epoch, seq and hash") from None
        if seq:
            found.heads.setdefault(chain, {})[seq] = (hashed, str(path))


def _receipts(path: Path, found: Elsewhere, keys: Sequence[VerifyingKey]) -> None:
    """Take the answers to appends: one row with its receipt, or a batch's ``results`` with one for all of them."""
    for answer in _objects(path):
        try:
            receipt = answer["receipt"]
            results = answer.get("results", [answer])
            rows = [(int(row["n"]), bytes.fromhex(row["leaf"])) for row in results if row["appended"]]
            at, origin, signature = int(receipt["at"]), str(receipt["origin"]), b64decode(receipt["signature"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UsageError(f"{path} is not an answer of central with a receipt") from None
        try:
            for key in [key for key in keys if key.name == origin] or keys[:1]:
                check_receipt(key, signature, origin, at, rows)
        except IntegrityError as error:
            raise UsageError(f"{path} is no evidence: {error.message}") from None
        found.leaves |= {n: (leaf, str(path)) for n, leaf in rows}


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file: one, a list of them, or one a line."""
    text = _text(path)
    try:
        content = json.loads(text)
    except ValueError:
        try:
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise UsageError(f"{path} is not JSON") from None
    for each in content if isinstance(content, list) else [content]:
        if not isinstance(each, dict):
            raise UsageError(f"{path} is not a JSON object")
        yield each


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text") from None
