"""``exec --direct``: the same order and the same environment without an agent, and nothing left at the provider."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.config import compiled
from tests.support import history
from tests.support.agent import LAUNCHER
from tests.support.fault_proxy import Fault, always, times, with_kind
from tests.support.stack import Stack, is_login, is_read, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAVY = ("asyncio", "h11", "httpx2", "hvac", "pydantic", "requests", "structlog", "tomllib", "watchfiles")


@pytest.fixture(scope="module")
def stacked() -> Iterator[Stack]:
    with stack(vault='timeout = "1s"', central_lines='timeout = "1s"', reservation_ttl="8s") as made:
        made.openbao.kv_put("secret/more", {"other": "1", "LD_PRELOAD": "2"})
        made.agent.scope("more", {"OTHER": "vault://secret/more#other"})
        made.agent.scope("own", allow_paths=["secret/web"])
        made.agent.scope("missing", {"CANARY": "vault://secret/missing#key"})
        made.agent.scope("agents", {"CANARY": "vault://secret/web#canary"}, callers=[{"kind": "agent", "uid": os.getuid()}])
        made.agent.scope("others", {"CANARY": "vault://secret/web#canary"}, callers=[{"kind": "operator", "uid": 4_000_000}])
        wait_until(lambda: len(made.agent.status()["scopes"]) == 6)
        yield made
        for config in made.agent.directory.glob("*.toml"):
            if kept := compiled._cache_file(str(config), made.agent.environment()):
                Path(kept).unlink(missing_ok=True)


def _fails(made: Stack, status: int, *told: str, words: tuple[str, ...] = (), **more: Any) -> None:
    """Fail unless a direct exec runs nothing, and tells why in one line without a value."""
    done = made.direct(*words, "--", "/bin/sh", "-c", 'echo "ran $CANARY"', **more)
    assert (done.returncode, done.stdout) == (status, ""), done
    assert done.stderr.startswith("prism-vault: ")
    assert done.stderr.count("\n") == 1
    assert made.canary not in done.stderr
    for each in told:
        assert each in done.stderr


def _rows(made: Stack, before: int) -> list[dict[str, Any]]:
    made.settle()
    return made.rows(before)


@pytest.mark.parametrize("options", [(), ("--pristine",)])
def test_the_environment_is_the_same_as_through_an_agent(stacked: Stack, options: tuple[str, ...]) -> None:
    """A command cannot tell by its environment whether an agent or exec itself has read the secrets."""
    own = {"KEPT": "1", "LC_ALL": "C", "VAULT_TOKEN": "x", "PRISM_VAULT_X": "y", "NOTIFY_SOCKET": "/n"}
    direct = stacked.direct(*options, "--", "/usr/bin/env", "-0", env=own)
    through = stacked.agent.exec("--scope", "web", *options, "--", "/usr/bin/env", "-0", env=own)
    assert sorted(direct.stdout.split("\0")) == sorted(through.stdout.split("\0"))
    assert f"CANARY={stacked.canary}" in direct.stdout.split("\0")
    assert ("KEPT=1" in direct.stdout.split("\0")) is not bool(options)


def test_it_becomes_the_command(stacked: Stack) -> None:
    """Direct exec replaces itself: same process, the command's own exit status, no descriptor left open."""
    words = [LAUNCHER, "exec", "--direct", "--config", str(stacked.agent.config), "--scope", "web", "--"]
    script = [*words, "/bin/sh", "-c", "echo $$; exit 7"]
    run = subprocess.Popen(script, env=stacked.agent.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    told = run.communicate(timeout=60)
    assert (run.returncode, told) == (7, (f"{run.pid}\n", ""))
    listed = stacked.direct("--", "/bin/ls", "/proc/self/fd")
    assert listed.stdout.split() == ["0", "1", "2", "3"], listed  # 3 is the directory that ls reads


def test_it_is_started_again(stacked: Stack, tmp_path: Path) -> None:
    """A command that fails is started again, each time with values that were read for it, and rows of its own."""
    before = len(stacked.central.events())
    script = f'echo "$CANARY" >> {tmp_path}/starts; [ $(wc -l < {tmp_path}/starts) -ge 2 ]'
    done = stacked.direct("--restart", "on-failure", "--", "/bin/sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "starts").read_text() == f"{stacked.canary}\n" * 2
    assert [row["kind"] for row in _rows(stacked, before)].count("success") == 2


def test_the_rows_say_direct(stacked: Stack) -> None:
    """Reserved and success are on the log, by this process, with ``mode: direct``, in a chain of their own."""
    before = len(stacked.settle())
    assert stacked.direct("--", "/bin/true").returncode == 0
    reserved, success = _rows(stacked, before)
    assert (reserved["kind"], success["kind"]) == ("reserved", "success")
    assert reserved["mode"] == "direct"
    assert reserved["caller"]["uid"] == os.getuid()
    assert (reserved["seq"], success["seq"]) == (1, 2)
    assert success["names"] == ["CANARY"]


def test_the_login_is_given_back(stacked: Stack) -> None:
    """After a direct exec, and after one that failed, OpenBao has no more tokens than before."""
    before, logins = stacked.openbao.must("LIST", "auth/token/accessors"), stacked.to_openbao.count(is_login)
    assert stacked.direct("--", "/bin/true").returncode == 0
    _fails(stacked, 66, scope="missing")
    assert stacked.to_openbao.count(is_login) == logins + 2
    assert set(stacked.openbao.must("LIST", "auth/token/accessors")["data"]["keys"]) <= set(before["data"]["keys"])


@pytest.mark.parametrize(
    ("scope", "rule", "told"),
    [
        ("others", "caller", "matches none of its callers"),
        ("agents", "run_ref_required", "--run-ref"),
        ("x", "unknown_scope", "no scope x"),
    ],
)
def test_a_denial_is_told_and_recorded_without_a_login(stacked: Stack, scope: str, rule: str, told: str) -> None:
    """What our own configuration denies is exit 77 and a DENIED row; the provider is not asked."""
    before, logins = len(stacked.settle()), stacked.to_openbao.count(is_login)
    _fails(stacked, 77, f"scope {scope}: ", told, scope=scope)
    (row,) = _rows(stacked, before)
    assert (row["kind"], row["reason"], row["mode"]) == ("denied", rule, "direct")
    assert stacked.to_openbao.count(is_login) == logins


def test_f19_central_is_down(stacked: Stack) -> None:
    """Without central nothing is read and nothing runs."""
    reads = stacked.reads
    stacked.central.stop()
    try:
        _fails(stacked, 75, "scope web: ", "central did not take the audit record", words=("--timeout", "1s"))
        assert stacked.reads == reads
    finally:
        stacked.central.start()
    assert stacked.direct("--", "/bin/true").returncode == 0


@pytest.mark.parametrize("persisted", [True, False])
@pytest.mark.parametrize("step", ["reserved", "success"])
def test_f20_f24_a_lost_answer_is_asked_for_again(stacked: Stack, step: str, *, persisted: bool) -> None:
    """One lost request or answer costs another request, with the same bytes: released once, one row of each."""
    before = len(stacked.settle())
    with stacked.to_central.failing(times(1, Fault("reset", forwarded=persisted), with_kind(step))):
        done = stacked.direct("--", "/bin/sh", "-c", 'echo "$CANARY"')
    assert (done.returncode, done.stdout) == (0, f"{stacked.canary}\n"), done
    assert history.kinds(_rows(stacked, before)) == ["reserved", "success"]


@pytest.mark.parametrize("persisted", [True, False])
def test_f23_f24_a_success_that_is_never_acknowledged_releases_nothing(stacked: Stack, *, persisted: bool) -> None:
    """A success of which nobody knows whether it stands releases nothing; a later exec finds the log whole."""
    before = len(stacked.settle())
    with stacked.to_central.failing(always(Fault("reset", forwarded=persisted), with_kind("success"))):
        _fails(stacked, 75, "central did not take the audit record", words=("--timeout", "4s"))
    kinds = history.kinds(_rows(stacked, before))
    assert kinds == (["reserved", "success"] if persisted else ["reserved", "abandoned"])


def test_g8_a_success_whose_answer_comes_too_late_is_taken_back(stacked: Stack) -> None:
    """Where the success turns out to stand when its failure is told, the log says that it was not delivered."""
    before = len(stacked.settle())
    patient = stacked.agent.directory / "patient.toml"
    patient.touch(0o600)
    patient.write_text(stacked.agent.config.read_text().replace('timeout = "1s"', 'timeout = "30s"'))
    words = ("--config", str(patient), "--timeout", "4s")
    with stacked.to_central.failing(times(1, Fault("hang", forwarded=True), with_kind("success"))):
        _fails(stacked, 75, "central did not take the audit record", words=words)
    assert history.kinds(_rows(stacked, before)) == ["reserved", "success", "cleared"]


def test_f25_a_success_after_the_reservation_has_ended(stacked: Stack) -> None:
    """A reservation that central has abandoned while we read takes no success, and nothing is released."""
    before, go_on = len(stacked.settle()), threading.Event()
    hold = always(Fault("answer", forwarded=True, until=go_on), with_kind("success"))
    with stacked.to_central.failing(hold), ThreadPoolExecutor() as pool:
        words = ("--timeout", "30s")
        failing = pool.submit(_fails, stacked, 75, "the reservation has ended with abandoned", words=words)
        try:
            wait_until(lambda: "abandoned" in [row["kind"] for row in stacked.rows(before)], 30)
        finally:
            go_on.set()
        failing.result()
    assert history.kinds(_rows(stacked, before)) == ["reserved", "abandoned"]


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        (Fault("reset"), 75, "provider_unreachable"),
        (Fault("hang"), 75, "provider_unreachable"),
        (Fault("answer", status=503, body=b'{"errors":["Vault is sealed"]}'), 75, "sealed"),
        (Fault("answer", status=200, body=b"hello"), 76, "malformed_answer"),
    ],
)
def test_f1_f2_f4_f10_a_provider_that_fails(stacked: Stack, fault: Fault, status: int, reason: str) -> None:
    """A provider that is away, hangs, is sealed or talks nonsense is told by its reason, here and in the row."""
    before = len(stacked.settle())
    with stacked.to_openbao.failing(always(fault, is_read)):
        _fails(stacked, status, "scope web: ", "(pva_")
    rows = _rows(stacked, before)
    assert history.kinds(rows) == ["reserved", "failure"]
    assert rows[-1]["reason"] == reason


