"""What is written in a dialect is read by its real readers byte for byte: the known traps, and strings at random (F51)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.dialects.contents import contents
from prism_vault_agent.dialects.quoting import line
from prism_vault_agent.errors import ConfigError
from tests.agent.nasty import TRAPS, at_random
from tests.dialects import readers
from tests.support.soak import count

if TYPE_CHECKING:
    from prism_vault_agent.scope import Format

RANDOM = 600
# How many of the 57 traps each dialect carries; what it does not carry it refuses.
CARRIED = {"systemd": 57, "sh": 57, "docker": 51, "compose": 57, "dotenv": 57, "portable": 52}
SYSTEMD = pytest.mark.tool("systemd-analyze")  # its package has the library that reads for systemd, too
PAIRS = [
    pytest.param("systemd", readers.systemd, marks=SYSTEMD),
    ("sh", readers.dash),
    ("sh", readers.bash),
    ("docker", readers.compose_raw),
    ("compose", readers.compose),
    ("dotenv", readers.python_dotenv),
    pytest.param("portable", readers.systemd, marks=SYSTEMD),
    *(("portable", reader) for reader in (readers.dash, readers.bash, readers.compose)),
    ("portable", readers.python_dotenv),
    ("portable", readers.python_dotenv_plain),
]


def carried(form: Format, values: list[str]) -> dict[str, str]:
    """Return the values that a dialect carries, named by their place."""
    found = {}
    for number, value in enumerate(values):
        with contextlib.suppress(ConfigError):
            line(form, f"K{number}", value)
            found[f"K{number}"] = value
    return found


def ids(pair: object) -> str:
    return pair if isinstance(pair, str) else getattr(pair, "__name__", "")


@pytest.mark.parametrize(("form", "reader"), PAIRS, ids=ids)
def test_the_traps_are_read_as_they_were_written(tmp_path, form, reader):
    """Of the 57 values that some reader gets wrong, a dialect's reader gets every one that the dialect does not refuse."""
    values = carried(form, list(TRAPS.values()))
    file = tmp_path / "traps.env"
    file.write_bytes(contents(form, "f", values)["f"])
    assert reader(file) == {name: value.encode() for name, value in values.items()}
    assert len(values) == CARRIED[form]


@pytest.mark.parametrize("seed", range(count(1, 20)))
@pytest.mark.parametrize(("form", "reader"), PAIRS, ids=ids)
def test_random_values_are_read_as_they_were_written(tmp_path, form, reader, seed):
    """600 strings of quotes, dollars, backslashes, line ends and letters of every plane arrive as they are, or are refused."""
    values = carried(form, at_random(RANDOM, seed))
    file = tmp_path / "random.env"
    file.write_bytes(contents(form, "f", values)["f"])
    assert reader(file) == {name: value.encode() for name, value in values.items()}
    assert len(values) > {"systemd": 580, "sh": 599, "compose": 599, "dotenv": 599}.get(form, 20)


@pytest.mark.tool("node")
def test_node_reads_what_is_portable_without_escapes(tmp_path):
    """Node reads the portable values that need no double quotes: it knows no escapes in these."""
    values = carried("portable", list(TRAPS.values()) + at_random(RANDOM, 7))
    plain = {name: value for name, value in values.items() if not {"'", "\\"} & set(value)}
    file = tmp_path / "node.env"
    file.write_bytes(contents("portable", "f", plain)["f"])
    assert readers.node(file) == {name: value.encode() for name, value in plain.items()}
    assert len(plain) > 40
