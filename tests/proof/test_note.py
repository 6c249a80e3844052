"""Notes and checkpoints, as C2SP defines them."""

from __future__ import annotations

import pytest

from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.proof.keys import SigningKey, VerifyingKey
from prism_vault_agent.proof.note import Checkpoint, open_checkpoint, open_note, seal
from tests.proof.trees import CT_ROOTS

# From the documentation of golang.org/x/mod/sumdb/note, BSD-3-Clause: its key, text and signature.
PETER = VerifyingKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
PETER_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_NOTE = f"""{PETER_TEXT}
— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""


def test_the_published_example_opens():
    """A note that others signed opens, and its key is written as it was read."""
    assert open_note(PETER_NOTE, PETER) == PETER_TEXT
    assert str(PETER) == "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"


def test_a_checkpoint_makes_the_round():
    """What central seals, a host opens and reads."""
    key = SigningKey.parse(SigningKey.generate("log.example/one").private_text())
    checkpoint = Checkpoint("log.example/one", 8, bytes.fromhex(CT_ROOTS[8]))
    text = checkpoint.text()
    [signature] = key.sign_many([text.encode()])
    note = seal(text, key.verifying_key, signature)
    assert open_checkpoint(note, "log.example/one", key.verifying_key) == checkpoint
    with pytest.raises(IntegrityError):
        open_checkpoint(note, "log.example/one", PETER)
    with pytest.raises(IntegrityError):
        open_checkpoint(note, "log.example/two", key.verifying_key)
