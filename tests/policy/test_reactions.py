"""What is to be done at a rotation and a revocation, over any scopes: the strongest word about what is meant, and no other."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_vault_agent.policy.reactions import (
    NOTHING,
    STRONGEST_FIRST,
    TERMINATE,
    Holder,
    at_revocation,
    at_rotation,
    may_restart,
    step,
    strongest,
    tells_consumers,
    writes_files,
)
from prism_vault_agent.scope import SIGNALS, Binding, Does, KeyReaction, Purpose, Reaction, Scope, ScopeName, SecretReference
from prism_vault_agent.wanted.decryption import Ciphertext, Decryption
from tests.support.soak import count

PATHS = ("s/a", "s/b", "s/c")
NAMES = ("A", "B", "C", "D")
SIGNALLED = st.sampled_from([Reaction("signal", name) for name in SIGNALS])
ROTATIONS = st.sampled_from([Reaction(each) for each in ("terminate", "restart", "notify", "rewrite", "none")]) | SIGNALLED
REVOCATIONS = st.sampled_from([Reaction("terminate"), Reaction("clear")]) | SIGNALLED
BINDINGS = st.builds(
    Binding,
    name=st.sampled_from(NAMES),
    reference=st.builds(
        SecretReference, path=st.sampled_from(PATHS), key=st.just("k"), version=st.sampled_from([None, None, None, 3])
    ),
)
KEYS = st.builds(KeyReaction, name=st.sampled_from(NAMES), on_rotate=st.none() | ROTATIONS, on_revoke=st.none() | REVOCATIONS)
SCOPE = Scope(ScopeName("web"), "p", "e", (Purpose("x"),), ())
SCOPES = st.builds(
    Scope,
    name=st.sampled_from([ScopeName("web"), ScopeName("db")]),
    project=st.just("p"),
    environment=st.just("e"),
    purposes=st.just((Purpose("x"),)),
    callers=st.just(()),
    bindings=st.lists(BINDINGS, unique_by=lambda each: each.name, max_size=4).map(tuple),
    on_rotate=ROTATIONS,
    on_revoke=REVOCATIONS,
    keys=st.lists(KEYS, unique_by=lambda each: each.name, max_size=3).map(tuple),
)
CHANGED = st.sets(st.sampled_from(PATHS))


def bound(name: str | None, path: str, version: int | None = None) -> Binding:
    """Return a binding."""
    return Binding(name, SecretReference(path, None if name is None else "k", version))


def weight(reaction: Reaction) -> int:
    """Return how strong a reaction is, 0 being the strongest."""
    return STRONGEST_FIRST.index(reaction.does)


@settings(max_examples=count(150, 20_000), deadline=None)
@given(st.lists(SCOPES, min_size=1, max_size=3, unique_by=lambda each: each.name), CHANGED, CHANGED)
def test_more_changes_are_never_a_weaker_reaction(scopes: list[Scope], some: set[str], more: set[str]):
    """What is done for several paths is the strongest of what is done for each; what did not change says nothing."""
    held = [binding for scope in scopes for binding in scope.bindings]
    together = at_rotation(scopes, held, some | more)
    apart = [at_rotation(scopes, held, {path}) for path in some | more]
    assert together == strongest(apart)
    assert at_rotation(scopes, held, set()) == NOTHING
    unpinned = {each.reference.path for each in held if each.reference.version is None}
    assert (at_rotation(scopes, held, some) == NOTHING) or some & unpinned


@settings(max_examples=count(150, 20_000), deadline=None)
@given(SCOPES, CHANGED)
def test_it_is_what_somebody_wrote_about_what_changed(scope: Scope, changed: set[str]):
    """Each variable that changed says its own word, or else the scope's; the strongest of these is done."""
    said = dict.fromkeys(scope.bindings, scope.on_rotate)
    for key in scope.keys:
        said |= {each: key.on_rotate for each in scope.bindings if each.name == key.name and key.on_rotate}
    meant = [said[each] for each in scope.bindings if each.reference.path in changed and each.reference.version is None]
    assert at_rotation([scope], scope.bindings, changed) == strongest(meant)


@settings(max_examples=count(150, 20_000), deadline=None)
@given(st.lists(SCOPES, max_size=3, unique_by=lambda each: each.name), st.none() | CHANGED)
def test_a_revocation_is_never_weaker_than_what_is_written(scopes: list[Scope], paths: set[str] | None):
    """The strongest word about what is revoked is done; where nobody says anything processes are ended."""
    held = [binding for scope in scopes for binding in scope.bindings]
    found = at_revocation(scopes, held, paths)
    meant = [each for each in held if paths is None or each.reference.path in paths]
    if not meant:
        assert found == TERMINATE
    words = [scope.on_revoke for scope in scopes] + [key.on_revoke for scope in scopes for key in scope.keys if key.on_revoke]
    assert found in (*words, TERMINATE)
    assert all(weight(found) <= weight(at_revocation(scopes, [each], paths)) for each in meant)


