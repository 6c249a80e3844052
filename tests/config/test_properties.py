"""Whatever is written in the configuration, it becomes settings or one error: never a crash, never a guess (F62)."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from prism_vault_agent.config.load import load
from prism_vault_agent.config.plain import from_plain, to_plain
from prism_vault_agent.config.schema import SECTIONS
from prism_vault_agent.config.settings import Settings
from prism_vault_agent.config.shapes import duration, seconds, url
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.scope import CallerRule
from tests.config.written import BASE, ENVIRON, SCOPE, toml, value, write
from tests.support.soak import count

# Drawing trees takes longer than loading them, the more so on a busy machine.
SLOW = [HealthCheck.too_slow]
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
KNOWN = sorted({key for section in SECTIONS.values() for key in section.model_fields} | {"web", "jobs", "TOKEN", "PATH"})
WORDS = [
    "approle",
    "cert",
    "service",
    "agent",
    "root",
    "/a",
    "https://v",
    "10s",
    "0660",
    "vault://secret/a#b",
    "vault://a/b",
    "secret/*",
]
SCALARS = st.one_of(
    st.sampled_from(WORDS), TEXT, st.integers(-(2**70), 2**70), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KNOWN) | TEXT, inner, max_size=5),
    max_leaves=25,
)
TABLES = st.dictionaries(st.sampled_from(["agent", "vault", "central", "scopes"]) | TEXT, TREES, max_size=5)


def outcome(text: str, **scopes_d: str) -> Settings | ConfigError:
    """Return what loading ``text`` gives; anything but settings or a ConfigError fails the test."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            return load(write(Path(directory), text, **scopes_d), {"XDG_RUNTIME_DIR": directory, "HOME": directory})
        except ConfigError as error:
            got = error
    assert got.line().startswith(directory), got.line()
    return got


@settings(max_examples=count(100, 10_000), suppress_health_check=SLOW)
@given(TABLES)
def test_any_tree_is_settings_or_one_error(tree: dict[str, Any]):
    """Any tree that TOML can say gives settings or a ConfigError that names the file."""
    text = toml(tree)
    tomllib.loads(text)
    assert isinstance(outcome(text), Settings | ConfigError)


@settings(max_examples=count(200, 10_000), suppress_health_check=SLOW)
@given(st.sampled_from(["[vault]\n", "[vault.auth]\n", "[central]\n", "[scopes.web]\n"]), st.sampled_from(KNOWN), TREES)
def test_any_value_in_any_place_is_settings_or_one_error(section: str, key: str, tree: Any):
    """A valid configuration with one key set to anything gives settings or a ConfigError with file and line."""
    text = (BASE + SCOPE).replace(section, f"{section}{key} = {value(tree)}\n")
    got = outcome(text)
    assert isinstance(got, Settings) or ".toml" in got.message


@settings(max_examples=count(100, 10_000))
@given(st.binary(max_size=200) | TEXT.map(str.encode))
@example(b"\r")
@example(b"a=[[[[")
def test_any_bytes_are_settings_or_one_error(content: bytes):
    """Bytes that are nothing at all give a ConfigError that names the file."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = write(directory)
        Path(path).write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load(path, ENVIRON)
        assert caught.value.message.startswith(path)


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True)
IDS = st.integers(0, 2**32 - 2)
RULES = st.lists(
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["service", "agent", "worker", "operator"]), "uid": IDS}, optional={"gid": IDS}
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=count(100, 10_000))
@given(NAMES, st.lists(NAMES, min_size=1, max_size=3), RULES, st.booleans())
def test_what_is_written_is_what_holds(name: str, purposes: list[str], rules: list[dict[str, Any]], pristine: bool):  # noqa: FBT001
    """Every rule, purpose and switch that is written is in the settings, no other is, and plain JSON keeps them all."""
    scope = {"project": "p", "environment": "e", "purposes": purposes, "callers": rules, "pristine": pristine}
    got = outcome(BASE + f"[scopes]\n{toml({name: scope})}")
    assert isinstance(got, Settings), got
    held = got.scopes[name]  # type: ignore[index]
    assert held.callers == tuple(CallerRule(rule["kind"], rule["uid"], rule.get("gid")) for rule in rules)
    assert held.purposes == tuple(dict.fromkeys(purposes))
    assert held.pristine is pristine
    assert from_plain(to_plain(got)) == got


@given(st.integers(0, 9999), st.sampled_from(["ms", "s", "m", "h"]))
def test_a_duration_is_its_number_of_its_unit(number: int, unit: str):
    """``10s`` is ten seconds; everything longer than an hour is refused as a duration."""
    expected = number * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]
    assert seconds(f"{number}{unit}") == expected
    try:
        assert duration(f"{number}{unit}") == f"{number}{unit}"
    except ValueError:
        assert expected > 3600


@given(TEXT | st.from_regex(r"https?://[a-z0-9.:\[\]@/?#-]{0,20}"))
def test_an_address_that_is_taken_is_safe(text: str):
    """An address that passes is https, or http on loopback, and holds no credentials, query or fragment (T23)."""
    try:
        taken = url(text)
    except ValueError:
        return
    assert "@" not in taken
    assert "?" not in taken
    assert "#" not in taken
    assert taken.startswith(("https://", "http://127.", "http://localhost", "http://[::1]"))
