"""The command line as a whole: one line for each failure, a documented exit status, never a traceback, never a value."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prism_vault_agent.cli import main as cli
from prism_vault_agent.cli.main import COMMANDS, main
from prism_vault_agent.errors import Denied, every_class
from tests.support.agent import LAUNCHER
from tests.support.soak import count

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Run

LINE = re.compile(r"prism-vault: [^\n\x00-\x1f\x7f]+\n")
STATUSES = {0, *(kind.exit_status for kind in every_class().values())}


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make the command ``status`` raise ``error``."""
    module = importlib.import_module(COMMANDS["status"][0])

    def run(_args: object) -> int:
        raise error

    monkeypatch.setattr(module, "run", run)


def test_an_error_of_ours_is_one_line_and_its_status(monkeypatch, capsys):
    """A typed error prints what failed, for which scope, what to do and the audit id, and gives its exit status."""
    failing(monkeypatch, Denied("no", mend="ask", scope="web", audit_id="pva_1"))
    assert main(["status"]) == 77
    assert capsys.readouterr().err == "prism-vault: scope web: no; ask (pva_1)\n"


def test_an_error_cannot_forge_a_second_line(monkeypatch, capsys):
    """Control characters that reach a message are escaped."""
    failing(monkeypatch, Denied("a\nprism-vault: all is well\x1b[0m\x00\udc80é"))
    assert main(["status"]) == 77
    assert capsys.readouterr().err == "prism-vault: a\\nprism-vault: all is well\\x1b[0m\\x00\\udc80é\n"


def test_a_defect_is_told_by_its_place_and_never_by_its_text(monkeypatch, capsys):
    """What no one expected is one line with a module, a line number and a type; its message may hold anything."""
    failing(monkeypatch, ValueError("hunter2"))
    assert main(["status"]) == 70
    told = capsys.readouterr()
    assert re.fullmatch(
        r"prism-vault: internal error in prism_vault_agent\.cli\.main:\d+ \(ValueError\); please report it\n", told.err
    )
    assert told.out == ""


def test_ctrl_c_is_status_130_and_silent(monkeypatch, capsys):
    """An interrupted command ends as a shell expects, without a word."""
    failing(monkeypatch, KeyboardInterrupt())
    assert main(["status"]) == 130
    assert capsys.readouterr().err == ""


def test_a_missing_extra_is_told_by_name(monkeypatch, capsys):
    """A command whose packages are not installed names the package and the extra that brings it."""
    failing(monkeypatch, ModuleNotFoundError(name="uvicorn"))
    assert main(["status"]) == 78
    assert capsys.readouterr().err == "prism-vault: status needs the package uvicorn; install prism-vault-agent[central]\n"


