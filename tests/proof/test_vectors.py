"""The verifiers against the vectors of transparency-dev/merkle."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from prism_vault_agent.proof.merkle import verify_consistency, verify_inclusion

FILE = Path(__file__).with_name("vectors") / "rfc6962.json"
VECTORS = json.loads(FILE.read_text(encoding="utf-8"))
HASHES = [base64.b64decode(each) for each in VECTORS["hashes"]]
# Its roots are texts of 12 bytes, which stand for hashes there. Here a root that is no hash proves nothing.
DIFFERENT = ["additional: sizes are equal (one) and proof is empty"]


def test_the_vectors_are_all_there():
    """There are 98 vectors of each kind, no two of the same name, and 6 of them verify."""
    for kind in ("inclusion", "consistency"):
        vectors = VECTORS[kind]
        assert len({name for name, *_ in vectors}) == len(vectors) == 98
        assert sum(verifies for *_, verifies in vectors) == 6


@pytest.mark.parametrize(("kind", "different"), [("inclusion", []), ("consistency", DIFFERENT)])
def test_each_vector_has_its_answer(kind, different):
    """What others accept is accepted and what they refuse is refused, but for one vector whose roots are not hashes."""
    wrong = []
    for name, first, second, one, two, proof, verifies in VECTORS[kind]:
        path = [HASHES[each] for each in proof]
        if kind == "inclusion":
            answer = verify_inclusion(HASHES[two], first, second, path, HASHES[one])
        else:
            answer = verify_consistency(first, HASHES[one], second, HASHES[two], path)
        if answer != verifies:
            wrong.append(name)
    assert wrong == different
