"""What holds of every decision: default deny, less is never more, and a grant is proof of what it says."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from prism_vault_agent.model import Grant
from prism_vault_agent.policy.decide import Denial, decide
from prism_vault_agent.policy.names import dangerous, fault
from prism_vault_agent.scope import CallerKind, CallerRule, Purpose, Scope, ScopeName
from tests.policy.asking import CALLERS, PURPOSES, REQUESTS, RULES, SCOPES
from tests.support.soak import count

if TYPE_CHECKING:
    from prism_vault_agent.model import Caller, Request

Scopes = dict[ScopeName, Scope]
NEEDS: dict[CallerKind, str] = {"agent": "run_ref", "worker": "job_id"}

many = settings(max_examples=count(100, 10_000))


def matches(rule: CallerRule, caller: Caller) -> bool:
    """Say again, in other words than the code, when a rule admits a caller."""
    wanted: list[tuple[object, set[object]]] = [
        (rule.uid, {caller.uid}),
        (rule.gid, {caller.gid, *caller.groups}),
        (rule.executable, {caller.executable}),
        (rule.unit, {caller.unit}),
        (rule.container, {caller.container}),
    ]
    return all(want is None or want in has for want, has in wanted)


@many
@given(SCOPES, CALLERS, REQUESTS)
def test_a_grant_is_proof_of_what_it_says(scopes: Scopes, caller: Caller, request: Request):
    """Every granted scope admits the caller under a kind whose needs are met, lists the purpose, and shares one project."""
    decision = decide(scopes, caller, request)
    if isinstance(decision, Denial):
        assert decision.rule
        assert decision.message
        assert decision.mend
        return
    assert {scope.name for scope in decision.scopes} == set(request.scopes)
    assert len({scope.project for scope in decision.scopes}) == 1
    for scope in decision.scopes:
        kinds = {rule.kind for rule in scope.callers if matches(rule, caller)}
        assert any(kind not in NEEDS or getattr(request, NEEDS[kind]) for kind in kinds)
        assert decision.purpose in scope.purposes
    assert decision.kind not in NEEDS or getattr(request, NEEDS[decision.kind])
    names = [binding.name for binding in decision.bindings if binding.name is not None]
    assert len(names) == len(set(names))
    allowed = {name for scope in decision.scopes for name in scope.allow_names}
    for own in request.references:
        assert fault(own.name or "") is None
        assert not dangerous(own.name or "") or own.name in allowed


@many
@given(SCOPES, CALLERS, REQUESTS, st.data())
def test_removing_a_rule_never_grants(scopes: Scopes, caller: Caller, request: Request, data: st.DataObject):
    """What is denied stays denied when a caller rule is taken away."""
    if not isinstance(decide(scopes, caller, request), Denial):
        return
    for name, scope in scopes.items():
        if scope.callers:
            gone = data.draw(st.integers(0, len(scope.callers) - 1))
            fewer = dataclasses.replace(scope, callers=scope.callers[:gone] + scope.callers[gone + 1 :])
            assert isinstance(decide({**scopes, name: fewer}, caller, request), Denial)


@many
@given(SCOPES, CALLERS, REQUESTS, RULES)
def test_adding_a_rule_never_takes_away(scopes: Scopes, caller: Caller, request: Request, rule: CallerRule):
    """What is granted stays granted when a scope gets one more caller rule."""
    if isinstance(decide(scopes, caller, request), Denial):
        return
    for name, scope in scopes.items():
        more = dataclasses.replace(scope, callers=(*scope.callers, rule))
        assert isinstance(decide({**scopes, name: more}, caller, request), Grant)


@many
@given(SCOPES, CALLERS, REQUESTS, PURPOSES)
def test_adding_a_purpose_never_takes_a_named_one_away(scopes: Scopes, caller: Caller, request: Request, purpose: Purpose):
    """Who names a purpose keeps the grant when the scope gets further purposes."""
    if request.purpose is None or isinstance(decide(scopes, caller, request), Denial):
        return
    for name, scope in scopes.items():
        more = dataclasses.replace(scope, purposes=tuple(dict.fromkeys((*scope.purposes, purpose))))
        assert isinstance(decide({**scopes, name: more}, caller, request), Grant)


@many
@given(SCOPES, CALLERS, REQUESTS)
def test_removing_a_purpose_never_grants_another(scopes: Scopes, caller: Caller, request: Request):
    """A purpose that a scope does not list is denied, whatever else holds."""
    for name in set(request.scopes) & scopes.keys():
        without = tuple(purpose for purpose in scopes[name].purposes if purpose != request.purpose)
        fewer = dataclasses.replace(scopes[name], purposes=without)
        if request.purpose is not None:
            assert isinstance(decide({**scopes, name: fewer}, caller, request), Denial)


@many
@given(SCOPES, CALLERS, REQUESTS)
def test_without_rules_everything_is_denied(scopes: Scopes, caller: Caller, request: Request):
    """A scope without caller rules is nobody's, and no scope is everybody's."""
    nobody = {name: dataclasses.replace(scope, callers=()) for name, scope in scopes.items()}
    assert isinstance(decide(nobody, caller, request), Denial)
    assert isinstance(decide({}, caller, request), Denial)


@given(SCOPES, CALLERS, REQUESTS)
def test_a_decision_depends_on_nothing_else(scopes: Scopes, caller: Caller, request: Request):
    """The same question has the same answer: the decision is a pure function."""
    assert decide(scopes, caller, request) == decide(dict(reversed(scopes.items())), caller, request)


@given(st.text(max_size=40))
def test_names_are_taken_as_the_shell_takes_them(name: str):
    """A name without fault is a letter or underscore, then letters, digits and underscores, all ASCII."""
    good = bool(name) and name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdigit()
    assert (fault(name) is None) == good
