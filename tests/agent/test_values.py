"""Values and names end to end: from a real OpenBao through a real agent into the environment of a real command (F51-F58)."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.nasty import TRAPS, at_random
from tests.agent.started import child_environment, ours, refused, run, started
from tests.support.fault_proxy import Fault, FaultProxy, always
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.support.agent import AgentProcess
    from tests.support.openbao import OpenBao

CANARY = "canary-41d0a5cf"
NASTY = [*TRAPS.values(), *at_random(200, seed=51)]
PARTS = 3  # one answer of a provider is at most 4 MiB
LONGEST = 131_072  # MAX_ARG_STRLEN of execve(2): name, '=', value and NUL
DANGEROUS = "LD_LIBRARY_PATH PATH BASH_ENV PYTHONPATH NODE_OPTIONS GCONV_PATH VAULT_TOKEN IFS MALLOC_TRACE".split()
TYPED = {
    "integer": (8200, "8200"),
    "negative": (-1, "-1"),
    "big": (2**53 - 1, "9007199254740991"),  # OpenBao itself rounds what is larger
    "float": (1.5, "1.5"),
    "true": (True, "true"),
    "false": (False, "false"),
    "null": (None, "null"),
    "null_text": ("null", "null"),
    "list": ([1, "a b", None], '[1,"a b",null]'),
    "object": ({"k": {"ü": True}}, '{"k":{"ü":true}}'),
    "empty": ("", ""),
    "empty_list": ([], "[]"),
}


@pytest.fixture(scope="module")
def agent(place, openbao, central):
    """An agent with a scope for each secret of these tests, and some that take references of the caller's."""
    openbao.mount_kv("values")
    openbao.kv_put("values/nasty", {f"K{n}": value for n, value in enumerate(NASTY)})
    openbao.kv_put("values/typed", {name: value for name, (value, _) in TYPED.items()})
    openbao.kv_put("values/nul", {"GOOD": "x", "BAD": f"{CANARY}\0x"})
    openbao.kv_put("values/words", {"A": "a", "TRUE": "true", "ONE": "1", "LEVEL": "info"})
    openbao.kv_put("values/mib", {"v": CANARY + "x" * (1024 * 1024 - len(CANARY))})
    openbao.kv_put("values/one", {"k": CANARY})
    for name in ("edge", "keys", *(f"total{part}" for part in range(PARTS))):
        openbao.kv_put(f"values/{name}", {"v": ""})
    names = {f"K{n}": f"vault://values/nasty#K{n}" for n in range(len(NASTY))}
    scopes: dict[str, dict[str, Any]] = {
        "nasty": {"env": names},
        "nasty_from": {"env_from": ["vault://values/nasty"]},
        "typed": {"env": {name: f"vault://values/typed#{name}" for name in TYPED}},
        "nul": {"env_from": ["vault://values/nul"]},
        "words": {"env_from": ["vault://values/words"]},
        "mib": {"env": {"V": "vault://values/mib#v"}},
        "edge": {"env": {"V": "vault://values/edge#v"}},
        "edge_long_name": {"env": {"N" * 255: "vault://values/edge#v"}},
        "total": {"env_from": [f"vault://values/total{part}" for part in range(PARTS)]},
        "keys": {"env_from": ["vault://values/keys"]},
        "own": {"allow_paths": ["values/one"]},
        "own_allowed": {"allow_paths": ["values/one"], "allow_names": DANGEROUS},
        "keys_allowed": {
            "env_from": ["vault://values/keys"],
            "allow_names": ["LD_PRELOAD", *DANGEROUS],
            "on_collision": "scope",
        },
        "other": {"env": {"CANARY": "vault://other/fake#k"}},
    }
    openbao.policy("values", 'path "values/*" { capabilities = ["read"] }\npath "other/*" { capabilities = ["read"] }')
    with started(place, openbao, central, scopes, auth=login(openbao)) as agent:
        yield agent


