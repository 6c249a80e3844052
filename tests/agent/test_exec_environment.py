"""What a command gets besides its secrets, from a real agent: variables, limits, descriptors; and what never reaches it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.asking import eventually, rows
from tests.agent.started import child_environment, ours, refused, run, started
from tests.support.fault_proxy import Fault, FaultProxy, always

if TYPE_CHECKING:
    from tests.support.agent import AgentProcess

CANARY = "canary-7c2e90b4"
UID = os.getuid()
OPERATOR = [{"kind": "operator", "uid": UID}]
AGENT = [{"kind": "agent", "uid": UID}]
STRIPPED = {
    "VAULT_ADDR": "http://bait",
    "VAULT_TOKEN": "hvs.bait",
    "VAULT_ANYTHING": "bait",
    "BAO_TOKEN": "s.bait",
    "BAO_ADDR": "http://bait",
    "PRISM_VAULT_OPERATOR_TOKEN": "bait",
    "PRISM_VAULT_CONFIG": "/bait",
    "NOTIFY_SOCKET": "/bait",
    "LISTEN_FDS": "1",
    "LISTEN_PID": "1",
    "LISTEN_FDNAMES": "bait",
    "WATCHDOG_USEC": "1",
    "WATCHDOG_PID": "1",
    "CREDENTIALS_DIRECTORY": "/bait",
}
OWN = {"HOME": "/root", "LANG": "C.UTF-8", "LC_TIME": "C", "TERM": "dumb", "MINE": "kept", "SSH_AUTH_SOCK": "/agent"}
CLEAN = {b"HOME", b"LANG", b"LC_TIME", b"TERM", b"PATH"}


@pytest.fixture(scope="module")
def proxy(openbao):
    """What stands between the agent and OpenBao: it notes every request and can make one hang."""
    with FaultProxy(openbao.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def agent(place, openbao, central, proxy):
    """An agent with a scope for each rule."""
    openbao.kv_put("secret/exec/a", {"k": CANARY, "other": "second", "whole": "x"})
    openbao.kv_put("secret/exec/deep/er", {"k": "deeper"})
    openbao.kv_put("secret/exec-not/a", {"k": "outside"})
    env = {"A": "vault://secret/exec/a#k"}
    scopes: dict[str, dict[str, Any]] = {
        "plain": {"env": env},
        "wins": {"env": env, "on_collision": "scope"},
        "yields": {"env": env, "on_collision": "caller"},
        "clean": {"env": env, "pristine": True},
        "for_agents": {"env": env, "callers": AGENT},
        "for_agents_kept": {"env": env, "callers": AGENT, "pristine": False},
        "exact": {"allow_paths": ["secret/exec/a"]},
        "below": {"allow_paths": ["secret/exec/*"]},
        "sets_stripped": {"env": {"VAULT_TOKEN": "vault://secret/exec/a#k"}, "allow_names": ["VAULT_TOKEN"]},
    }
    with started(place, openbao, central, scopes, vault_address=proxy.address) as agent:
        yield agent


@pytest.mark.parametrize("scope", ["plain", "clean"])
def test_t20_credentials_of_the_caller_never_reach_the_child(agent, scope):
    """Nothing of the caller's ``VAULT_*``, ``BAO_*``, ``PRISM_VAULT_*``, or of what a service manager told it, is handed on."""
    found = child_environment(agent, scope, env={**STRIPPED, "MINE": "kept"})
    assert found == {b"PATH": b"/usr/bin:/bin", b"HOME": b"/", b"A": CANARY.encode()} | (
        {b"MINE": b"kept"} if scope == "plain" else {}
    )


def test_t20_an_env_file_cannot_bring_them_in(agent, tmp_path):
    """What is never handed on is not handed on from an env file either; only a scope that lists the name may set one."""
    file = tmp_path / "e.env"
    file.write_text("VAULT_TOKEN=bait\nNOTIFY_SOCKET=/bait\nVAULT_REF=vault://secret/exec/a#k\nFINE=yes\n")
    words = ("--env-file", str(file))
    assert ours(child_environment(agent, "below", words=words), agent) == {b"FINE": b"yes"}
    found = ours(child_environment(agent, "sets_stripped", words=words, env={"VAULT_TOKEN": "bait"}), agent)
    assert found == {b"FINE": b"yes", b"VAULT_TOKEN": CANARY.encode()}


