"""SSH certificates of a scope: what is written becomes what is asked for, and what cannot be is told with its key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.config.load import load
from prism_vault_agent.config.plain import from_plain, to_plain
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.scope import ScopeName
from prism_vault_agent.wanted.ssh_certificate import SshCertificate
from tests.config.written import BASE, ENV, ENVIRON, SCOPE, write

if TYPE_CHECKING:
    from pathlib import Path

    from prism_vault_agent.scope import Scope

KEYS = 'KEY = "vault://ssh/sign/web#private_key"\nCERT = "vault://ssh/sign/web#signed_key"\nOTHER = "vault://secret/web#key"\n'
TABLE = '[scopes.web.ssh."ssh/sign/web"]\n'
BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIHd5QBhel56F4ObTUxUSBsKq952ujIbobbay43H25OQi"


def scope(tmp_path: Path, entry: str, more: str = "") -> Scope:
    """Return the scope with a certificate as ``entry`` says; the same comes out of its compiled form."""
    settings = load(write(tmp_path, BASE + SCOPE + more + ENV + KEYS + TABLE + entry), ENVIRON)
    assert from_plain(json.loads(json.dumps(to_plain(settings)))) == settings
    return settings.scopes[ScopeName("web")]


def test_all_parts_are_asked_for_alike(tmp_path):
    """Bindings of the path have the certificate, so key and certificate are of one issue; others have none."""
    entry = f'principals = ["deploy", "ops", "deploy"]\nca = ["ssh-ed25519 {BLOB} ca"]\nttl = "2h"\n'
    more = 'extensions = { permit-pty = "" }\ncritical_options = { force-command = "/bin/id" }\n'
    found = scope(tmp_path, entry + more)
    options, extensions = (("force-command", "/bin/id"),), (("permit-pty", ""),)
    wanted = SshCertificate(("deploy", "ops"), "user", options, extensions, (BLOB,), 7200)
    assert [binding.wanted for binding in found.bindings] == [wanted, wanted, None]


@pytest.mark.parametrize(("more", "seconds"), [("", 86_400), ('ttl = "1h"\n', 3600), ('ttl = "700h"\n', 86_400)])
def test_it_lives_a_day_and_no_longer_than_its_scope_says(tmp_path, more, seconds):
    """Where nothing is said it lives a day with the role's extensions; ``ttl`` of the scope makes that shorter, never longer."""
    found = scope(tmp_path, 'principals = ["deploy"]\n', more).bindings[0].wanted
    assert found == SshCertificate(("deploy",), "user", (), None, (), seconds)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("principals = []", "principals"),
        ('cert_type = "user"', "principals"),
        ('principals = ["a,b"]', "more than one principal"),
        ('principals = [""]', "principals"),
        ('principals = ["a"]\ncert_type = "both"', "cert_type"),
        ('principals = ["a"]\nca = ["ssh-ed25519 short"]', "is not a public key of SSH"),
        ('principals = ["a"]\nca = ["cert-authority"]', "is not a public key of SSH"),
        ('principals = ["a"]\nttl = "8000h"', "is not the life of a lease"),
        ('principals = ["a"]\nkey_type = "rsa"', "write 'ed25519'"),
        ('principals = ["a"]\nkey = "rsa"', "is not a known key"),
    ],
)
def test_what_no_engine_can_be_asked_for_is_told(tmp_path, entry, told):
    """A certificate for everybody, for two in one word, or of an authority that is none is an error of the configuration."""
    with pytest.raises(ConfigError) as refused:
        scope(tmp_path, entry + "\n")
    assert told in refused.value.line() and "ssh" in refused.value.message


def test_a_certificate_that_nobody_binds_is_told(tmp_path):
    """A path that no reference names is a misspelling, and one path is not of two kinds."""
    with pytest.raises(ConfigError, match="no reference of the scope names"):
        scope(tmp_path, 'principals = ["a"]\n[scopes.web.ssh."ssh/sign/wbe"]\nprincipals = ["a"]\n')
    with pytest.raises(ConfigError, match="is in certificates too"):
        scope(tmp_path, 'principals = ["a"]\n[scopes.web.certificates."ssh/sign/web"]\ncommon_name = "a"\n')
