"""Certificates of a scope: what is written becomes what is asked for, and what cannot be asked for is told with its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.config.load import load
from prism_vault_agent.config.plain import from_plain, to_plain
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.scope import ScopeName
from prism_vault_agent.wanted.certificate import Certificate
from tests.config.written import BASE, ENV, ENVIRON, SCOPE, write

if TYPE_CHECKING:
    from pathlib import Path

    from prism_vault_agent.scope import Scope

KEYS = 'CERT = "vault://pki/issue/web#certificate"\nKEY = "vault://pki/issue/web#private_key"\nOTHER = "vault://secret/web#key"\n'
TABLE = '[scopes.web.certificates."pki/issue/web"]\n'


def scope(tmp_path: Path, entry: str, more: str = "") -> Scope:
    """Return the scope with a certificate as ``entry`` says; the same comes out of its compiled form."""
    settings = load(write(tmp_path, BASE + SCOPE + more + ENV + KEYS + TABLE + entry), ENVIRON)
    assert from_plain(to_plain(settings)) == settings
    return settings.scopes[ScopeName("web")]


def test_all_keys_of_a_certificate_are_asked_for_alike(tmp_path):
    """Bindings of the path have the certificate, so they are of one issue; others have none."""
    found = scope(tmp_path, 'common_name = "web.lan"\ndns = ["*.web.lan"]\nuris = ["spiffe://p/w"]\nips = ["::1"]\nttl = "2h"\n')
    wanted = Certificate("web.lan", ("*.web.lan",), ("spiffe://p/w",), ("::1",), 7200)
    assert [binding.wanted for binding in found.bindings] == [wanted, wanted, None]


@pytest.mark.parametrize(("more", "seconds"), [("", 168 * 3600), ('ttl = "1h"\n', 3600), ('ttl = "700h"\n', 168 * 3600)])
def test_it_lives_a_week_and_no_longer_than_its_scope_says(tmp_path, more, seconds):
    """Where nothing is said it lives a week; ``ttl`` of the scope makes that shorter and never longer."""
    certificate = scope(tmp_path, 'common_name = "web.lan"\n', more).bindings[0].wanted
    assert isinstance(certificate, Certificate) and certificate.seconds == seconds


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ('common_name = "web lan"', "is not a DNS name"),
        ('common_name = "a,b"', "is not a DNS name"),
        ('common_name = ""', "is not a DNS name"),
        ('common_name = "a"\ndns = ["-a.lan"]', "is not a DNS name"),
        ('common_name = "a"\nuris = ["web.lan"]', "is not a URI"),
        ('common_name = "a"\nuris = ["spiffe://a,b"]', "is not a URI"),
        ('common_name = "a"\nips = ["10.0.0.256"]', "is not an IP address"),
        ('common_name = "a"\nttl = "8000h"', "is not the life of a lease"),
        ('common_name = "a"\nserial = "1"', "is not a known key"),
        ('dns = ["a.lan"]', "common_name"),
    ],
)
def test_what_no_engine_can_be_asked_for_is_told(tmp_path, entry, told):
    """A name that could be read as two, or as none, is an error of the configuration."""
    with pytest.raises(ConfigError) as refused:
        scope(tmp_path, entry + "\n")
    assert told in refused.value.message and "certificates" in refused.value.message


def test_a_certificate_that_nobody_binds_is_told(tmp_path):
    """A path that no reference names is a misspelling."""
    with pytest.raises(ConfigError, match="no reference of the scope names"):
        load(
            write(tmp_path, BASE + SCOPE + ENV + KEYS + '[scopes.web.certificates."pki/issue/wbe"]\ncommon_name = "a"\n'), ENVIRON
        )
