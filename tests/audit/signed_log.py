"""Central's side of receipts, checkpoints and proofs, in memory: an honest log, whose rows a test may change behind its back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from prism_vault_agent.errors import AuditUnavailable
from prism_vault_agent.proof.keys import SigningKey, to_base64
from prism_vault_agent.proof.leaf import leaf_data
from prism_vault_agent.proof.merkle import leaf_hash
from prism_vault_agent.proof.note import Checkpoint, seal
from prism_vault_agent.proof.receipt import receipt_text
from tests.proof.trees import Defined

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "log.example/one"
KEY = SigningKey.from_seed(NAME, bytes(32))
AT = 1_767_225_600_000


@dataclass
class SignedLog:
    """``rows`` are the rows (number, leaf) in the order of their leaves; ``published`` is how many the newest checkpoint has.

    ``origin`` is what checkpoints call the log, ``away`` an error in place of an answer, ``asked`` every path.
    """

    key: SigningKey = KEY
    origin: str = NAME
    rows: list[tuple[int, bytes]] = field(default_factory=list)
    published: int = 0
    away: AuditUnavailable | None = None
    asked: list[str] = field(default_factory=list)
    n: int = 0

    def append(self, *bodies: bytes, publish: bool = True) -> tuple[list[bytes], list[dict[str, Any]], dict[str, Any]]:
        """Append events and return what a host is told of them: the events, the answers, the receipt."""
        answers = []
        for body in bodies:
            self.n += 1
            leaf = leaf_hash(leaf_data(self.n, AT, body))
            self.rows.append((self.n, leaf))
            answers.append({"status": 201, "appended": True, "n": self.n, "received_at": AT, "leaf": leaf.hex(), "reason": ""})
        if publish:
            self.publish()
        return list(bodies), answers, self.receipt(self.rows[len(self.rows) - len(bodies) :])

    def receipt(self, rows: Sequence[tuple[int, bytes]]) -> dict[str, Any]:
        """Return the receipt for rows."""
        signature = self.key.sign(receipt_text(self.key.verifying_key.name, AT, rows))
        return {"origin": self.key.verifying_key.name, "at": AT, "signature": to_base64(signature)}

    def publish(self) -> None:
        """Make a checkpoint of all rows."""
        self.published = len(self.rows)

    def checkpoint(self, size: int) -> Checkpoint:
        """Return the checkpoint about the first ``size`` leaves."""
        return Checkpoint(self.origin, size, self._tree().root(0, size))

    def note(self, size: int) -> str:
        """Return it as a signed note."""
        text = self.checkpoint(size).text()
        return seal(text, self.key.verifying_key, self.key.sign(text.encode()))

    async def get(self, path: str) -> tuple[int, bytes]:
        """Answer a question as central does."""
        self.asked.append(path)
        if self.away is not None:
            raise self.away
        parts = urlsplit(path)
        asked = {name: int(value[0]) for name, value in parse_qs(parts.query).items()}
        if parts.path == "/v1/audit/checkpoint":
            status, answer = self._newest(asked["from"])
        else:
            status, answer = self._proof(int(parts.path.rpartition("/")[2]), asked["size"])
        return status, json.dumps(answer).encode()

    def _newest(self, old: int) -> tuple[int, dict[str, Any]]:
        size = self.published
        if size == 0 and old == 0:
            return 404, {"code": "no_checkpoint"}
        if size < old:
            return 409, {"code": "ahead", "size": size, "note": self.note(size) if size else None}
        proof = self._tree().subproof(old, 0, size, known=True) if 0 < old < size else []
        return 200, {"size": size, "note": self.note(size), "proof": [node.hex() for node in proof]}

    def _proof(self, n: int, size: int) -> tuple[int, dict[str, Any]]:
        index = next((index for index, row in enumerate(self.rows) if row[0] == n), None)
        if index is None:
            return 404, {"code": "no_such_event"}
        if index >= size:
            return 404, {"code": "not_sequenced"}
        proof = self._tree().path(index, 0, size)
        return 200, {"n": n, "index": index, "leaf": self.rows[index][1].hex(), "proof": [node.hex() for node in proof]}

    def _tree(self) -> Defined:
        return Defined([leaf for _, leaf in self.rows])
