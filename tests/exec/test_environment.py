"""Which variables the command gets."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prism_vault_agent.exec import Failure, environment

interesting = st.sampled_from(
    [
        b"PATH",
        b"HOME",
        b"LC_ALL",
        b"VAULT_TOKEN",
        b"BAO_ADDR",
        b"PRISM_VAULT_SOCKET",
        b"NOTIFY_SOCKET",
        b"LISTEN_FDS",
        b"LISTEN_PID",
        b"LISTEN_FDNAMES",
        b"WATCHDOG_USEC",
        b"CREDENTIALS_DIRECTORY",
        b"DB",
        b"OTHER",
        b"spring.url",
    ]
)
names = interesting | st.binary(min_size=1, max_size=8).filter(lambda name: not set(name) & set(b"=\0"))
values = st.sampled_from([b"", b"1", b"2", b"vault://secret/web#key"]) | st.binary(max_size=8).filter(lambda v: 0 not in v)
variables = st.dictionaries(names, values, max_size=10)


@given(variables, variables, variables, st.sampled_from([b"scope", b"caller"]), st.booleans())
def test_child_names(own, files, released, collision, pristine):
    """The command has exactly what is kept of its caller, what the env files say and what the scope declares."""
    kept = environment.Kept(own, files)
    composed = environment.compose(kept.pristine if pristine else kept.all, list(released.items()), collision)
    allowed = {name for name in own if not environment.is_stripped(name) and (not pristine or environment.is_pristine(name))}
    plain = {name for name in files if not environment.is_stripped(name)} | (allowed - files.keys())
    references = {name for name, _ in kept.references}
    assert set(composed) == (plain - references) | set(released)
    assert {name for name in composed if environment.is_stripped(name)} <= set(released)


@given(variables, variables)
def test_references(own, files):
    """Each reference is asked for once, those of the env files first, and is never handed on as it is."""
    kept = environment.Kept(own, files)
    asked = [name for name, _ in kept.references]
    assert len(set(asked)) == len(asked)
    assert all(value.startswith(b"vault://") for _, value in kept.references)
    assert not any(value.startswith(b"vault://") for value in (*kept.all.values(), *kept.pristine.values()))
    from_files = [name in files for name in asked]
    assert from_files == sorted(from_files, reverse=True)


@given(variables, variables)
def test_error_policy(kept, released):
    """Under the policy ``error`` a name with two different values is a failure, and nothing else is."""
    differs = {name for name in kept.keys() & released if kept[name] != released[name]}
    if differs:
        with pytest.raises(Failure) as caught:
            environment.compose(kept, list(released.items()), b"error")
        assert caught.value.exit_status == 78
    else:
        assert environment.compose(kept, list(released.items()), b"error") == kept | released


@given(variables, variables)
def test_who_wins(kept, released):
    """Under ``scope`` and ``caller`` the named side's values are there in full."""
    assert environment.compose(kept, list(released.items()), b"scope") == kept | released
    assert environment.compose(kept, list(released.items()), b"caller") == released | kept


def test_collision_tells_the_name_only():
    """A collision names the variable and how the scope decides, and neither value."""
    with pytest.raises(Failure) as caught:
        environment.compose({b"DB_PASSWORD": b"canary-one"}, [(b"DB_PASSWORD", b"canary-two")], b"error")
    assert "DB_PASSWORD" in caught.value.line
    assert "on_collision" in caught.value.line
    assert "canary" not in caught.value.line


def test_env_file_goes_before_own():
    """A variable of an env file replaces the caller's own one, also where one of them is a reference."""
    kept = environment.Kept(
        {b"A": b"own", b"B": b"vault://m/p#k", b"C": b"own"}, {b"A": b"file", b"B": b"plain", b"C": b"vault://m/p#k"}
    )
    assert kept.all == {b"A": b"file", b"B": b"plain"}
    assert kept.references == [(b"C", b"vault://m/p#k")]


@given(variables)
def test_read_block(own):
    """The kernel's block is read as it was given."""
    assert environment.read_block(b"".join(b"%b=%b\0" % pair for pair in own.items())) == own


def test_read_odd_block():
    """Of a name that is there twice the first counts, as in getenv(3); what is no variable is left out."""
    assert environment.read_block(b"A=1\0A=2\0=x\0lonely\0\0B=\0") == {b"A": b"1", b"B": b""}


@given(st.lists(st.binary(max_size=20)))
def test_kernel_bytes(strings):
    """A string costs its bytes, its NUL and a pointer of eight."""
    assert environment.kernel_bytes(strings) == sum(len(string) + 1 + 8 for string in strings)


@given(st.binary(min_size=1, max_size=30))
def test_prefixes(rest):
    """No variable of Vault, OpenBao or ours is handed on, whatever follows the prefix."""
    assume(0 not in rest)
    for prefix in (b"VAULT_", b"BAO_", b"PRISM_VAULT_"):
        assert environment.is_stripped(prefix + rest)
        assert not environment.is_pristine(prefix + rest)
