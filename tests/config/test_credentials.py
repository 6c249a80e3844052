"""The credentials of a scope in the configuration: each means one thing for each unit, or is refused with line and key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.config.load import load
from prism_vault_agent.config.plain import from_plain, to_plain
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.policy.credentials import credential_of, credentials
from prism_vault_agent.policy.decide import Denial
from prism_vault_agent.scope import Binding, Credential, File, ScopeName, SecretReference
from tests.config.written import BASE, ENV, ENVIRON, SCOPE, write

if TYPE_CHECKING:
    from pathlib import Path

UNITS = SCOPE.replace("uid = 1000 }", 'unit = "web.service" }, { kind = "operator", uid = 1000 }')
BOUND = BASE + UNITS + ENV + 'KEY = "vault://secret/web#key"\nOTHER = "vault://secret/web#other"\n'
HERE = "[[scopes.web.credentials]]\n"
ONE = HERE + 'name = "key"\nvariable = "KEY"\n'
ALL = HERE + 'name = "web.env"\nformat = "systemd"\n'
WEB = ScopeName("web")


def test_a_credential_is_in_the_settings(tmp_path: Path):
    """It is one variable or a whole file, and stays so in the compiled configuration; ``plan`` can tell for which unit."""
    settings = load(write(tmp_path, BOUND + ONE + ALL), ENVIRON)
    scope = settings.scopes[WEB]

    assert scope.credentials == (Credential("key", "KEY"), Credential("web.env", file=File("web.env", "systemd", -1, -1, 0)))
    assert from_plain(to_plain(settings)) == settings
    assert credentials(scope) == [
        {"unit": "web.service", "name": "key", "of": "KEY"},
        {"unit": "web.service", "name": "web.env", "of": "all, as systemd"},
    ]


def test_a_unit_gets_its_own_and_what_it_is_made_of(tmp_path: Path):
    """Only a caller that names the unit counts, and only what the credential is made of is read."""
    scopes = load(write(tmp_path, BOUND + ONE + ALL), ENVIRON).scopes
    one, whole = credential_of(scopes, "web.service", "key"), credential_of(scopes, "web.service", "web.env")
    assert not isinstance(one, Denial)
    assert not isinstance(whole, Denial)

    assert [rule.unit for rule in one[0].callers] == ["web.service"], "not the operator's rule"
    assert one[0].bindings == (Binding("KEY", SecretReference("secret/web", "key")),)
    assert [binding.name for binding in whole[0].bindings] == ["KEY", "OTHER"]
    for unit, name in (("web.service", "other"), ("other.service", "key"), ("web.servic", "key")):
        denial = credential_of(scopes, unit, name)
        assert isinstance(denial, Denial)
        assert denial.rule == "unknown_credential"


def test_a_variable_may_be_among_every_key(tmp_path: Path):
    """A variable that env does not bind is looked for among all keys of ``env_from``, and nothing else is read."""
    text = BASE + UNITS + 'env_from = ["vault://secret/all"]\n' + ENV + 'KEY = "vault://secret/web#key"\n'
    scopes = load(write(tmp_path, text + ONE.replace("KEY", "FOUND")), ENVIRON).scopes
    found = credential_of(scopes, "web.service", "key")
    assert not isinstance(found, Denial)
    assert found[0] == replace(found[0], bindings=(Binding(None, SecretReference("secret/all")),))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOUND + HERE + 'name = "key"\n', "scopes.web.credentials[0]: needs one of variable and format"),
        (BOUND + ONE + 'format = "json"\n', "scopes.web.credentials[0]: needs one of variable and format"),
        (BOUND + ALL.replace("systemd", "dir"), "scopes.web.credentials[0].format: makes several files"),
        (BOUND + ALL.replace("systemd", "template"), "scopes.web.credentials[0].template: is missing"),
        (BOUND + ALL.replace("systemd", "yaml"), "scopes.web.credentials[0].format"),
        (BOUND + ONE.replace("KEY", "MISSING"), "scopes.web.credentials[0].variable: names no variable of the scope"),
        (BOUND + ONE.replace('"key"', '"a/b"'), "scopes.web.credentials[0].name: is not a file's name"),
        (BOUND + ONE.replace('"key"', '"a:b"'), "scopes.web.credentials[0].name: is not a file's name"),
        (BOUND + ONE + ONE, "scopes.web.credentials[1].name: is a credential of web.service in scope web too"),
        (BASE + UNITS + ALL, "scopes.web.credentials[0]: would be empty"),
        (BOUND.replace('unit = "web.service"', "uid = 0") + ONE, "scopes.web.credentials[0]: is for no unit"),
        (BOUND.replace('["service"]', '["service", "test"]') + ONE, "has several purposes to choose from"),
    ],
)
def test_what_is_not_one_thing_is_refused(tmp_path: Path, text: str, told: str):
    """A credential that is nothing, two things, or nobody's is refused with file, line and key."""
    with pytest.raises(ConfigError) as refused:
        load(write(tmp_path, text), ENVIRON)
    assert told in refused.value.message
    assert f"{tmp_path}/agent.toml:" in refused.value.message


def test_two_scopes_cannot_give_a_unit_the_same_name(tmp_path: Path):
    """The second of two credentials of one name for one unit is refused where it stands; for another unit it is not."""
    other = (UNITS + ENV + 'KEY = "vault://secret/o#key"\n' + ONE).replace("scopes.web", "scopes.other")
    with pytest.raises(ConfigError) as refused:
        load(write(tmp_path, BOUND + ONE, other=other), ENVIRON)
    assert "is a credential of web.service in scope web too" in refused.value.message
    assert "scopes.d/other.toml:" in refused.value.message
    load(write(tmp_path, BOUND + ONE, other=other.replace("web.service", "o.service")), ENVIRON)