def test_a_login_that_is_refused_is_a_denial_on_the_record(stacked: Stack) -> None:
    """A wrong credential at the provider is exit 77 with a row that says so."""
    before = len(stacked.settle())
    refused = always(Fault("answer", status=400, body=b'{"errors":["invalid secret id"]}'), is_login)
    with stacked.to_openbao.failing(refused):
        _fails(stacked, 77, "refuses our login")
    assert [(row["kind"], row.get("reason")) for row in _rows(stacked, before)][1:] == [("denied", "login_refused")]


def test_a_collision_fails_before_the_success(stacked: Stack) -> None:
    """A variable that is set to something else is exit 78 and a FAILURE row, for nothing was given out; equal is no collision."""
    before = len(stacked.settle())
    _fails(stacked, 78, "CANARY is already set", env={"CANARY": "mine"})
    rows = _rows(stacked, before)
    assert [(row["kind"], row.get("reason")) for row in rows] == [("reserved", None), ("failure", "collision")]
    assert stacked.direct("--", "/bin/true", env={"CANARY": stacked.canary}).returncode == 0


def test_several_scopes_come_together(stacked: Stack) -> None:
    """Two scopes are one reservation and one success, with the names of both."""
    before = len(stacked.settle())
    done = stacked.direct("--scope", "more", "--", "/bin/sh", "-c", 'echo "$CANARY $OTHER"')
    assert done.stdout == f"{stacked.canary} 1\n"
    reserved, success = _rows(stacked, before)
    assert (reserved["scopes"], success["names"]) == (["web", "more"], ["CANARY", "OTHER"])