def test_collision_is_an_error(agent):
    """A variable that the caller has with another value ends the run before the command; the log says that it was taken back."""
    done = run(agent, "--scope", "plain", "--", "/bin/echo", "ran", env={"A": "mine-4f"})
    assert (done.returncode, done.stdout) == (78, b"")
    line = done.stderr.decode()
    assert "A is already set" in line and "on_collision" in line and CANARY not in line and "mine-4f" not in line
    eventually(lambda: kinds_of_last(agent) == ["reserved", "success", "cleared"])


def test_collision_with_the_same_value_is_none(agent):
    """A variable that has the scope's value already is no collision."""
    assert ours(child_environment(agent, "plain", env={"A": CANARY}), agent) == {b"A": CANARY.encode()}


def test_collision_scope_or_caller_wins(agent):
    """A scope may say that its own value counts, or the caller's."""
    assert ours(child_environment(agent, "wins", env={"A": "mine"}), agent) == {b"A": CANARY.encode()}
    assert ours(child_environment(agent, "yields", env={"A": "mine"}), agent) == {b"A": b"mine"}


def test_collision_with_an_env_file(agent, tmp_path):
    """A value of an env file collides as the caller's own does."""
    file = tmp_path / "e.env"
    file.write_text("A=from-file\n")
    done = run(agent, "--scope", "plain", "--env-file", str(file), "--", "/bin/echo", "ran")
    assert (done.returncode, done.stdout) == (78, b"")
    assert ours(child_environment(agent, "yields", words=("--env-file", str(file))), agent) == {b"A": b"from-file"}


@pytest.mark.parametrize(
    ("scope", "words", "clean"),
    [
        ("plain", (), False),
        ("plain", ("--pristine",), True),
        ("clean", (), True),
        ("for_agents", ("--run-ref", "r1"), True),
        ("for_agents_kept", ("--run-ref", "r1"), False),
        ("for_agents_kept", ("--run-ref", "r1", "--pristine"), True),
    ],
)
def test_pristine(agent, scope, words, clean):
    """Only the short list is kept with ``--pristine``, where the scope says so, and for kind ``agent`` by default."""
    found = child_environment(agent, scope, words=words, env=OWN)
    assert found[b"A"] == CANARY.encode()
    assert found.keys() - {b"A"} == (CLEAN if clean else CLEAN | {b"MINE", b"SSH_AUTH_SOCK"})


def test_pristine_keeps_what_was_asked_for(agent, tmp_path):
    """References of the caller's own and all of an env file are there with ``--pristine`` too."""
    file = tmp_path / "e.env"
    file.write_text("PLAIN=text\nREF=vault://secret/exec/a#other\n")
    words = ("--pristine", "--env-file", str(file))
    found = ours(
        child_environment(agent, "below", words=words, env={"DEEP": "vault://secret/exec/deep/er#k", "MINE": "x"}), agent
    )
    assert found == {b"PLAIN": b"text", b"REF": b"second", b"DEEP": b"deeper"}


def test_env_file_values_and_references(agent, tmp_path):
    """Values of env files are plain or references; the later file goes before the earlier, both before the caller's own."""
    first, second = tmp_path / "1.env", tmp_path / "2.env"
    first.write_text("# settings\nexport ONE='1 # no comment'\nTWO=first\nREF=vault://secret/exec/a#k\n")
    second.write_text('TWO="second\\nline"\n')
    words = ("--env-file", str(first), "--env-file", str(second))
    found = ours(child_environment(agent, "exact", words=words, env={"ONE": "mine", "REF": "mine"}), agent)
    assert found == {b"ONE": b"1 # no comment", b"TWO": b"second\nline", b"REF": CANARY.encode()}


def test_allow_paths_exact_and_below(agent, proxy):
    """An exact entry of ``allow_paths`` covers one path, an entry with ``/*`` everything below, and nothing beside."""
    a, deep = {"R": "vault://secret/exec/a#k"}, {"R": "vault://secret/exec/deep/er#k"}
    assert ours(child_environment(agent, "exact", env=a), agent) == {b"R": CANARY.encode()}
    assert ours(child_environment(agent, "below", env=a), agent) == {b"R": CANARY.encode()}
    assert ours(child_environment(agent, "below", env=deep), agent) == {b"R": b"deeper"}
    for scope, own in (("exact", deep), ("below", {"R": "vault://secret/exec-not/a#k"}), ("plain", a)):
        before = data_reads(proxy)
        line, found = refused(agent, "--scope", scope, status=77, kinds=["denied"], env=own)
        assert "the reference in R is outside its allow_paths" in line
        assert found[0]["fields"]["reason"] == "path_not_allowed" and data_reads(proxy) == before


