"""The command line of ``exec``, as the thin client and as the command line proper read it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.cli import exec as command_line
from prism_vault_agent.cli.main import parser
from prism_vault_agent.exec import Failure, arguments

word = st.text("ab-=./:", min_size=1, max_size=6).filter(lambda text: not text.startswith("-"))
option = st.one_of(
    st.tuples(st.sampled_from(["--scope", "--purpose", "--run-ref", "--job-id", "--env-file"]), word),
    st.tuples(st.sampled_from(["--scope", "--purpose", "--env-file"]), word).map(lambda pair: (f"{pair[0]}={pair[1]}",)),
    st.sampled_from(
        [("--pristine",), ("--dry-run",), ("--timeout", "2s"), ("--timeout=500ms",), ("--direct",), ("--supervise",)]
    ),
)


def plain(options: arguments.ExecOptions) -> dict[str, object]:
    return {field: getattr(options, field) for field in arguments.ExecOptions.__slots__}


@given(st.lists(option, max_size=5), st.lists(word | st.sampled_from(["--scope", "--", "-x"]), max_size=4))
def test_both_parsers_agree(options, command):
    """The thin client and the command line proper read the same options and the same command."""
    words = [part for one in options for part in one] + ["--", *command]
    ours, our_command = arguments.parse(words)
    whole, _ = parser("exec")
    theirs = arguments.ExecOptions()
    their_command = command_line.read(whole.parse_args(["exec", *words]), theirs)
    assert (plain(ours), our_command) == (plain(theirs), their_command)
    assert our_command == command


def test_command_without_dashes():
    """The command may start at the first word that is no option; what follows is its own, also options of ours."""
    options, command = arguments.parse(["--scope=web", "env", "--scope", "x", "--", "y"])
    assert options.scopes == ["web"]
    assert command == ["env", "--scope", "x", "--", "y"]


@pytest.mark.parametrize(
    "words",
    [
        ["--nope", "--", "x"],
        ["-s", "--", "x"],
        ["--scope"],
        ["--scope="],
        ["--pristine=yes", "--", "x"],
        ["--timeout", "0", "--", "x"],
        ["--timeout", "-1s", "--", "x"],
        ["--timeout", "1h", "--", "x"],
        ["--timeout", "nan", "--", "x"],
        ["--timeout", "6m", "--", "x"],
        ["--config", "f", "--", "x"],
        ["--direct", "--socket", "s", "--", "x"],
        ["--sco", "x", "--", "x"],
    ],
)
def test_usage_errors(words):
    """What is not understood, has no value, or contradicts itself is a usage error of one line."""
    with pytest.raises(Failure) as caught:
        arguments.parse(words)
    assert caught.value.exit_status == 64
    assert "\n" not in caught.value.line


def test_a_secret_in_the_wrong_place():
    """A word that is no option of ours is not repeated where it may be a value."""
    with pytest.raises(Failure) as caught:
        arguments.parse(["--token=canary", "--", "x"])
    assert "canary" not in caught.value.line
    with pytest.raises(Failure) as caught:
        arguments.parse(["-pcanary1", "--", "x"])
    assert "canary" not in caught.value.line


@pytest.mark.parametrize(("told", "seconds"), [("500ms", 0.5), ("10s", 10.0), ("10", 10.0), ("1m", 60.0), ("1.5s", 1.5)])
def test_times(told, seconds):
    """A time is a number with ms, s, m or nothing behind it."""
    assert arguments.seconds(told) == seconds


def test_defaults_of_the_environment():
    """PRISM_VAULT_PURPOSE and its like count where the option is not given."""
    options, _ = arguments.parse(["--purpose", "mine", "--", "x"])
    own = {b"PRISM_VAULT_PURPOSE": b"theirs", b"PRISM_VAULT_RUN_REF": b"run-1", b"PRISM_VAULT_JOB_ID": b"job-1"}
    arguments.fill(options, own)
    assert (options.purpose, options.run_ref, options.job_id, options.socket) == ("mine", "run-1", "job-1", "")
