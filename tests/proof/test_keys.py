"""Keys as text, and what they sign."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.errors import ConfigError
from prism_vault_agent.proof.keys import Signer, SigningKey, VerifyingKey, from_base64, to_base64

# The example in the documentation of golang.org/x/mod/sumdb/note.
PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
NAMES = st.text(min_size=1, max_size=20).filter(lambda name: not any(c.isspace() or c == "+" or c < " " for c in name))


def test_the_published_keys_are_read_and_written():
    """A pair of keys that others published is read, belongs together, and is written as it was."""
    private, public = SigningKey.parse(PRIVATE), VerifyingKey.parse(PUBLIC)
    assert private.verifying_key == public
    assert (public.name, public.key_hash.hex()) == ("PeterNeumann", "c74f20a3")
    assert (str(public), private.private_text()) == (PUBLIC, PRIVATE)


# RFC 8032, section 7.1: the secret key, the public key, the message and the signature of tests 1 to 3.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "public", "text", "signature"), RFC_8032)
def test_signatures_are_those_of_the_rfc(seed, public, text, signature):
    """The vectors of RFC 8032 give the keys and signatures that it lists."""
    key = SigningKey.from_seed("rfc8032", bytes.fromhex(seed))
    assert key.verifying_key.public.hex() == public
    assert key.sign(bytes.fromhex(text)).hex() == signature
    assert key.verifying_key.verifies(bytes.fromhex(text), bytes.fromhex(signature))


def test_a_signature_is_of_one_text_by_one_key():
    """Another text, another key, a changed bit or another length does not verify."""
    key, other = SigningKey.generate("one"), SigningKey.generate("one")
    signature = key.sign(b"text")
    public = key.verifying_key
    assert public.verifies(b"text", signature)
    assert not public.verifies(b"texts", signature)
    assert not other.verifying_key.verifies(b"text", signature)
    flipped = (int.from_bytes(signature) ^ 1 << bit for bit in range(512))
    assert not any(public.verifies(b"text", number.to_bytes(64)) for number in flipped)
    assert not any(public.verifies(b"text", wrong) for wrong in (b"", signature[:-1], signature + b"\0", b"text" + signature))


def test_a_key_at_hand_is_a_signer():
    """A key signs many texts as it signs each."""
    signer: Signer = SigningKey.generate("log")
    texts = [b"", b"one", b"two"]
    signatures = signer.sign_many(texts)
    assert all(map(signer.verifying_key.verifies, texts, signatures))
    assert len(set(signatures)) == 3


@given(NAMES, st.binary(min_size=32, max_size=32))
def test_keys_make_the_round_as_text(name: str, seed: bytes) -> None:
    """Whatever the name, what is written is read back as the same key."""
    key = SigningKey.from_seed(name, seed)
    assert SigningKey.parse(key.private_text()) == key
    assert VerifyingKey.parse(str(key.verifying_key)) == key.verifying_key


@given(st.sampled_from([PUBLIC, PRIVATE]), st.data())
def test_a_key_with_a_changed_character_is_refused(text: str, data: st.DataObject) -> None:
    """No single character of a key can be changed, left out or added: its hash, or its form, tells."""
    place = data.draw(st.integers(0, len(text)))
    added = data.draw(st.characters(codec="utf-8") | st.sampled_from("+= \nA0"))
    for changed in {
        text[:place] + text[place + 1 :],
        text[:place] + added + text[place:],
        text[:place] + added + text[place + 1 :],
    }:
        if changed != text:
            with pytest.raises(ConfigError):
                (SigningKey if text is PRIVATE else VerifyingKey).parse(changed)


@pytest.mark.parametrize(
    "text",
    ["", "+", "++", "name", "name+c74f20a3", PRIVATE, f" {PUBLIC}", f"{PUBLIC}\n", PUBLIC.replace("c74f20a3", "C74F20A3")],
)
def test_what_is_no_verifying_key_is_refused(text):
    """What is not a whole key is told so, with its form."""
    with pytest.raises(ConfigError, match=r"name\+hash\+base64"):
        VerifyingKey.parse(text)


def test_a_key_of_another_kind_is_refused():
    """A key whose first byte says another algorithm is not read as one of Ed25519."""
    name, hashed, encoded = PUBLIC.split("+", 2)
    other = to_base64(b"\x02" + from_base64(encoded)[1:])
    with pytest.raises(ConfigError):
        VerifyingKey.parse(f"{name}+{hashed}+{other}")


@pytest.mark.parametrize("name", ["", "two words", "plus+sign", "tab\t", "line\n", "no\N{NO-BREAK SPACE}break", "\ud800", "\x00"])
def test_a_name_that_no_note_can_carry_is_refused(name):
    """A key's name has no space, no plus sign, no control character, and can be written."""
    with pytest.raises(ConfigError, match="name"):
        SigningKey.generate(name)


def test_a_private_key_is_never_shown():
    """Neither the key as an object nor the refusal of one that is cut short shows any of it."""
    secret = PRIVATE.rpartition("+")[2]
    assert secret[:8] not in repr(SigningKey.parse(PRIVATE))
    with pytest.raises(ConfigError) as refused:
        SigningKey.parse(PRIVATE[:-1])
    assert secret[:8] not in refused.value.line()
    assert refused.value.__cause__ is None


@given(st.binary(max_size=40))
def test_base64_has_one_spelling(data: bytes) -> None:
    """Bytes are read from the one text that is written for them."""
    text = to_base64(data)
    assert from_base64(text) == data
    for other in (f"{text}=", f"{text}\n", f" {text}", text.rstrip("=") + "\N{FULLWIDTH DIGIT ONE}"):
        assert from_base64(other) == b""
    if text.endswith("="):
        assert from_base64(text.rstrip("=")) == b""
