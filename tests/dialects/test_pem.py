"""PEM made whole again: what stores do to line ends is undone, and what is no PEM is refused without its text."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from trustme import CA

from prism_vault_agent.dialects.pem import WIDTH, wrapped

CERTIFICATE = CA().issue_cert("server1.lan")
CHAIN = b"".join(each.bytes() for each in CERTIFICATE.cert_chain_pems).decode()
KEY = CERTIFICATE.private_key_pem.bytes().decode()


@pytest.mark.parametrize(
    "harm",
    [
        lambda text: text,
        lambda text: text.strip(),
        lambda text: text.replace("\n", "\\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\\r\\n"),
        lambda text: text.replace("\n", " "),
        lambda text: text.replace("\n", ""),
        lambda text: f"\n\n  {text}\n\n",
    ],
    ids=["whole", "no-end", "escaped", "crlf", "escaped-crlf", "spaces", "one-line", "around"],
)
@pytest.mark.parametrize("text", [KEY, KEY + CHAIN], ids=["key", "both"])
def test_what_was_harmed_is_whole_again(harm, text: str):
    """Whatever became of its line ends, each block is that of before, in lines of 64, and OpenSSL reads it."""
    made = wrapped(harm(text))
    assert made == text
    assert max(map(len, made.splitlines())) == WIDTH
    assert load_pem_private_key(made.encode(), None) is not None
    if text != KEY:
        assert x509.load_pem_x509_certificates(made.encode()) == x509.load_pem_x509_certificates(CHAIN.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "canary-51d8e0",
        KEY + "canary-51d8e0",
        "canary-51d8e0" + KEY,
        KEY.replace("END", "ENDE"),
        KEY.replace("-----END", "-----END OTHER"),
        "-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END A-----\n",
        "-----BEGIN A-----\nAAA\n-----END A-----\n",
        "-----BEGIN A-----\nAA=A\n-----END A-----\n",
        "-----BEGIN A-----\nAA*A\n-----END A-----\n",
    ],
)
def test_what_is_no_pem_is_refused(text: str):
    """Text beside the blocks, headers, a block without its end, or what is not base64 is refused, and not repeated."""
    with pytest.raises(ValueError, match=r"^is not PEM: ") as refused:
        wrapped(text)
    assert "canary" not in str(refused.value)


def test_a_block_of_any_length_is_wrapped():
    """Of a block of one byte or a full line no line is empty or too long."""
    for count in (1, 47, 48, 49, 96):
        body = base64.b64encode(bytes(count)).decode()
        lines = wrapped(f"-----BEGIN A-----{body}-----END A-----").splitlines()
        assert "".join(lines[1:-1]) == body and all(0 < len(line) <= WIDTH for line in lines[1:-1])
