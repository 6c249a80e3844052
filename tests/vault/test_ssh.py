"""What the answer of an SSH engine means, whatever it says: a certificate of our key for whom we named, or none."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.errors import ConfigError, PrismVaultError, ProtocolError, ProviderUnavailable
from prism_vault_agent.vault import openssh, ssh
from prism_vault_agent.vault.kv import Place
from prism_vault_agent.vault.transport import Answer
from prism_vault_agent.wanted.ssh_certificate import SshCertificate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.tool("ssh-keygen")

OURS, OTHERS, AUTHORITY = (openssh.pair(name) for name in ("ours", "others", "ca"))


def certificate(tmp_path: Path, *options: str, key: openssh.Pair = OURS) -> str:
    """Return a certificate of a key as ssh-keygen signs it, for ``deploy`` unless ``options`` say otherwise."""
    for name, text in (("ca", AUTHORITY.private), ("key.pub", key.public)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    words = options or ("-n", "deploy", "-V", "-1m:+1h")
    subprocess.run(["ssh-keygen", "-q", "-s", tmp_path / "ca", "-I", "id", *words, tmp_path / "key.pub"], check=True)
    return (tmp_path / "key-cert.pub").read_text()


def understood(signed: object, *authorities: str) -> int:
    """Return for how long a certificate lives that is answered for ours."""
    wanted = SshCertificate(("deploy",), "user", (), None, authorities, 600)
    data = {"signed_key": signed, "private_key": OURS.private, "public_key": OURS.public, "serial_number": "1"}
    parts, lease = ssh.understand(Place("ssh/sign/web", None, wanted), Answer(200, {"data": data}), wanted)
    assert parts == {**data, "signed_key": str(signed).strip() + "\n"}
    return lease.seconds


def test_it_lives_no_longer_than_was_asked_for(tmp_path):
    """A certificate that the server lets live longer, or for ever, ends by our clock when it was to."""
    assert understood(certificate(tmp_path)) == 600
    assert understood(certificate(tmp_path, "-n", "deploy")) == 600
    assert 0 < understood(certificate(tmp_path, "-n", "deploy", "-V", "-1m:+5m"), AUTHORITY.public.split()[1]) <= 300


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        (("-n", "root", "-V", "-1m:+1h"), ProtocolError, "names others"),
        (("-n", "deploy,root", "-V", "-1m:+1h"), ProtocolError, "names others"),
        (("-V", "-1m:+1h"), ProtocolError, "names others"),
        (("-h", "-n", "deploy", "-V", "-1m:+1h"), ProtocolError, "another key or type"),
        (("-n", "deploy", "-V", "-2h:-1h"), ProviderUnavailable, "has ended"),
    ],
    ids=["another", "one more", "everybody", "of a host", "ended"],
)
def test_another_certificate_is_refused(tmp_path, options, kind, told):
    """One that names others, or everybody, is of another type or has ended is not released."""
    with pytest.raises(PrismVaultError, match=told) as refused:
        understood(certificate(tmp_path, *options))
    assert isinstance(refused.value, kind)


def test_a_certificate_of_another_key_or_authority_is_refused(tmp_path):
    """What is not of the key that was made here, or not signed by whom the scope names, is not released."""
    with pytest.raises(ProtocolError, match="another key"):
        understood(certificate(tmp_path, key=OTHERS))
    with pytest.raises(ConfigError, match="another authority"):
        understood(certificate(tmp_path), OTHERS.public.split()[1])


NONE = [None, 7, "", "CANARY", OURS.public, "ssh-ed25519-cert-v01@openssh.com CANARY"]


@pytest.mark.parametrize("signed", NONE, ids=["missing", "a number", "empty", "a word", "a key", "no base64"])
def test_f10_what_is_no_certificate_is_an_error_that_shows_nothing(signed):
    """A field of another shape is told as such and not quoted."""
    with pytest.raises(ProtocolError) as refused:
        understood(signed)
    assert "CANARY" not in refused.value.line()