def login(openbao: OpenBao) -> str:
    """Return how an agent logs in that may read ``values`` too."""
    role_id, secret_id = openbao.approle("values", ["prism-vault", "values"])
    return f'method = "approle"\nrole_id_file = "{role_id}"\nsecret_id_file = "{secret_id}"\n'


@pytest.mark.parametrize("scope", ["nasty", "nasty_from"])
def test_f51_values_are_byte_exact(agent, scope):
    """Every nasty value arrives in the command's environment byte for byte, bound by name or by its own key."""
    found = ours(child_environment(agent, scope), agent)
    expected = {f"K{n}".encode(): value.encode() for n, value in enumerate(NASTY)}
    assert found == expected
    assert len(TRAPS) == 57


def test_f51_a_lone_surrogate_is_delivered_as_it_was_answered(place, openbao, central):
    """A lone surrogate, which OpenBao itself stores as U+FFFD, is neither dropped nor replaced when a provider answers one."""
    openbao.kv_put("secret/surrogate", {"k": "x"})
    body = b'{"data":{"data":{"k":"a\\ud800b"},"metadata":{"version":1,"created_time":"2026-01-01T00:00:00Z"}}}'
    fault = always(Fault("answer", status=200, body=body), lambda seen: seen.path.endswith("/data/surrogate"))
    with FaultProxy(openbao.port, fault) as proxy:
        scope = {"own": {"env": {"S": "vault://secret/surrogate#k"}}}
        with started(place, openbao, central, scope, vault_address=proxy.address) as agent:
            assert ours(child_environment(agent, "own"), agent) == {b"S": b"a\xed\xa0\x80b"}


def test_f52_nul_is_refused_before_release(agent):
    """A value with a NUL byte ends the render before its release; line and row name the variable, never the value."""
    line, found = refused(agent, "--scope", "nul", status=78, kinds=["reserved", "failure"], hidden=[CANARY])
    assert "BAD holds a NUL byte" in line and "scope nul" in line
    assert found[1]["fields"]["reason"] == "unrepresentable" and "BAD" in found[1]["fields"]["message"]


def test_f53_typed_values_follow_one_rule(agent):
    """Strings are themselves, everything else is its compact JSON text; nothing becomes ``None``, an empty value stays empty."""
    found = ours(child_environment(agent, "typed"), agent)
    assert found == {name.encode(): text.encode() for name, (_, text) in TYPED.items()}


@pytest.mark.parametrize(("scope", "name"), [("edge", "V"), ("edge_long_name", "N" * 255)])
def test_f54_the_longest_variable(agent, openbao, scope, name):
    """A variable of 131,072 bytes with name, ``=`` and NUL runs; one byte more is refused, by us as by the kernel."""
    fits = LONGEST - len(name) - 2
    openbao.kv_put("values/edge", {"v": "x" * fits})
    assert ours(child_environment(agent, scope), agent) == {name.encode(): b"x" * fits}
    assert kernel_takes({name: "x" * fits})
    openbao.kv_put("values/edge", {"v": CANARY + "x" * (fits + 1 - len(CANARY))})
    line, found = refused(agent, "--scope", scope, status=78, kinds=["reserved", "failure"], hidden=[CANARY])
    assert f"needs {LONGEST + 1} bytes with its name; the kernel takes {LONGEST}" in line
    assert found[1]["fields"]["reason"] == "unrepresentable"
    assert not kernel_takes({name: "x" * (fits + 1)})


@pytest.mark.parametrize("stack", [256 * 1024, 1024 * 1024, 8 * 1024 * 1024, resource.RLIM_INFINITY])
def test_f54_the_largest_environment(agent, openbao, stack):
    """Under any stack limit the largest environment that is accepted runs; 64 bytes more are refused, by us and the kernel."""
    fits, over = border(agent, stack)
    fill(openbao, fits)
    found = ours(child_environment(agent, "total", preexec_fn=limited(stack)), agent)
    assert sum(map(len, found.values())) == fits
    fill(openbao, over)
    line, rows = refused(
        agent, "--scope", "total", status=78, kinds=["reserved", "failure"], hidden=["x" * 64], preexec_fn=limited(stack)
    )
    assert "does not fit: environment and arguments together may have" in line
    assert rows[1]["fields"]["reason"] == "unrepresentable"
    variables = {**agent.environment(), **{f"V{n:03}": value for n, value in enumerate(pieces(over + 64))}}
    assert not kernel_takes(variables, "/bin/echo", "the command ran", stack=stack)


