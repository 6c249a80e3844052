"""What may stay under other scopes than it was released under: what would be released again, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_vault_agent.model import Caller, Grant, Request
from prism_vault_agent.policy.decide import decide
from prism_vault_agent.policy.still import no_longer
from prism_vault_agent.scope import Binding, CallerRule, Credential, Purpose, Scope, ScopeName, SecretReference
from tests.support.soak import count

WEB = ScopeName("web")
ROOT = Caller(1, 0, 0, frozenset(), "/usr/lib/systemd/systemd", 1, "web.service")
CALLERS = st.lists(st.builds(CallerRule, kind=st.just("service"), uid=st.integers(0, 2)), min_size=1, max_size=2).map(tuple)
BINDINGS = st.lists(
    st.builds(Binding, name=st.sampled_from("ABC"), reference=st.builds(SecretReference, path=st.sampled_from(["s/a", "s/b"]))),
    unique_by=lambda each: each.name,
    max_size=3,
).map(tuple)
SCOPES = st.builds(
    Scope,
    name=st.just(WEB),
    project=st.just("p"),
    environment=st.just("e"),
    purposes=st.lists(st.sampled_from([Purpose("x"), Purpose("y")]), min_size=1, unique=True).map(tuple),
    callers=CALLERS,
    bindings=BINDINGS,
    allow_paths=st.sampled_from([(), ("s/a",), ("s/*",)]),
)
REQUESTS = st.builds(
    Request,
    scopes=st.just((WEB,)),
    purpose=st.sampled_from([None, Purpose("x")]),
    references=st.sampled_from([(), (Binding("OWN", SecretReference("s/a", "k")),)]),
)


@settings(max_examples=count(300, 20_000), deadline=None)
@given(SCOPES, SCOPES, st.integers(0, 2), REQUESTS)
def test_it_may_stay_where_it_would_be_given_again(before: Scope, after: Scope, uid: int, request: Request):
    """Under the scopes that it was granted under it stays; under others it does where they grant all of it again."""
    granted = decide({WEB: before}, replace(ROOT, uid=uid, unit=None), request)
    if not isinstance(granted, Grant):
        return
    assert no_longer({WEB: before}, granted) == ""
    assert no_longer({}, granted) == "scope_removed"
    again = decide({WEB: after}, granted.caller, granted.request)
    admitted = isinstance(again, Grant) and set(granted.bindings) <= set(again.bindings)
    assert no_longer({WEB: after}, granted) == ("" if admitted else "no_longer_allowed")


@pytest.mark.parametrize(
    ("callers", "credentials", "stays"),
    [
        ((CallerRule("service", unit="web.service"),), (Credential("key", "A"),), True),
        ((CallerRule("operator", uid=0),), (Credential("key", "A"),), False),
        ((CallerRule("service", unit="web.service"),), (), False),
    ],
)
def test_a_credential_is_for_the_units_of_its_scope_alone(callers, credentials, stays):
    """That systemd asks as root, whom another caller of the scope names, keeps no credential of a unit that is named no more."""
    binding = Binding("A", SecretReference("s/a", "k"))
    scope = Scope(WEB, "p", "e", (Purpose("x"),), callers, (binding,), credentials=credentials)
    held = Grant((scope,), ROOT, "service", Purpose("x"), Request((WEB,), mode="credential"), (binding,), pristine=False)
    assert no_longer({WEB: scope}, held) == ("" if stays else "no_longer_allowed")
