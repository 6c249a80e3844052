"""The proof that an event is on the log, verified here: central is asked for it, and not believed."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.errors import IntegrityError, ProtocolError
from prism_vault_agent.proof.keys import VerifyingKey
from prism_vault_agent.proof.leaf import leaf_data
from prism_vault_agent.proof.merkle import leaf_hash, verify_inclusion
from prism_vault_agent.proof.note import Checkpoint, open_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prism_vault_agent.cli.central_client import CentralClient
    from prism_vault_agent.cli.show import Json

SEQUENCED_WITHIN: Final = 5.0
AGAIN: Final = 0.2
_MEND: Final = "keep central's answer, and verify the log: prism-vault audit verify"


@dataclass(frozen=True, slots=True)
class Proof:
    """That event ``n`` is leaf ``index`` of the ``size`` of a checkpoint that ``key`` signed, which is ``pinned`` by the user."""

    n: int
    index: int
    size: int
    root: str
    key: str
    pinned: bool

    def plain(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return asdict(self)

    def line(self) -> str:
        """Return it in words."""
        signed = signers([VerifyingKey.parse(self.key)], pinned=self.pinned)
        return f"event {self.n} is leaf {self.index} of {self.size} in a checkpoint signed by {signed}"


def keys_of(central: CentralClient, given: Sequence[str]) -> tuple[list[VerifyingKey], bool]:
    """Return the keys that the user gave, or the one that central gives, and whether they are the user's."""
    texts = list(given) or [str(central.ask("GET", "/v1/audit/log-key").get("key", ""))]
    return [VerifyingKey.parse(text) for text in texts], bool(given)


def signers(keys: Sequence[VerifyingKey], *, pinned: bool) -> str:
    """Return whose signatures were verified, and whose word it is that these are the right keys."""
    names = " or ".join(f"{key.name}+{key.key_hash.hex()}" for key in keys)
    return names if pinned else f"{names}, as central itself names its key; pin it with --log-key"


def prove(central: CentralClient, event: Json, keys: Sequence[VerifyingKey], *, pinned: bool) -> Proof | None:
    """Return what is proved of an event, or None where no checkpoint is about it yet. Raises ``IntegrityError``."""
    n = event["n"]
    answer = ask_for_proof(central, n)
    if answer is None:
        return None
    try:
        index, size, note = int(answer["index"]), int(answer["size"]), str(answer["note"])
        nodes = [bytes.fromhex(node) for node in answer["proof"]]
        leaf = bytes.fromhex(answer["leaf"])
        if event.get("dropped_by") is None:
            leaf = leaf_hash(leaf_data(n, event["received_at"], event["body"].encode()))
    except (KeyError, TypeError, ValueError):
        raise ProtocolError("central's answer is not a proof", mend="is central of this version?") from None
    checkpoint = Checkpoint.parse(open_note(note, *keys))
    by = next((key for key in keys if key.name == checkpoint.origin), None)
    if by is None or checkpoint.size != size or not verify_inclusion(leaf, index, size, nodes, checkpoint.root):
        raise IntegrityError(f"event {n} is not in the tree of the checkpoint that central signed", mend=_MEND)
    return Proof(n, index, size, checkpoint.root.hex(), str(by), pinned)


def ask_for_proof(central: CentralClient, n: int) -> Json | None:
    """Return central's answer, asked for again until a checkpoint is about the event; None where that takes too long."""
    until = time.monotonic() + SEQUENCED_WITHIN
    while True:
        status, content = central.answer("GET", f"/v1/audit/proof/{n}")
        if status != 404 or content.get("code") != "not_sequenced":
            return content if status == 200 else central.ask("GET", f"/v1/audit/proof/{n}")
        if time.monotonic() > until:
            return None
        time.sleep(AGAIN)