def border(agent: AgentProcess, stack: int) -> tuple[int, int]:
    """Return the size of values that just fits beside what the caller has under ``stack``, and one that just does not.

    What counts is told by execve(2): strings with their NULs, a pointer for each, and the file's name.
    """
    quarter = (stack if stack != resource.RLIM_INFINITY else 1 << 40) // 4
    total = max(128 * 1024, min(quarter, 6 * 1024 * 1024))
    strings = ["/bin/cat", "/bin/cat", "/proc/self/environ", *(f"{k}={v}" for k, v in agent.environment().items())]
    strings = [each for each in strings if not each.startswith("PRISM_VAULT_")]
    used = sum(len(each) + 9 for each in strings)
    size = total - used
    while size + sum(len("V000=") + 9 for _ in pieces(size)) > total - used:
        size -= 8
    return size, size + 64


def fill(openbao: OpenBao, size: int) -> None:
    """Put values of ``size`` bytes in all into the secrets of scope ``total``."""
    values = {f"V{n:03}": value for n, value in enumerate(pieces(size))}
    for part in range(PARTS):
        openbao.kv_put(f"values/total{part}", dict(list(values.items())[part::PARTS]))


def pieces(size: int) -> list[str]:
    """Return values of ``size`` bytes in all, each short enough for one variable."""
    return ["x" * min(100_000, size - at) for at in range(0, size, 100_000)]


def limited(stack: int) -> Callable[[], None]:
    """Return what sets the stack limit in a child."""
    return lambda: resource.setrlimit(resource.RLIMIT_STACK, (stack, resource.RLIM_INFINITY))


def kernel_takes(variables: Mapping[str, str], *command: str, stack: int | None = None) -> bool:
    """Tell whether the kernel itself starts a command with these variables."""
    try:
        subprocess.run(
            command or ["/bin/true"], env=variables, check=True, capture_output=True, preexec_fn=limited(stack) if stack else None
        )
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        return False
    return True


def test_f55_one_mebibyte_is_read_and_refused_for_an_environment(agent, openbao):
    """A value of 1 MiB comes from the provider without harm, and is refused for an environment with its size and the limit."""
    assert len(openbao.must("GET", "values/data/mib")["data"]["data"]["v"]) == 1024 * 1024
    line, found = refused(agent, "--scope", "mib", status=78, kinds=["reserved", "failure"], hidden=[CANARY, "x" * 64])
    assert "V needs 1048579 bytes with its name; the kernel takes 131072" in line
    assert found[1]["fields"]["reason"] == "unrepresentable"


def test_f56_a_secret_that_is_a_common_word_spoils_nothing(agent):
    """Secrets such as ``true``, ``1``, ``a`` and ``info`` are delivered, and rows and log of that run read as any other's."""
    assert ours(child_environment(agent, "words"), agent) == {b"A": b"a", b"TRUE": b"true", b"ONE": b"1", b"LEVEL": b"info"}
    # The command may be done before the agent has written its line.
    (mine,) = wait_until(
        lambda: [
            event
            for event in (json.loads(line) for line in agent.log.splitlines() if '"render.released"' in line)
            if event["names"] == ["A", "LEVEL", "ONE", "TRUE"]
        ]
    )
    assert set(mine) == {"timestamp", "level", "event", "audit_id", "pid", "uid", "names"}
    assert mine["level"] == "info" and mine["uid"] == os.getuid()


