"""The decision, rule by rule: who gets what, and what a denial says."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from prism_vault_agent.model import Grant
from prism_vault_agent.policy.decide import Denial, decide
from prism_vault_agent.scope import Binding, CallerRule, Scope, SecretReference
from tests.policy.asking import binding, caller, request, scope


def ask(*scopes: Scope, who: Any = None, **fields: Any) -> Grant | Denial:
    """Decide a request for all of ``scopes``."""
    return decide({one.name: one for one in scopes}, who or caller(), request(*(one.name for one in scopes), **fields))


def denied(*scopes: Scope, **fields: Any) -> Denial:
    """Return the denial of a request for all of ``scopes``; it must say what to do."""
    decision = ask(*scopes, **fields)
    assert isinstance(decision, Denial)
    assert decision.mend
    return decision


def granted(*scopes: Scope, **fields: Any) -> Grant:
    """Return the grant of a request for all of ``scopes``."""
    decision = ask(*scopes, **fields)
    assert isinstance(decision, Grant), decision
    return decision


def test_only_the_allowed_cells_of_the_matrix_are_granted():
    """Of all users, executables, purposes, run references and job ids, exactly what the rules say is granted (T18)."""
    web = scope(
        purposes=("service", "deploy"),
        callers=(
            CallerRule("service", uid=1000, executable="/usr/bin/app"),
            CallerRule("agent", uid=1001),
            CallerRule("worker", gid=2000),
            CallerRule("operator", unit="ops.service"),
        ),
    )
    cells = product(
        [0, 1000, 1001],
        [1000, 2000],
        ["/usr/bin/app", "/bin/sh"],
        [None, "ops.service"],
        [None, "service", "deploy", "root"],
        [None, "run-1"],
        [None, "job-1"],
    )
    for uid, gid, executable, unit, purpose, run_ref, job_id in cells:
        admitted = (
            (uid == 1000 and executable == "/usr/bin/app")
            or (uid == 1001 and run_ref is not None)
            or (gid == 2000 and job_id is not None)
            or unit == "ops.service"
        )
        who = caller(uid=uid, gid=gid, executable=executable, unit=unit, groups=frozenset({gid}))
        decision = ask(web, who=who, purpose=purpose, run_ref=run_ref, job_id=job_id)
        expected = admitted and purpose in ("service", "deploy")
        assert isinstance(decision, Grant) == expected, (uid, gid, executable, unit, purpose, run_ref, job_id, decision)


def test_a_scope_that_is_not_there_is_denied_by_its_name():
    """An unknown scope, also beside a known one, is denied; its name is escaped in the message."""
    decision = decide({}, caller(), request("web\n\x1b"))
    assert isinstance(decision, Denial)
    assert (decision.rule, decision.scope) == ("unknown_scope", "web\\n\\x1b")
    web = scope()
    beside = decide({web.name: web}, caller(), request("web", "other"))
    assert isinstance(beside, Denial)
    assert beside.rule == "unknown_scope"
    none = decide({web.name: web}, caller(), request("web").__class__(()))
    assert isinstance(none, Denial)
    assert none.rule == "no_scope"


def test_scopes_of_two_projects_or_environments_are_not_combined():
    """One release belongs to one project and one environment."""
    for other in (scope("jobs", project="other"), scope("jobs", environment="prod")):
        assert denied(scope(), other).rule == "mixed_projects"


@pytest.mark.parametrize("field", ["purpose", "run_ref", "job_id"])
@pytest.mark.parametrize("text", ["", "x" * 10_000, "a\nb", "a\x00", "é", "\x1b[0m"])
def test_text_that_could_forge_a_row_is_denied(field: str, text: str):
    """Purposes, run references and job ids that are empty, long, or not printable ASCII are denied (F61)."""
    assert denied(scope(), **{field: text}).rule == "malformed_text"


def test_a_caller_that_no_rule_matches_is_told_which_rule_is_missing():
    """The denial names the caller as the kernel knows it, escaped, and not the rules."""
    denial = denied(scope(), who=caller(uid=7, executable="/tmp/a\nb"))
    assert denial.rule == "caller"
    assert denial.message == "uid 7 running /tmp/a\\nb matches none of its callers"
    assert (denial.scope, denial.project, denial.environment) == ("web", "prism", "lan")


def test_a_group_rule_counts_the_callers_further_groups():
    """A rule by group matches the caller's own group and its further ones."""
    web = scope(callers=(CallerRule("operator", gid=50),))
    granted(web, who=caller(gid=50, groups=frozenset()))
    granted(web, who=caller(groups=frozenset({50})))
    assert denied(web).rule == "caller"


def test_a_container_is_known_by_the_beginning_of_its_id():
    """A rule with a container matches that container, and never a caller outside of one."""
    web = scope(callers=(CallerRule("service", container="0123456789ab"),))
    granted(web, who=caller(container="0123456789ab" + "0" * 52))
    for other in (None, "", "1" * 64):
        assert denied(web, who=caller(container=other)).rule == "caller"