def test_a_missing_module_of_ours_is_a_defect(monkeypatch, capsys):
    """An installation that lacks a part of the product itself is not a missing extra."""
    failing(monkeypatch, ModuleNotFoundError(name="prism_vault_agent.nothing"))
    assert main(["status"]) == 70
    assert "internal error" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error():
    """Output into a pipe that nobody reads any more ends the command quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([LAUNCHER, "config", "schema"], stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_ctrl_c_ends_a_watch_quietly(tmp_path: Path):
    """``status --watch`` tells that the agent is away, goes on, and ends at Ctrl-C with 130 and no traceback."""
    words = [LAUNCHER, "status", "--watch", "--socket", str(tmp_path / "none.sock")]
    watching = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert watching.stdout is not None
    assert b"no agent answers on" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, error = watching.communicate(timeout=20)
    assert (watching.returncode, error) == (130, b"")


def test_a_closed_standard_error_changes_nothing(tmp_path: Path):
    """Without anywhere to tell an error the exit status still says it."""
    script = f'exec "{LAUNCHER}" status --socket {tmp_path}/none.sock 2>&-'
    done = subprocess.run(["/bin/sh", "-c", script], stdout=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (69, b"")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "the following arguments are required: COMMAND; see prism-vault --help"),
        (["statsu"], "no such command; did you mean status?"),
        (["hunter2"], "no such command; choose from exec, agent"),
        (["status", "--jso"], "unknown option --jso; see prism-vault"),
        (["status", "--js", "--secret=hunter2"], "unknown option --js; see prism-vault"),
        (["status", "hunter2"], "there is a word too many; see prism-vault"),
        (["status", "--json=hunter2"], "argument --json: ignored explicit argument; see prism-vault status --help"),
        (["rotate"], "the following arguments are required: SCOPE|REF; see prism-vault rotate --help"),
        (["config", "chekc"], "no such action; did you mean check?"),
        (["--", "status"], "no such command"),
        (["-x", "status"], "unknown option -x"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_told_without_its_words(capsys, words: list[str], told: str):
    """Usage errors are one line with status 64; what was typed is not repeated, since it may be a secret in the wrong place."""
    assert main(words) == 64
    error = capsys.readouterr().err
    assert error.startswith(f"prism-vault: {told}")
    assert LINE.fullmatch(error)
    assert "hunter2" not in error


def options_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Return every option of a parser and of the parsers below it."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for below in action.choices.values():
                yield from options_of(below)
        else:
            yield action


# The key that verifies what central signs is there to be told to everybody.
PUBLIC = {"--log-key"}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_takes_a_secret(command: str):
    """Whatever is secret is named by a file: an argument can be read by every user of the host (T3)."""
    parser, _ = cli.parser(command)
    (commands,) = [action for action in parser._actions if action.dest == "command"]
    assert isinstance(commands.choices, dict)
    for action in options_of(commands.choices[command]):
        for option in action.option_strings or [action.dest]:
            if option not in PUBLIC and re.search(r"secret|token|pass|credential|\bkey", option):
                assert option.endswith("-file"), f"{command} {option}"
                assert action.metavar in ("FILE", "PATH")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys, command: str):
    """--help of every command exits with 0 and explains every option."""
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: prism-vault {command}")
    parser, module = cli.parser(command)
    assert module is not None
    (commands,) = [action for action in parser._actions if action.dest == "command"]
    assert isinstance(commands.choices, dict)
    for action in options_of(commands.choices[command]):
        assert action.help or action.metavar, f"{command} {action.dest}"


def test_the_overview_lists_every_command(capsys):
    """--help lists all commands with one line each, and the exit statuses."""
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    for command, (_, line) in COMMANDS.items():
        assert re.search(rf"^    {command}( |$)", told, re.MULTILINE)
        assert line.split()[0] in told
    for status in STATUSES - {0}:
        assert str(status) in told


def test_only_the_chosen_command_is_imported(run: Run, tmp_path: Path):
    """The overview imports no command's module, so nobody pays for what others need."""
    code = "import sys; from prism_vault_agent.cli.main import main; main(['--version']); print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert not imported & {path for path, _ in COMMANDS.values()}
    assert not imported & {"pydantic", "structlog", "asyncio", "ssl"}
    assert run("--version").stdout.startswith("prism-vault 0.")


WORDS = st.sampled_from(
    [
        *(command for command in COMMANDS),
        *("--json", "--config", "--socket", "--run-ref", "--purpose", "--job-id", "--help", "--version", "--", "-", "-h"),
        *("check", "show", "schema", "serve", "tail", "verify", "web", "/nowhere", "/dev/null", "/etc"),
    ]
)
ARGUMENTS = st.lists(WORDS | st.text(max_size=12) | st.text(max_size=6).map(lambda text: f"--{text}"), max_size=6)


@settings(max_examples=count(300, 10_000), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=ARGUMENTS)
def test_no_command_line_ends_in_a_traceback(monkeypatch, capsys, tmp_path: Path, words: list[str]):
    """Any words at all give a documented exit status, and on a failure exactly one line (F62)."""
    monkeypatch.setenv("PRISM_VAULT_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.setenv("PRISM_VAULT_CONFIG", str(tmp_path / "none.toml"))
    for command in ("agent", "central", "audit", "dev", "exec", "doctor"):  # these parse, and are tested where they run
        monkeypatch.setattr(importlib.import_module(COMMANDS[command][0]), "run", lambda _args: 0)
    status = main(words)
    told = capsys.readouterr()
    assert status in STATUSES - {70}, told.err
    assert bool(told.err) == (status != 0)
    assert not told.err or LINE.fullmatch(told.err), told.err
    assert "Traceback" not in told.out + told.err


def plain(value: Any) -> bool:
    """Tell whether a value is one line of text."""
    return isinstance(value, str) and "\n" not in value


def test_the_table_of_commands_is_complete():
    """Every command has a module that adds and runs it, and one line of help."""
    for command, (path, line) in COMMANDS.items():
        module = importlib.import_module(path)
        assert callable(module.add), command
        assert callable(module.run), command
        assert plain(line)