@pytest.mark.parametrize(
    "name", ["A B", "1A", "A-B", "A.B", "Ä", "A\nB", "A\tB", " ", "N" * 10_000, b"\xff\xfe"], ids=lambda name: ascii(name)[:12]
)
def test_f57_bad_names_of_own_references(agent, name):
    """A reference in a variable whose name is none is denied before any reservation, and told with the name escaped."""
    own = {name: "vault://values/one#k"}
    line, found = refused(agent, "--scope", "own", status=77, kinds=["denied"], env=own, hidden=[CANARY])
    assert "the variable name" in line and "rename it" in line
    assert line.strip().isprintable() and len(line) < 400
    assert found[0]["fields"]["reason"] == "bad_name"


def test_f57_an_empty_name_is_no_variable(agent):
    """An item of the caller's environment without a name is not asked for and not handed on."""
    code = (
        "import ctypes, os, sys\n"
        "words = [word.encode() for word in sys.argv[1:]]\n"
        "block = [b'=vault://values/one#k', *(b'%b=%b' % pair for pair in os.environb.items())]\n"
        "array = lambda items: (ctypes.c_char_p * (len(items) + 1))(*items, None)\n"
        "ctypes.CDLL(None).execve(words[0], array(words), array(block))\n"
    )
    found = ours(child_environment(agent, "own", before=(sys.executable, "-ISE", "-c", code)), agent)
    assert found.keys() <= {b"LC_CTYPE"}  # which the interpreter that starts it may set (PEP 538)


@pytest.mark.parametrize("name", ["", "A B", "1A", "Ä", "A\nB", "N" * 10_000, "A=B"], ids=lambda name: ascii(name)[:12])
def test_f57_bad_keys_of_a_whole_secret(agent, openbao, name):
    """A key that cannot be a name ends the render before its release, with a failure that shows the key escaped."""
    openbao.kv_put("values/keys", {"GOOD": "x", name: CANARY})
    line, found = refused(agent, "--scope", "keys", status=78, kinds=["reserved", "failure"], hidden=[CANARY])
    assert "cannot be a name" in line and line.strip().isprintable() and len(line) < 400
    assert found[1]["fields"]["reason"] == "bad_name"


@pytest.mark.parametrize("name", DANGEROUS)
def test_f58_dangerous_names_of_own_references(agent, name):
    """A reference in a variable that changes how programs run is denied, and allowed by the scope that lists its name."""
    variable = {name: "vault://values/one#k"}
    if name.startswith("VAULT_"):  # a credential of the caller's own is not even asked for
        assert ours(child_environment(agent, "own", env=variable), agent) == {}
        return
    line, found = refused(agent, "--scope", "own", status=77, kinds=["denied"], env=variable, hidden=[CANARY])
    assert f"{name} changes how programs load or run; list it in the scope's allow_names" in line
    assert found[0]["fields"]["reason"] == "dangerous_name"
    assert child_environment(agent, "own_allowed", env=variable)[name.encode()] == CANARY.encode()


@pytest.mark.parametrize("name", ["LD_PRELOAD", *DANGEROUS])
def test_f58_dangerous_keys_of_a_whole_secret(agent, openbao, name):
    """A key that changes how programs run ends the render before its release, unless the scope lists it."""
    openbao.kv_put("values/keys", {"GOOD": "x", name: CANARY})
    line, found = refused(agent, "--scope", "keys", status=78, kinds=["reserved", "failure"], hidden=[CANARY])
    assert f"the key {name} of vault://values/keys cannot be a name: it changes how programs load or run" in line
    assert found[1]["fields"]["reason"] == "bad_name"
    environment = child_environment(agent, "keys_allowed")
    assert environment[name.encode()] == CANARY.encode()


def test_own_scope_without_references_adds_nothing(agent):
    """A scope that only allows paths adds no variable by itself, and the run is on the record all the same."""
    done = run(agent, "--scope", "own", "--", "/bin/cat", "/proc/self/environ")
    assert done.returncode == 0 and b"CANARY" not in done.stdout
