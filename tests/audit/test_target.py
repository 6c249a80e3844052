"""What a target means: every condition holds, within the projects; a condition more never means a release more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.audit.target import Released, Target, as_read
from prism_vault_agent.scope import SecretReference

NAMES = st.sampled_from(["a", "b", "c"])
VERSIONS = st.none() | st.integers(1, 3)
REFERENCES = st.builds(SecretReference, st.sampled_from(["kv/a", "kv/b"]), st.none() | st.sampled_from(["k", "l"]), VERSIONS)
RELEASES = st.builds(
    Released,
    host=NAMES,
    project=NAMES,
    scopes=st.frozensets(NAMES, min_size=1),
    run_ref=st.none() | NAMES,
    references=st.lists(REFERENCES, max_size=3).map(tuple),
)
PROJECTS = st.frozensets(st.sampled_from(["a", "b", "*"]), min_size=1)
TARGETS = st.builds(
    Target,
    projects=PROJECTS,
    scope=st.none() | NAMES,
    reference=st.none() | REFERENCES,
    host=st.none() | NAMES,
    run_ref=st.none() | NAMES,
)
CONDITIONS = ("scope", "reference", "host", "run_ref")


def by_definition(target: Target, released: Released) -> bool:
    """Tell the same as ``means``, condition by condition, from what docs/protocol.md says."""
    held = {"projects": "*" in target.projects or released.project in target.projects}
    if target.scope:
        held["scope"] = target.scope in released.scopes
    if target.host:
        held["host"] = target.host == released.host
    if target.run_ref:
        held["run_ref"] = target.run_ref == released.run_ref
    if (asked := target.reference) is not None:
        pairs = [(asked.path, each.path, asked.key, each.key, asked.version, each.version) for each in released.references]
        held["reference"] = any(
            path == read and (None in (key, has) or key == has) and (None in (version, was) or version == was)
            for path, read, key, has, version, was in pairs
        )
    return all(held.values())


@given(TARGETS, RELEASES)
def test_a_target_means_what_fulfils_all_of_it(target, released):
    """A release is meant exactly where its project and every condition hold; what neither side says, may be."""
    assert target.means(released) == by_definition(target, released)


@given(TARGETS, RELEASES)
def test_a_condition_less_means_no_release_less(target, released):
    """Whatever is meant is also meant without any one of the conditions, and within all projects."""
    if target.means(released):
        assert replace(target, projects=frozenset({"*"})).means(released)
        for name in CONDITIONS:
            assert replace(target, **{name: None}).means(released)


@given(TARGETS)
def test_a_target_is_read_as_it_was_written(target):
    """What one side writes the other reads as the same target; one without conditions says everything."""
    plain = target.plain()

    assert Target.parse(plain, target.projects) == target
    assert plain.get("everything", False) is all(getattr(target, name) is None for name in CONDITIONS)


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"everything": False},
        {"everything": True, "scope": "web"},
        {"everything": 1},
        {"everything": "true"},
        {"scope": ""},
        {"scope": 1},
        {"scope": ["web"]},
        {"scope": None},
        {"environment": "lan"},
        {"scope": "web", "unless": "x"},
        {"reference": "kv/a"},
        {"reference": 1},
        {"reference": "vault://one"},
    ],
)
def test_what_is_not_understood_is_no_target(plain):
    """An unknown condition is an error rather than left out, which would mean more; everything has to be said."""
    with pytest.raises(ValueError):
        Target.parse(plain, ["*"])


def test_the_version_that_was_read_counts():
    """A target of a version means whoever read that one, although the reference did not name it; an unknown one may be it."""
    bound = SecretReference("kv/a", "k")
    read = Released("h", "p", frozenset({"s"}), None, as_read([bound], {"kv/a": 2}))
    unknown = replace(read, references=as_read([bound], {}))
    wanted = {version: Target(frozenset({"*"}), reference=SecretReference("kv/a", version=version)) for version in (1, 2)}

    assert (wanted[1].means(read), wanted[2].means(read)) == (False, True)
    assert (wanted[1].means(unknown), wanted[2].means(unknown)) == (True, True)
