"""Notes and checkpoints, as C2SP defines them."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.proof.keys import SigningKey, VerifyingKey
from prism_vault_agent.proof.note import LARGEST_NOTE, Checkpoint, open_checkpoint, open_note, seal
from tests.proof.test_keys import PRIVATE, PUBLIC
from tests.proof.trees import CT_ROOTS

# The example in the documentation of golang.org/x/mod/sumdb/note.
PETER_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_NOTE = f"""{PETER_TEXT}
— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""
# The examples of c2sp.org/signed-note and c2sp.org/tlog-checkpoint; their keys are not published.
QUASIMODO = """Ognuno sta solo sul cuor della terra
trafitto da un raggio di sole:

ed è subito sera.

— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=
"""
SOFA = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
SOFA_LINE = (
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)

PETER = VerifyingKey.parse(PUBLIC)
KEY = SigningKey.from_seed("log.example/one", bytes(range(32)))
CHECKPOINT = Checkpoint("log.example/one", 8, bytes.fromhex(CT_ROOTS[8]))


def _sealed(text: str, key: SigningKey = KEY) -> str:
    return seal(text, key.verifying_key, key.sign(text.encode()))


def _line(note: str) -> str:
    """Return the signature line of a note with one."""
    return note.rpartition("\n\n")[2]


NOTE = _sealed(CHECKPOINT.text())


def test_the_published_example_is_opened_and_sealed():
    """A note that others signed opens with their key, and with their private key ours is the same to the byte."""
    assert open_note(PETER_NOTE, PETER) == PETER_TEXT
    assert _sealed(PETER_TEXT, SigningKey.parse(PRIVATE)) == PETER_NOTE


@pytest.mark.parametrize("note", [QUASIMODO, f"{SOFA}\n{SOFA_LINE}"])
def test_the_specifications_examples_are_notes_of_somebody_else(note):
    """The examples of C2SP are read as notes, and refused only because their keys are not ours."""
    with pytest.raises(IntegrityError, match=r"not signed by PeterNeumann\+c74f20a3"):
        open_note(note, PETER)


def test_the_specifications_checkpoint_is_read():
    """The text of C2SP's example is read, and written the same."""
    checkpoint = Checkpoint.parse(SOFA)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert checkpoint.text() == SOFA


def test_a_checkpoint_makes_the_round():
    """What central seals, a host opens; with another key, or as another log's, it is refused with what to do."""
    assert open_checkpoint(NOTE, "log.example/one", KEY.verifying_key) == CHECKPOINT
    with pytest.raises(IntegrityError) as refused:
        open_checkpoint(NOTE, "log.example/one", PETER)
    assert refused.value.line() == (
        "a note is not signed by PeterNeumann+c74f20a3; "
        "keep it as evidence, and compare the key with the one that central's operator gives"
    )
    with pytest.raises(IntegrityError, match=r"not of the log log\.example/two"):
        open_checkpoint(NOTE, "log.example/two", KEY.verifying_key)


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.just("\n"), max_size=60).map("{}\n".format)


@given(TEXTS)
def test_any_text_can_be_a_note(text: str) -> None:
    """Whatever lines a text has, empty ones too, it comes out of its note as it went in."""
    assert open_note(_sealed(text), KEY.verifying_key) == text


@given(st.sampled_from([NOTE, PETER_NOTE]), st.data())
def test_no_character_of_a_note_can_be_changed(note: str, data: st.DataObject) -> None:
    """A character that is changed, left out or added anywhere makes a note that is refused."""
    place = data.draw(st.integers(0, len(note)))
    added = data.draw(st.characters() | st.sampled_from("\n —+=A\x00\r"))
    changed = data.draw(
        st.sampled_from(
            [note[:place] + note[place + 1 :], note[:place] + added + note[place:], note[:place] + added + note[place + 1 :]]
        )
    )
    assume(changed != note)
    with pytest.raises(IntegrityError):
        open_note(changed, KEY.verifying_key, PETER)


def test_no_bit_of_a_checkpoint_can_be_changed():
    """Each single bit of a signed checkpoint counts, that of its size and its root among them."""
    sealed = NOTE.encode()
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            open_checkpoint(changed.decode(errors="surrogateescape"), "log.example/one", KEY.verifying_key)


@given(st.data())
def test_pieces_of_notes_are_no_note(data: st.DataObject) -> None:
    """Lines of two signed notes, put together in any other way, are refused or are one of the two texts."""
    other = _sealed(Checkpoint("log.example/one", 9, bytes(32)).text())
    lines = [*NOTE.splitlines(keepends=True), *other.splitlines(keepends=True)]
    made = "".join(data.draw(st.lists(st.sampled_from(lines), max_size=9)))
    try:
        opened = open_checkpoint(made, "log.example/one", KEY.verifying_key)
    except IntegrityError:
        return
    assert opened.text() in (CHECKPOINT.text(), Checkpoint("log.example/one", 9, bytes(32)).text())


