"""What the answer of an engine with leases means, whatever it says (F13)."""

from __future__ import annotations

from typing import Any

import pytest

from prism_vault_agent.errors import ConfigError, PrismVaultError, ProtocolError, ProviderUnavailable, SecretNotFound
from prism_vault_agent.model import Lease
from prism_vault_agent.vault import fields, leased
from prism_vault_agent.vault.kv import Place
from prism_vault_agent.vault.strict_json import Number
from prism_vault_agent.vault.transport import Answer

PLACE = Place("database/creds/web", None)
DATA = {"username": "u", "password": "p"}


def understood(**changed: Any) -> Lease:
    """Return the lease of an answer."""
    plain = {"lease_id": "database/creds/web/x", "lease_duration": Number("60"), "renewable": True, "data": DATA, **changed}
    data, lease = leased.understand(PLACE, Answer(200, plain))
    assert data == DATA
    return lease


def test_an_answer_with_a_lease_is_a_leased_read():
    """Id, life and whether it can be renewed are those of the answer."""
    assert understood() == Lease("database/creds/web", lease_id="database/creds/web/x", seconds=60, renewable=True)
    assert understood(renewable=False).renewable is False


def test_an_answer_without_a_lease_has_none():
    """Where the engine gives no id there is nothing to renew."""
    assert understood(lease_id="", lease_duration=Number("0")) == Lease("database/creds/web")
    assert understood(lease_id=None, renewable=True).renewable is False


def test_a_static_role_has_a_version_and_no_lease():
    """Of a static role the version is when its password was set, and ends with its ttl; what is none is a malformed answer."""
    place, answer = Place("database/static-creds/web", None), {"lease_id": "", "lease_duration": Number("0")}

    def of(told: object, **more: object) -> Lease:
        return leased.understand(place, Answer(200, {**answer, "data": {**DATA, "last_vault_rotation": told, **more}}))[1]

    told = "2026-11-26T22:22:28.473837142Z"
    assert of(told) == Lease(place.path, 1795731748473, created=told)
    for ttl, seconds in (("60", 60), ("0", 1), ("-3", 1)):  # one that is over has a provider that has not come to it yet
        assert of(told, ttl=Number(ttl)) == Lease(place.path, 1795731748473, seconds=seconds, created=told)
    for wrong in ("soon", "", 7, None):
        with pytest.raises(ProtocolError):
            of(wrong)
    with pytest.raises(ProtocolError):
        of(told, ttl="soon")
    assert leased.understand(place, Answer(200, {**answer, "data": DATA}))[1] == Lease(place.path)


def test_f13_a_life_beyond_all_reason_is_cut():
    """A life of 2^63 seconds is ten years."""
    assert understood(lease_duration=Number(str(2**63))).seconds == fields.LONGEST_SECONDS


@pytest.mark.parametrize("duration", ["0", "-1", "-9223372036854775808"])
def test_f13_a_lease_that_has_ended_is_never_used(duration):
    """A lease with no time left is a passing error of the provider."""
    with pytest.raises(ProviderUnavailable, match="a lease that has ended"):
        understood(lease_duration=Number(duration))


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"lease_duration": Number("1.5")}, ProtocolError),
        ({"lease_duration": "soon"}, ProtocolError),
        ({"lease_duration": [1]}, ProtocolError),
        ({"lease_id": 7}, ProtocolError),
        ({"lease_id": "a\nb"}, ProtocolError),
        ({"lease_id": "a" * 2000}, ProtocolError),
        ({"renewable": "yes"}, ProtocolError),
        ({"data": None}, ProtocolError),
        ({"data": []}, ProtocolError),
    ],
)
def test_f10_an_answer_of_another_shape_is_refused(changed, kind):
    """What is not the answer of an engine is an error that shows none of it."""
    with pytest.raises(kind) as refused:
        understood(**changed)
    assert "soon" not in refused.value.line()


@pytest.mark.parametrize(("status", "kind"), [(404, SecretNotFound), (400, ConfigError)])
def test_a_role_that_does_not_exist_is_told(status, kind):
    """A path that the engine does not know, or refuses, is told by its name."""
    with pytest.raises(PrismVaultError, match="vault://database/creds/web") as refused:
        leased.understand(PLACE, Answer(status, {"errors": ["unknown role: web"]}))
    assert isinstance(refused.value, kind)
