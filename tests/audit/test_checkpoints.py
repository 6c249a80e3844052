"""What central's answers about its log mean: it is the one that we know, or another one, or nothing can be told now."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.audit.checkpoints import CHECKPOINT, PROOF, grown, included
from prism_vault_agent.errors import AuditUnavailable, IntegrityError
from prism_vault_agent.proof.keys import SigningKey
from tests.audit.signed_log import KEY, NAME, SignedLog

PUBLIC = KEY.verifying_key
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["code", "note", "proof", "index", "leaf"]), inner)
    ),
    max_leaves=8,
)


def _log(*sizes: int) -> SignedLog:
    log = SignedLog()
    for size in sizes:
        log.append(*(b"%d" % (log.n + number) for number in range(size)))
    return log


def _asked(log: SignedLog, path: str) -> tuple[int, bytes]:
    return asyncio.run(log.get(path))


def _changed(answer: tuple[int, bytes], **more: Any) -> tuple[int, bytes]:
    return answer[0], json.dumps({**json.loads(answer[1]), **more}).encode()


@pytest.mark.parametrize(("old", "new"), [(0, 1), (0, 9), (1, 9), (5, 8), (8, 8)])
def test_a_log_that_grew_is_the_one_that_we_know(old: int, new: int) -> None:
    """Central's own answer leads from any checkpoint, or from none, to its newest one, which is returned with its note."""
    log = _log(new)
    held = log.checkpoint(old) if old else None
    assert grown([PUBLIC], held, *_asked(log, CHECKPOINT.format(size=old))) == (log.checkpoint(new), log.note(new))


def test_an_empty_log_has_no_checkpoint_yet() -> None:
    """Before the first row there is nothing to hold; after it, a log without a checkpoint has gone back to nothing."""
    answer = _asked(SignedLog(), CHECKPOINT.format(size=0))
    assert grown([PUBLIC], None, *answer) is None
    with pytest.raises(IntegrityError, match="went back to 0 rows, after a checkpoint about 3"):
        grown([PUBLIC], _log(3).checkpoint(3), *_asked(SignedLog(), CHECKPOINT.format(size=3)))


def test_a_log_that_went_back_is_another() -> None:
    """Central says that it has fewer rows than we know: its log went back, by its own signature."""
    with pytest.raises(IntegrityError, match="went back to 2 rows, after a checkpoint about 3"):
        grown([PUBLIC], _log(3).checkpoint(3), *_asked(_log(2), CHECKPOINT.format(size=3)))


@pytest.mark.parametrize("size", [3, 4, 9])
def test_a_fork_is_another_log(size: int) -> None:
    """A log that does not begin with the rows that we know of is another one, however large it is."""
    ours, theirs = _log(3), SignedLog()
    theirs.append(*(b"other %d" % number for number in range(size)))
    with pytest.raises(IntegrityError, match=r"two logs|is not shown to begin"):
        grown([PUBLIC], ours.checkpoint(3), *_asked(theirs, CHECKPOINT.format(size=3)))


def test_a_checkpoint_of_another_key_or_origin_is_another_log() -> None:
    """A note that our key did not sign, or that is about another log, is refused however well it fits."""
    forged = SignedLog(key=SigningKey.generate(NAME))
    forged.append(b"x")
    with pytest.raises(IntegrityError, match="not signed by"):
        grown([PUBLIC], None, *_asked(forged, CHECKPOINT.format(size=0)))
    renamed = SignedLog(origin="log.example/two")
    renamed.append(b"x")
    with pytest.raises(IntegrityError, match=f"not of the log {NAME}"):
        grown([PUBLIC], None, *_asked(renamed, CHECKPOINT.format(size=0)))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 503])
def test_any_other_status_proves_nothing(status: int) -> None:
    """An answer that is not about the log is no reason for an alarm, and none to believe."""
    held = _log(3).checkpoint(3)
    for content in (b"", b"{}", b"[]", b'{"code": "unknown"}', b"[" * 100_000):
        for checkpoint in (held, None):
            with pytest.raises(AuditUnavailable):
                grown([PUBLIC], checkpoint, status, content)
        with pytest.raises(AuditUnavailable):
            included(1, bytes(32), held, status, content)


@given(st.sampled_from([200, 404, 409, 500]), JSON | st.binary(max_size=40))
def test_any_answer_is_one_of_the_three(status: int, content: Any) -> None:
    """Whatever central answers, nothing is raised but that it is another log, or that nothing can be told."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    held = _log(3).checkpoint(3)
    for checkpoint in (held, None):
        with contextlib.suppress(AuditUnavailable, IntegrityError):
            assert grown([PUBLIC], checkpoint, status, body) is None
    with contextlib.suppress(AuditUnavailable, IntegrityError):
        assert included(1, bytes(32), held, status, body) is False


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_every_row_is_proved_in_the_tree_that_we_hold(size: int) -> None:
    """Central's proof of each row verifies with the checkpoint that we hold, also when its log has grown since."""
    log = _log(size, 5)
    held = log.checkpoint(size)
    for n, leaf in log.rows[:size]:
        assert included(n, leaf, held, *_asked(log, PROOF.format(n=n, size=size)))
    assert not included(*log.rows[size], held, *_asked(log, PROOF.format(n=size + 1, size=size)))


def test_a_row_that_was_signed_for_and_is_not_there_is_another_log() -> None:
    """A row that the log does not have, has as another one, or cannot prove, is the end of trust."""
    log = _log(4)
    held, (n, leaf) = log.checkpoint(4), log.rows[2]
    answer = _asked(log, PROOF.format(n=n, size=4))
    with pytest.raises(IntegrityError, match="row 9 is not on the log"):
        included(9, leaf, held, *_asked(log, PROOF.format(n=9, size=4)))
    with pytest.raises(IntegrityError, match="is another one"):
        included(n, bytes(32), held, *answer)
    changes: list[dict[str, Any]] = [{"index": index} for index in (1, True, None, 9)]
    changes += [{"proof": []}, {"proof": ["00" * 32] * 2}]
    for change in changes:
        with pytest.raises(IntegrityError, match="is not shown to be in the log of 4 rows"):
            included(n, leaf, held, *_changed(answer, **change))
    for proof in (None, "", [1], ["x"], ["00" * 32] * 200):
        with pytest.raises(AuditUnavailable, match="wrong shape"):
            included(n, leaf, held, *_changed(answer, proof=proof))