def test_references_of_our_own_are_resolved_under_the_scopes_paths(stacked: Stack) -> None:
    """A ``vault://`` variable of the caller is resolved where the scope allows its path, and denied where it does not."""
    script = ("--", "/bin/sh", "-c", 'echo "$MINE"')
    allowed = stacked.direct(*script, env={"MINE": "vault://secret/web#canary"}, scope="own")
    assert allowed.stdout == f"{stacked.canary}\n", allowed
    _fails(stacked, 77, "outside its allow_paths", env={"MINE": "vault://secret/more#other"}, scope="own")


def test_a_start_is_lean(stacked: Stack, tmp_path: Path) -> None:
    """With the configuration compiled, a direct exec imports nothing that costs: no event loop, no HTTP client, no validator."""
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    assert stacked.direct("--", "/bin/true", env=cache).returncode == 0
    words = ["exec", "--direct", "--config", str(stacked.agent.config), "--scope", "web", "--", "/bin/true"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-ISE", LAUNCHER, *words],
        env=stacked.agent.environment(cache),
        text=True,
        capture_output=True,
        check=True,
        timeout=60,
    )
    imported = set(re.findall(r"\|\s+([\w.]+)$", done.stderr, re.MULTILINE))
    assert "prism_vault_agent.direct" in imported
    assert sorted(name for name in imported if name.partition(".")[0] in HEAVY) == []
