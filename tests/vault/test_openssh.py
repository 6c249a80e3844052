"""Keys and certificates in OpenSSH's formats, held against OpenSSH itself."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.errors import ProtocolError
from prism_vault_agent.vault import openssh

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.tool("ssh-keygen")


def keygen(*words: str | Path) -> str:
    """Run ssh-keygen, which must succeed; return what it says."""
    return subprocess.run(["ssh-keygen", *words], check=True, capture_output=True, text=True).stdout


def written(tmp_path: Path, name: str, text: str) -> Path:
    """Write a key as ssh wants it."""
    path = tmp_path / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_openssh_reads_the_pair(tmp_path):
    """The private key is a file that OpenSSH reads without a passphrase, and the public one is its other half."""
    for number in range(8):  # the padding depends on nothing but lengths; the numbers differ
        pair = openssh.pair("x" * number)
        path = written(tmp_path, f"key{number}", pair.private)
        assert keygen("-y", "-f", path).split()[:2] == pair.public.split()[:2]
        assert keygen("-l", "-f", path).startswith("256 ")


def test_no_two_pairs_are_alike():
    """Each pair is of randomness of its own, and neither shows in what is printed of it."""
    pairs = [openssh.pair("c") for _ in range(16)]
    assert len({pair.private for pair in pairs}) == len({pair.public for pair in pairs}) == 16
    assert "PRIVATE" not in repr(pairs[0])


@pytest.fixture(scope="module")
def signed(tmp_path_factory) -> tuple[str, str, str]:
    """Return a certificate that ssh-keygen signed, the line of its key, and the line of who signed it."""
    place: Path = tmp_path_factory.mktemp("ssh")
    authority, pair = openssh.pair("ca"), openssh.pair("c")
    written(place, "ca", authority.private)
    written(place, "key.pub", pair.public)
    keygen("-q", "-s", place / "ca", "-I", "id", "-n", "deploy,ops", "-V", "20260101Z:20360101Z", "-z", "7", place / "key.pub")
    return (place / "key-cert.pub").read_text(), pair.public, authority.public


def test_a_certificate_says_what_openssh_wrote_into_it(signed):
    """Key, principals, end and authority are those of the certificate."""
    certificate, key, authority = signed
    assert openssh.says(certificate) == openssh.Says(
        key.split()[1], host=False, principals=("deploy", "ops"), ends=2082758400, authority=authority.split()[1]
    )


@pytest.mark.parametrize("at", range(0, 300, 23))
def test_what_is_cut_or_changed_in_its_frame_is_no_certificate(signed, at):
    """A certificate that is cut anywhere, or followed by more, is refused, and the error shows none of it."""
    kind, text = signed[0].split()[:2]
    for wrong in (
        f"{kind} {text[:at]}",
        f"{kind} {text[:-4]}",
        f"ssh-rsa-cert-v01@openssh.com {text}",
        f"{kind} {text}AAAA",
        kind,
        "",
    ):
        with pytest.raises(ProtocolError) as refused:
            openssh.says(wrong)
        assert text[:8] not in refused.value.line()


def test_a_public_key_is_no_certificate(signed):
    """The line of a key is not that of a certificate."""
    with pytest.raises(ProtocolError):
        openssh.says(signed[1])