def test_agents_say_their_run_and_workers_their_job():
    """Kind agent needs a run reference, kind worker a job id; the denial names the option."""
    agent, worker = scope(callers=(CallerRule("agent", uid=1000),)), scope(callers=(CallerRule("worker", uid=1000),))
    assert (denied(agent).rule, denied(agent).mend) == ("run_ref_required", "add --run-ref")
    assert (denied(worker).rule, denied(worker).mend) == ("job_id_required", "add --job-id")
    assert granted(agent, run_ref="r").kind == "agent"
    assert granted(worker, job_id="j").kind == "worker"


def test_the_first_rule_whose_needs_are_met_gives_the_kind():
    """A caller that two rules admit is of the first kind for which it says all that is needed."""
    web = scope(callers=(CallerRule("agent", uid=1000), CallerRule("operator", uid=1000)))
    assert granted(web).kind == "operator"
    assert granted(web, run_ref="r").kind == "agent"


def test_a_purpose_is_needed_where_there_are_several():
    """One purpose is implied, several must be chosen from, and the denial lists them."""
    assert granted(scope()).purpose == "service"
    several = scope(purposes=("service", "deploy"))
    assert denied(several).mend == "name one with --purpose: service, deploy"
    assert denied(several, purpose="debug").mend == "use one of: service, deploy"
    assert granted(several, purpose="deploy").purpose == "deploy"


def test_scopes_together_need_one_purpose():
    """Two scopes with different single purposes have none in common; named, it must be one of both."""
    jobs = scope("jobs", purposes=("deploy",))
    assert denied(scope(), jobs).rule == "purpose_required"
    assert denied(scope(), jobs, purpose="deploy").rule == "purpose_not_allowed"


def test_agents_get_a_small_environment_unless_the_scope_says_otherwise():
    """Pristine is the default for kind agent only; a scope's own word goes before it; one scope that wants it suffices."""
    rule = (CallerRule("agent", uid=1000),)
    assert granted(scope(callers=rule), run_ref="r").pristine is True
    assert granted(scope(callers=rule, pristine=False), run_ref="r").pristine is False
    assert granted(scope()).pristine is False
    assert granted(scope(pristine=True)).pristine is True
    assert granted(scope(pristine=False), scope("jobs", pristine=True)).pristine is True


def test_bindings_of_all_scopes_come_together():
    """Named bindings of all scopes, then the caller's own, then those of whole secrets; an equal one counts once."""
    web = scope(bindings=(binding("A"), binding(None, "secret/all", None)), allow_paths=("secret/mine/*",))
    jobs = scope("jobs", bindings=(binding("A"), binding("B", "secret/b")))
    own = binding("MINE", "secret/mine/x")
    assert granted(web, jobs, references=(own,)).bindings == (
        binding("A"),
        binding("B", "secret/b"),
        own,
        binding(None, "secret/all", None),
    )


def test_one_name_for_two_secrets_is_denied():
    """Neither two scopes nor the caller can bind one name to another secret."""
    web = scope(bindings=(binding("A"),), allow_paths=("secret/*",))
    assert denied(web, scope("jobs", bindings=(binding("A", "secret/b"),))).rule == "duplicate_name"
    assert denied(web, references=(binding("A", "secret/b"),)).rule == "duplicate_name"


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [
        ("secret/a", "secret/a", True),
        ("secret/a", "secret/ab", False),
        ("secret/a", "secret/a/b", False),
        ("secret/*", "secret/a/b", True),
        ("secret/*", "secrets/a", False),
        ("secret/a/*", "secret/a", False),
        ("secret/a/*", "secret/a/b/c", True),
        ("secret/a/*", "secret/ab/c", False),
    ],
)
def test_the_callers_own_references_stay_inside_allow_paths(pattern: str, path: str, covered: bool):  # noqa: FBT001
    """A path covers itself, a pattern everything below it; nothing else, and nothing at all without either."""
    own = (Binding("MINE", SecretReference(path, "k")),)
    assert isinstance(ask(scope(allow_paths=(pattern,)), references=own), Grant) == covered
    assert denied(scope(), references=own).rule == "path_not_allowed"


def test_the_callers_own_names_are_checked():
    """A malformed or dangerous name of the caller's making is denied, unless the scope allows that very name."""
    web = scope(allow_paths=("secret/*",))
    assert denied(web, references=(binding("A B"),)).rule == "bad_name"
    assert denied(web, references=(binding("LD_PRELOAD"),)).rule == "dangerous_name"
    allowing = scope(allow_paths=("secret/*",), allow_names=frozenset({"LD_PRELOAD"}))
    granted(allowing, references=(binding("LD_PRELOAD"),))
    assert denied(allowing, references=(binding("LD_AUDIT"),)).rule == "dangerous_name"
