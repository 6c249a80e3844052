"""What keys of transit decrypt for a scope: what is written becomes what is asked for, and the rest is told with its key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.config.load import load
from prism_vault_agent.config.plain import from_plain, to_plain
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.scope import ScopeName, SecretReference
from prism_vault_agent.wanted.decryption import Ciphertext, Decryption
from tests.config.written import BASE, ENV, ENVIRON, SCOPE, write

if TYPE_CHECKING:
    from pathlib import Path

    from prism_vault_agent.scope import Scope

KEYS = 'A = "vault://transit/decrypt/app#a"\nB = "vault://transit/decrypt/app#b"\nOTHER = "vault://secret/web#key"\n'
A = '[scopes.web.transit."transit/decrypt/app".a]\nciphertext = "vault://secret/web#enc?version=3"\ncontext = "d2Vi"\n'
B = '[scopes.web.transit."transit/decrypt/app".b]\nciphertext = "vault:v2:c2VjcmV0"\nassociated_data = "YQ=="\n'


def scope(tmp_path: Path, tables: str, keys: str = KEYS) -> Scope:
    """Return the scope with ciphertexts as ``tables`` say; the same comes out of its compiled form."""
    settings = load(write(tmp_path, BASE + SCOPE + ENV + keys + tables), ENVIRON)
    assert from_plain(json.loads(json.dumps(to_plain(settings)))) == settings
    return settings.scopes[ScopeName("web")]


def test_all_values_of_a_key_are_decrypted_together(tmp_path):
    """Bindings of the path have all of its ciphertexts, and name where those are kept; others have none."""
    source = SecretReference("secret/web", "enc", 3)
    wanted = Decryption((Ciphertext("a", "", source, "d2Vi", ""), Ciphertext("b", "vault:v2:c2VjcmV0", None, "", "YQ==")))
    bindings = scope(tmp_path, A + B).bindings
    assert [binding.wanted for binding in bindings] == [wanted, wanted, None]
    assert bindings[0].references == (bindings[0].reference, source)
    assert bindings[2].references == (bindings[2].reference,)


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        (A + B.replace("vault:v2:c2VjcmV0", "c2VjcmV0"), "is not a ciphertext"),
        (A + B.replace("vault:v2:c2VjcmV0", "vault://secret/web"), "names no one value"),
        (A + B.replace("vault:v2:c2VjcmV0", "vault://web#key"), "is not a ciphertext"),
        (A + B.replace("vault:v2:c2VjcmV0", "vault://transit/decrypt/app#a"), "is kept where nothing is kept"),
        (A + B.replace("YQ==", "YQ"), "is not base64"),
        (A + B.replace("YQ==", ""), "is empty"),
        (A + B + "padding = 1\n", "is not a known key"),
        (A, "has no ciphertext b, which env names"),
        (A + B + B.replace('app".b', 'app".c'), "is a ciphertext that no reference of the scope names"),
        ((A + B).replace("transit/decrypt/app", "transit/encrypt/app"), "is not the decrypt path of a key of transit"),
        ((A + B) + '[scopes.web.transit."transit/decrypt/other"]\n', "transit"),
    ],
)
def test_what_cannot_be_decrypted_is_told(tmp_path, tables, told):
    """What is no ciphertext, names nothing, or that nobody names is an error of the configuration, and shows no ciphertext."""
    with pytest.raises(ConfigError) as refused:
        scope(tmp_path, tables)
    assert told in refused.value.message and "transit" in refused.value.message
    assert "c2VjcmV0" not in refused.value.line()
