"""How far the helper goes, decided from root's configuration alone."""

from __future__ import annotations

import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.helper.bounds import SIGNALS, Bounds, Process
from prism_vault_agent.helper.wire import unit_of
from prism_vault_agent.scope import CallerRule, Credential, KeyReaction, Notify, Reaction, Scope, ScopeName

AGENT, HELPER, WEB, CONTAINER = 990, 4000, 1001, "0123456789ab" + "c" * 52


def bounds(*callers: CallerRule) -> Bounds:
    owners = frozenset({(WEB, WEB, 0o400), (AGENT, 33, 0o440)})
    return Bounds(uid=AGENT, gid=AGENT, directory="/run/prism-vault/files", owners=owners, callers=callers)


def process(pid: int = 5000, *uids: int, **more) -> Process:
    return Process(pid, frozenset(uids or (WEB,)), frozenset({WEB, 33}), **more)


def ended(rule: CallerRule, found: Process, number: int = signal.SIGTERM) -> bool:
    return not bounds(rule).why_not_ended(found, number, never=frozenset({HELPER}))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 0o777))
def test_a_file_is_given_to_whom_a_scope_names_and_nobody_else(uid, gid, mode):
    """Owner, group and mode must be those of one file of a scope, all three of the same one."""
    named = {(WEB, WEB, 0o400), (AGENT, 33, 0o440)}
    assert (not bounds().why_not_given(uid, gid, mode)) == ((uid, gid, mode) in named)
    assert all(not bounds().why_not_given(*each) for each in named)
    assert bounds().why_not_given(WEB, WEB, 0o440) and bounds().why_not_given(WEB, 33, 0o440)


@pytest.mark.parametrize(
    ("rule", "found", "may"),
    [
        (CallerRule("service", uid=WEB), process(), True),
        (CallerRule("service", uid=WEB), process(5000, WEB, 1002), False),
        (CallerRule("service", uid=WEB), process(5000, 1002), False),
        (CallerRule("service", gid=33), process(), True),
        (CallerRule("service", gid=34), process(), False),
        (CallerRule("service", unit="web.service"), process(unit="web.service"), True),
        (CallerRule("service", unit="web.service"), process(unit="other.service"), False),
        (CallerRule("service", uid=WEB, unit="web.service"), process(), False),
        (CallerRule("service", container=CONTAINER[:12]), process(container=CONTAINER), True),
        (CallerRule("service", container=CONTAINER[:12]), process(), False),
        (CallerRule("service", executable="/usr/bin/web"), process(), False),
        (CallerRule("service", unit="web.service"), process(5000, 0, unit="web.service"), False),
        (CallerRule("service", unit="web.service"), process(5000, 0, WEB, unit="web.service"), False),
        (CallerRule("service", uid=0), process(5000, 0), True),
        (CallerRule("service", uid=0), process(1, 0), False),
        (CallerRule("service", uid=WEB), process(HELPER), False),
        (CallerRule("service", uid=AGENT), process(5000, AGENT), False),
    ],
)
def test_a_process_is_ended_where_a_caller_covers_it(rule, found, may):
    """All that a rule names must be the process's; root's must be named as root's; the first, the helper and the agent never."""
    assert ended(rule, found) is may


def test_units_are_those_that_a_notify_names():
    """What stands for a unit and an action is found where a scope's notify names both, and stands for nothing else."""
    notify = [Notify("unit", ("web.service",), "restart", ("f",)), Notify("pid_file", ("/run/web.pid",), "HUP", ("f",))]
    scope = Scope(ScopeName("web"), "prism", "lan", (), (), notify=tuple(notify))
    settings = SimpleNamespace(scopes={"web": scope}, agent=SimpleNamespace(files="/run/prism-vault/files"))
    found = Bounds.of(settings, AGENT, AGENT).units  # type: ignore[arg-type]  # what it looks at of them
    assert found == {unit_of("web.service", "restart"): ("web.service", "restart")}
    others = [
        unit_of(unit, how) for unit in ("web.service", "web", "db.service", "") for how in ("reload", "restart", "stop", "")
    ]
    assert len(set(others)) == 16 and [each for each in others if each in found] == [unit_of("web.service", "restart")]


@pytest.mark.parametrize("number", range(65))
def test_only_a_few_signals_are_sent(number):
    """TERM, KILL, STOP, HUP, INT, USR1 and USR2, and no other number."""
    names = ("TERM", "KILL", "STOP", "HUP", "INT", "USR1", "USR2")
    assert ended(CallerRule("service", uid=WEB), process(), number) is (
        number in [signal.Signals[f"SIG{each}"] for each in names]
    )
    assert len(SIGNALS) == len(names)


def test_units_are_also_those_that_a_rotation_restarts_or_that_hold_credentials():
    """Where a scope, or a variable of it, says ``restart``, its callers' services may be restarted; nobody's whole systemd.

    Where it has credentials, they may be stopped.
    """
    callers = tuple(CallerRule("service", unit=unit) for unit in ("web.service", "user@1000.service", "session-1.scope"))
    plain = Scope(ScopeName("web"), "prism", "lan", (), callers)
    restarting = (
        replace(plain, on_rotate=Reaction("restart")),
        replace(plain, keys=(KeyReaction("KEY", Reaction("restart")),)),
    )
    holding = replace(plain, credentials=(Credential("key", "KEY"),))
    expectations = [(plain, {}), (holding, {("web.service", "stop")})]
    for scope, expected in (*expectations, *((each, {("web.service", "restart")}) for each in restarting)):
        settings = SimpleNamespace(scopes={"web": scope}, agent=SimpleNamespace(files="/run/prism-vault/files"))
        found = Bounds.of(settings, AGENT, AGENT).units  # type: ignore[arg-type]  # what it looks at of them
        assert set(found.values()) == set(expected)