@pytest.mark.parametrize(
    ("scopes", "own", "done"),
    [
        ("terminate", "none", "terminate"),
        ("terminate", "restart", "terminate"),
        ("restart", "none", "restart"),
        ("restart", "signal:HUP", "restart"),
        ("restart", "terminate", "terminate"),
        ("signal:HUP", "signal:USR1", "signal:USR1"),
        ("signal:HUP", "restart", "restart"),
        ("notify", "restart", "restart"),
        ("none", "signal:HUP", "signal:HUP"),
        ("none", "none", "none"),
    ],
)
def test_a_run_asks_for_more_than_its_scope_and_never_for_less(scopes, own, done):
    """``own`` is done in place of a scope's word that is not stronger, and only where something of the run changed."""
    scope = replace(SCOPE, bindings=(bound("A", "s/a"),), on_rotate=Reaction.parse(scopes))
    assert at_rotation([scope], scope.bindings, {"s/a"}, Reaction.parse(own)) == Reaction.parse(done)
    assert at_rotation([scope], scope.bindings, {"s/b"}, Reaction.parse(own)) == NOTHING


def test_whether_a_run_may_be_restarted():
    """A supervisor waits for orders where the scope, a variable of it or the run itself says restart."""
    restart = Reaction("restart")
    scope = replace(SCOPE, bindings=(bound("A", "s/a"),), on_rotate=Reaction("none"))
    assert not may_restart([scope], None)
    assert not may_restart([scope], Reaction("terminate"))
    assert may_restart([scope], restart)
    assert may_restart([scope, replace(scope, on_rotate=restart)], None)
    assert may_restart([replace(scope, keys=(KeyReaction("A", restart),))], Reaction("none"))


def test_the_callers_own_references_are_of_every_scope():
    """What no scope binds is treated as the strictest of the scopes that it was asked under says."""
    scopes = [replace(SCOPE, on_rotate=Reaction("rewrite")), replace(SCOPE, name=ScopeName("db"), on_rotate=Reaction("restart"))]
    assert at_rotation(scopes, [bound("OWN", "s/own")], {"s/own"}) == Reaction("restart")


def test_a_decrypted_value_changes_with_its_ciphertext():
    """A newer ciphertext is a rotation of what is decrypted of it, and one that is taken away a revocation of it."""
    wanted = Decryption((Ciphertext("k", "", SecretReference("s/b", "k"), "", ""),))
    binding = Binding("A", SecretReference("t/decrypt/a", "k"), wanted)
    scope = replace(SCOPE, bindings=(binding,), on_rotate=Reaction("restart"), on_revoke=Reaction("clear"))
    assert at_rotation([scope], [binding], {"s/b"}) == Reaction("restart")
    assert at_rotation([scope], [binding], {"s/a"}) == NOTHING
    assert at_revocation([scope], [binding], {"s/b"}) == Reaction("clear")


def test_a_variable_of_a_whole_secret_can_only_strengthen():
    """Which of a whole secret's keys changed nobody knows: its variables and the scope say their word together."""
    whole = (bound(None, "s/a"), bound("B", "s/b"))
    keys = (KeyReaction("X", Reaction("none")), KeyReaction("B", Reaction("terminate")))
    scope = replace(SCOPE, bindings=whole, keys=keys)
    assert at_rotation([scope], whole, {"s/a"}) == Reaction("notify")
    assert at_rotation([replace(scope, keys=(KeyReaction("X", Reaction("restart")),))], whole, {"s/a"}) == Reaction("restart")


@pytest.mark.parametrize("holder", get_args(Holder))
@pytest.mark.parametrize("does", get_args(Does))
def test_each_reaction_is_one_step_for_each_holder(does: Does, holder: Holder):
    """Only who can be started again is restarted, and weaker words than a signal leave every process alone."""
    found = step(Reaction(does), holder)
    restarts = {"supervised": "restart", "unit": "restart_unit", "process": "cannot_restart"}
    assert found == {"restart": restarts[holder], "signal": "signal", "terminate": "terminate"}.get(does, "leave")


@pytest.mark.parametrize(("word", "written", "told"), [("none", False, False), ("rewrite", True, False), ("notify", True, True),
                                                       ("signal:HUP", True, True), ("restart", True, True)])  # fmt: skip
def test_files_follow_unless_told_otherwise(word, written, told):
    """Only ``none`` keeps old files, and only ``rewrite`` and ``none`` keep their readers uninformed."""
    reaction = Reaction.parse(word)
    assert (writes_files(reaction), tells_consumers(reaction)) == (written, told)