def test_signatures_of_others_are_ignored():
    """Lines of other keys, of one with the same name, and of other kinds of keys do not change what a note says."""
    namesake = SigningKey.generate(KEY.verifying_key.name)
    text = CHECKPOINT.text()
    lines = [_line(_sealed(text, signer)) for signer in (namesake, SigningKey.generate("witness"))]
    long = f"— post-quantum {'A' * 4 * 1644}\n"
    others_first = f"{text}\n{lines[0]}{lines[1]}{_line(NOTE)}"
    for note in (NOTE + lines[0] + lines[1], others_first, NOTE + long * 15):
        assert open_checkpoint(note, "log.example/one", KEY.verifying_key) == CHECKPOINT
    assert open_note(others_first, PETER, namesake.verifying_key) == text


def test_one_wrong_signature_by_a_known_key_refuses_the_note():
    """A note with a good and a bad signature by keys of ours is refused, in whichever order."""
    other = SigningKey.generate("log.example/one")
    text = CHECKPOINT.text()
    good, bad = _line(NOTE), _line(seal(text, other.verifying_key, other.sign(b"something else")))
    for note in (f"{text}\n{good}{bad}", f"{text}\n{bad}{good}"):
        assert open_note(note, KEY.verifying_key) == text
        with pytest.raises(IntegrityError, match="does not verify"):
            open_note(note, KEY.verifying_key, other.verifying_key)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "\n\n",
        "text\n",
        "text\n\n",
        "text\n\n\n",
        "text\n\nno signature\n",
        "text\n\n— name\n",
        "text\n\n— name \n",
        "text\n\n— name AAAA\n",
        "text\n\n— na+me AAAAAAA=\n",
        "text\n\n—  AAAAAAA=\n",
        "text\n\n-- name AAAAAAA=\n",
        "text\n\n— name AAAAAAA= \n",
        "text\n\n— name AAAAAAB=\n",
        "text\n\n— name AAAAAAA=",
        "te\rxt\n\n— name AAAAAAA=\n",
        "te\x00xt\n\n— name AAAAAAA=\n",
        "te\ud800xt\n\n— name AAAAAAA=\n",
    ],
)
def test_what_is_not_a_note_is_told_so(note):
    """Text of another form is malformed, not merely signed by somebody else."""
    with pytest.raises(IntegrityError, match="malformed"):
        open_note(note, KEY.verifying_key)


def test_a_note_that_is_too_long_is_refused_before_it_is_read():
    """A note has a largest length, whatever it is signed with."""
    text = "x" * (LARGEST_NOTE - 150) + "\n"
    assert open_note(_sealed(text), KEY.verifying_key) == text
    with pytest.raises(IntegrityError, match="more than 131072 characters"):
        open_note(_sealed("x" * LARGEST_NOTE + "\n"), KEY.verifying_key)


ROOT = "XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg="


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "log\n8\n",
        f"log\n8\n{ROOT}",
        f"\n8\n{ROOT}\n",
        f"log\n\n{ROOT}\n",
        f"log\n08\n{ROOT}\n",
        f"log\n-8\n{ROOT}\n",
        f"log\n+8\n{ROOT}\n",
        f"log\n8.0\n{ROOT}\n",
        f"log\n\N{ARABIC-INDIC DIGIT EIGHT}\n{ROOT}\n",
        f"log\n{10**18}\n{ROOT}\n",
        f"log\n8\n{ROOT[:-1]}\n",
        f"log\n8\n{ROOT[:-4]}\n",
        f"log\n8\n{ROOT[:-2]}h=\n",
        f"log\n8\n{ROOT}\n\n",
        f"log\n8\n{ROOT}\n\nmore\n",
    ],
)
def test_what_is_not_a_checkpoint_is_told_so(text):
    """A signed text of another form than a checkpoint's one spelling is refused."""
    with pytest.raises(IntegrityError, match="not a checkpoint's"):
        Checkpoint.parse(text)


LINES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20)


@given(LINES, st.integers(0, 10**18 - 1), st.binary(min_size=32, max_size=32), st.lists(LINES, max_size=3))
def test_any_checkpoint_is_read_as_it_was_written(origin: str, size: int, root: bytes, extension: list[str]) -> None:
    """What is written is read back as the same, further lines too."""
    checkpoint = Checkpoint(origin, size, root, tuple(extension))
    assert Checkpoint.parse(checkpoint.text()) == checkpoint