@pytest.mark.parametrize(
    "reference", ["vault://secret/exec/../exec/a#k", "vault://secret//exec/a#k", "vault://secret#k", "vault://"]
)
def test_own_references_that_are_none(agent, reference):
    """A reference that climbs, has an empty part or names no path is refused before any row, by the variable's name."""
    done = run(agent, "--scope", "below", "--", "/bin/echo", "ran", env={"BENT": reference})
    assert (done.returncode, done.stdout) == (64, b"")
    assert b"the variable BENT holds not a secret reference" in done.stderr


def test_dry_run_reads_nothing_and_leaves_no_row(agent, proxy, tmp_path):
    """``--dry-run`` prints names and where they come from; no value is read, no row written, and no command needed."""
    file = tmp_path / "e.env"
    file.write_text("REF=vault://secret/exec/a#other\n")
    eventually(lambda: agent.status()["central"]["queued"] == 0 and agent.status()["runs"] == [])
    before = data_reads(proxy), len(agent.central.events())
    for words in ((), ("--", "/bin/echo", "ran")):
        done = run(agent, "--scope", "below", "--scope", "plain", "--env-file", str(file), "--dry-run", *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout == b"A <- vault://secret/exec/a#k\nREF <- vault://secret/exec/a#other\n"
    denied = run(agent, "--scope", "plain", "--dry-run", env={"R": "vault://secret/exec/a#k"})
    assert denied.returncode == 77 and b"allow_paths" in denied.stderr and b"pva_" not in denied.stderr
    assert (data_reads(proxy), len(agent.central.events())) == before


def test_f3_timeout_bounds_a_hanging_provider(agent, proxy):
    """``--timeout`` ends the wait for a provider that never answers, with 75, no child, and a failure row."""
    fault = always(Fault("hang"), lambda seen: "/data/exec/" in seen.path)
    begun = time.monotonic()
    with proxy.failing(fault):
        line, found = refused(agent, "--scope", "plain", "--timeout", "1500ms", status=75, kinds=["reserved", "failure"])
    assert time.monotonic() - begun < 60
    assert found[1]["fields"]["reason"] == "provider_unreachable" and "scope plain: " in line


def test_t8_the_child_cannot_dump_core(agent):
    """The command's core limit is one byte, soft and hard, at which no piped core handler is started either (F77)."""
    done = run(agent, "--scope", "plain", "--", "/bin/cat", "/proc/self/limits")
    limits = next(line for line in done.stdout.decode().splitlines() if line.startswith("Max core file size"))
    assert limits.split()[4:6] == ["1", "1"]


def test_t19_no_extra_descriptors(agent, tmp_path):
    """The command has the descriptors that the caller passed and no other."""
    plain = run(agent, "--scope", "plain", "--", "/bin/ls", "/proc/self/fd")
    assert plain.stdout.split() == [b"0", b"1", b"2", b"3"]  # 3 is the directory that ls reads
    with (tmp_path / "passed").open("wb") as passed:
        words = ("--scope", "plain", "--", "/bin/readlink", f"/proc/self/fd/{passed.fileno()}")
        assert run(agent, *words, pass_fds=[passed.fileno()]).stdout.strip() == str(tmp_path / "passed").encode()


def test_t3_no_argv_carries_a_value(agent):
    """While runs start, live and end, no process of the host has the value among its arguments."""
    seen: set[bytes] = set()
    ending = threading.Event()

    def look() -> None:
        while not ending.is_set():
            seen.update(command_lines())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(5):
            assert run(agent, "--scope", "plain", "--", "/bin/sleep", "0.05").returncode == 0
            assert run(agent, "--scope", "below", "--", "/bin/true", env={"R": "vault://secret/exec/a#k"}).returncode == 0
    finally:
        ending.set()
        looking.join()
    assert any(b"exec\0" in line and b"prism-vault" in line for line in seen), "the runs were not seen at all"
    assert not [line for line in seen if CANARY.encode() in line]


def command_lines() -> set[bytes]:
    """Return the command line of every process."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found.add(Path(f"/proc/{name}/cmdline").read_bytes())
            except OSError:
                continue
    return found


def data_reads(proxy: FaultProxy) -> int:
    """Return how many secrets have been read so far."""
    return proxy.count(lambda seen: "/data/" in seen.path)


def kinds_of_last(agent: AgentProcess) -> list[str]:
    """Return the kinds of the rows of the newest reservation."""
    last = [event for event in agent.central.events() if event["kind"] == "reserved"][-1]
    return [row["kind"] for row in rows(agent.central, last["fields"]["reservation"])]
