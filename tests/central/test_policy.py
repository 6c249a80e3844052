"""Central's policy: nothing is allowed unless one rule allows all of it, and fewer rules never allow more."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.central.access.policy import Intent, Policies, Policy, Rule, decide, explain

WORDS = ("a", "b", "c")
ONE_OR_ANY = st.sampled_from([*WORDS, "*"])
SOME = st.frozensets(ONE_OR_ANY, min_size=1, max_size=3)
RULE = st.builds(Rule, project=ONE_OR_ANY, environment=ONE_OR_ANY, scopes=SOME, hosts=SOME, kinds=SOME, purposes=SOME)
WORD = st.sampled_from(WORDS)
INTENT = st.builds(
    Intent,
    host=WORD,
    project=WORD,
    environment=WORD,
    scopes=st.lists(WORD, max_size=3).map(tuple),
    kind=st.sampled_from([*WORDS, "agent", "worker"]),
    purpose=WORD,
    run_ref=st.none() | WORD,
    job_id=st.none() | WORD,
)
PROJECTS = st.frozensets(ONE_OR_ANY, max_size=2)

EXACT = Rule("a", "a", frozenset({"a"}), frozenset({"a"}), frozenset({"service"}), frozenset({"a"}))
ASKED = Intent("a", "a", "a", ("a",), "service", "a", None, None)


@given(projects=PROJECTS, intent=INTENT)
def test_without_rules_nothing_is_allowed(projects, intent):
    """The default is to deny."""
    assert decide([], projects, intent) is not None


@given(rules=st.lists(RULE, max_size=5), projects=PROJECTS, intent=INTENT, data=st.data())
def test_removing_a_rule_never_allows(rules, projects, intent, data):
    """What is denied under some rules is denied under fewer, whatever their order."""
    kept = [rule for rule in rules if data.draw(st.booleans())]
    if decide(rules, projects, intent) is not None:
        assert decide(kept, projects, intent) is not None
    assert (decide(rules, projects, intent) is None) == (decide(rules[::-1], projects, intent) is None)


@given(rules=st.lists(RULE, max_size=5), projects=PROJECTS, intent=INTENT)
def test_one_rule_must_allow_all_of_it(rules, projects, intent):
    """An intent is allowed exactly where the host's projects have it and a single rule matches each of its parts."""

    def allows(rule: Rule) -> bool:
        return (
            rule.project in ("*", intent.project)
            and rule.environment in ("*", intent.environment)
            and ("*" in rule.scopes or set(intent.scopes) <= rule.scopes)
            and bool({"*", intent.host} & rule.hosts)
            and bool({"*", intent.kind} & rule.kinds)
            and bool({"*", intent.purpose} & rule.purposes)
        )

    named = (intent.kind != "agent" or intent.run_ref) and (intent.kind != "worker" or intent.job_id)
    expected = bool({"*", intent.project} & projects) and bool(intent.scopes) and bool(named) and any(map(allows, rules))

    assert (decide(rules, projects, intent) is None) == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"project": "b"}, "project_not_allowed"),
        ({"environment": "b"}, "environment_not_allowed"),
        ({"scopes": ("a", "b")}, "scope_not_allowed"),
        ({"scopes": ()}, "no_scope"),
        ({"host": "b"}, "host_not_allowed"),
        ({"kind": "operator"}, "kind_not_allowed"),
        ({"kind": "agent"}, "run_ref_required"),
        ({"kind": "worker"}, "job_id_required"),
        ({"purpose": "b"}, "purpose_not_allowed"),
    ],
)
def test_the_reason_is_what_does_not_match(change, reason):
    """The denial names the part that no rule allows, with a sentence that says where it was looked for."""
    assert decide([EXACT], frozenset({"a", "b"}), ASKED) is None

    denial = decide([EXACT], frozenset({"a", "b"}), replace(ASKED, **change))

    assert denial is not None
    assert denial.reason == reason
    assert denial.message


@given(rules=st.lists(RULE, max_size=6), projects=PROJECTS, intent=INTENT)
def test_the_reasons_agree_with_the_decision(rules, projects, intent):
    """An explanation decides as the decision over all rules does, and its names are exactly the rules that pass alone."""
    policies = Policies(3, tuple(Policy(f"p{number}", 0, rule) for number, rule in enumerate(rules)))
    told = explain(policies, projects, intent)
    alone = {policy.name: decide([policy.rule], frozenset({"*"}), intent) for policy in policies.all}
    named = set(told.allowed_by) | {name for name, _ in told.failed}

    assert told.denial == decide(rules, projects, intent)
    assert told.denial == decide(policies.rules(intent.project), projects, intent)
    assert bool(told.allowed_by) == (told.denial is None)
    if told.denial is None:
        assert set(told.allowed_by) == {name for name, denial in alone.items() if denial is None}
    for name, test in told.failed:
        denial = alone[name]
        assert denial is None or not denial.reason.endswith("_not_allowed") or denial.reason == f"{test}_not_allowed"
    assert named <= {policy.name for policy in policies.about(intent.project)}


@given(rules=st.lists(RULE, max_size=6), word=WORD)
def test_no_rule_that_could_allow_is_left_out(rules, word):
    """What is looked up for a project is every rule of that project and of all, and nothing else."""
    policies = Policies(0, tuple(Policy(f"p{number}", 0, rule) for number, rule in enumerate(rules)))

    assert list(policies.rules(word)) == [rule for rule in rules if rule.project in (word, "*")]


@given(rule=RULE)
def test_a_rule_survives_its_row(rule):
    """A rule as JSON is the same rule when it is read."""
    assert Rule.of(json.loads(json.dumps(rule.plain()))) == rule
