"""``prism-vault import env``: what it makes is a valid scope without values, and what is stored is what the file said."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.cli.import_env import translate, written
from prism_vault_agent.config.load import load
from prism_vault_agent.policy.names import dangerous
from prism_vault_agent.scope import ScopeName
from tests.config.written import BASE, ENVIRON, private, write
from tests.support.agent import LAUNCHER

if TYPE_CHECKING:
    from tests.agent.conftest import MakeAgent
    from tests.cli.conftest import Run
    from tests.support.openbao import OpenBao

CANARY = "canary-9f0c55"
ENV = f"""\
# database
export DATABASE_URL="postgres://web:{CANARY}@db/web?a=1#x"
GREETING='{CANARY} it''s'
""".replace("it''s", "it is")
OPTIONS = ("--scope", "web", "--project", "prism", "--environment", "lan", "--path", "secret/prism/lan/web")


def env_file(directory: Path, text: str | bytes) -> str:
    path = directory / ".env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_a_scope_is_made_without_values(run: Run, tmp_path: Path):
    """Each variable is bound to a key of its own name; the scope is valid as it stands, for who made it, and has no value."""
    done = run("import", "env", env_file(tmp_path, ENV), *OPTIONS)
    assert (done.returncode, done.stderr) == (0, "")
    assert CANARY not in done.stdout
    (scope,) = load(write(tmp_path, BASE, web=done.stdout), ENVIRON).scopes.values()
    assert [(binding.name, str(binding.reference)) for binding in scope.bindings] == [
        ("DATABASE_URL", "vault://secret/prism/lan/web#DATABASE_URL"),
        ("GREETING", "vault://secret/prism/lan/web#GREETING"),
    ]
    assert (scope.project, scope.environment, [rule.uid for rule in scope.callers]) == ("prism", "lan", [os.getuid()])


def test_values_are_json_for_the_provider(run: Run, tmp_path: Path):
    """With ``--values`` the values are printed as one JSON object of strings, and nothing of the scope."""
    done = run("import", "env", env_file(tmp_path, ENV), "--values")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "DATABASE_URL": f"postgres://web:{CANARY}@db/web?a=1#x",
        "GREETING": f"{CANARY} it is",
    }


def test_what_was_imported_is_what_a_command_gets(run: Run, make_agent: MakeAgent, openbao: OpenBao, tmp_path: Path):
    """Scope and values, stored by OpenBao's own command, give a command the variables that the file had, to the byte."""
    values = {"PLAIN": f"{CANARY} = $HOME", "QUOTED": "a\"b'c\\d\n\tend", "UNICODE": "\u00e9\u2028\U0001f511", "EMPTY": ""}
    text = f"PLAIN='{values['PLAIN']}'\nQUOTED=\"a\\\"b'c\\\\d\\n\\tend\"\nUNICODE={values['UNICODE']}\nEMPTY=\n"
    file = env_file(tmp_path, text)
    options = ("--scope", "imported", "--project", "prism", "--environment", "test", "--path", "secret/imported")
    put = subprocess.run(
        [Path(sys.executable).with_name("bao"), "kv", "put", "secret/imported", "-"],
        input=run("import", "env", file, "--values").stdout,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "BAO_ADDR": openbao.address, "BAO_TOKEN": openbao.root_token},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert put.returncode == 0, put.stderr
    agent = make_agent()
    private(agent.directory / "scopes.d" / "imported.toml", run("import", "env", file, *options).stdout)
    agent.start()
    show = "import json, os, sys; print(json.dumps({name: os.environ.get(name) for name in sys.argv[1:]}))"
    done = agent.exec("--scope", "imported", "--", sys.executable, "-c", show, *values)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == values


def test_references_stay_what_they_are(run: Run, tmp_path: Path):
    """A variable that refers to a secret already is bound to that secret, and is no value to be stored."""
    text = 'A=vault://secret/other#key?version=3\nB="vault://secret/b#b"\nC=c\n'
    done = run("import", "env", env_file(tmp_path, text), *OPTIONS)
    scope = tomllib.loads(done.stdout)["scopes"]["web"]
    assert scope["env"] == {
        "A": "vault://secret/other#key?version=3",
        "B": "vault://secret/b#b",
        "C": "vault://secret/prism/lan/web#C",
    }
    assert json.loads(run("import", "env", env_file(tmp_path, text), "--values").stdout) == {"C": "c"}


def test_what_cannot_be_taken_over_is_told(run: Run, tmp_path: Path):
    """What is left out is named with its reason in the scope, everything else is in it, and the command ends with 78."""
    text = b"GOOD=1\nbad_bytes=\xff\xfe\nTwin=1\nTWIN=canary-9f0c55\nREF=vault://secret/canary-9f0c55\n" + b"N" * 256 + b"=1\n"
    done = run("import", "env", env_file(tmp_path, text), *OPTIONS)
    left = [line for line in done.stdout.splitlines() if line.startswith("# left out: ")]
    assert left == [
        "# left out: bad_bytes is not UTF-8, which the provider needs: store it in base64",
        "# left out: TWIN differs from Twin only by case, which no scope has",
        "# left out: REF begins like a reference and is none: write vault://<mount>/<path>#<key>",
        f"# left out: {'N' * 61}... is longer than 255 characters",
    ]
    assert sorted(tomllib.loads(done.stdout)["scopes"]["web"]["env"]) == ["GOOD", "Twin"]
    told = f"prism-vault: cannot be taken over: bad_bytes, TWIN, REF, {'N' * 61}...; the scope says why\n"
    assert (done.returncode, done.stderr, CANARY in done.stdout) == (78, told, False)
    values = run("import", "env", env_file(tmp_path, text), "--values")
    assert (values.returncode, json.loads(values.stdout)) == (78, {"GOOD": "1", "Twin": "1"})


def test_what_others_would_expand_or_load_is_noted(run: Run, tmp_path: Path):
    """A value that other readers would expand, and a name that changes how programs run, are taken over with a comment."""
    done = run("import", "env", env_file(tmp_path, "URL=http://$HOST/\nPATH='/x'\nPRICE='5$'\nHOW=`id`\n"), *OPTIONS)
    assert done.returncode == 0
    assert [line.split()[1] for line in done.stdout.splitlines() if "other readers" in line] == ["URL", "HOW"]
    assert tomllib.loads(done.stdout)["scopes"]["web"]["allow_names"] == ["PATH"]
    (scope,) = load(write(tmp_path, BASE, web=done.stdout), ENVIRON).scopes.values()
    assert scope.allow_names == {"PATH"} and len(scope.bindings) == 4


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ((), 64, "--scope is missing"),
        (OPTIONS[:6], 64, "--path is missing"),
        ((*OPTIONS, "--values"), 64, "--values goes without --scope"),
        ((*OPTIONS, "--scope", "a b"), 64, "--scope is not a name"),
        ((*OPTIONS, "--environment", 'x"\ny'), 64, "--environment is not a name"),
        *(
            ((*OPTIONS, "--path", path), 64, "--path is not the path of a secret")
            for path in ("secret", "secret/a#b", "/a", "a/ b")
        ),
    ],
)
def test_a_wrong_command_line_is_refused(run: Run, tmp_path: Path, words: tuple[str, ...], status: int, told: str):
    """An option that is missing, or that no scope could have, is told in one line, and nothing is printed."""
    done = run("import", "env", env_file(tmp_path, ENV), *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1)
    assert told in done.stderr


@pytest.mark.parametrize(
    ("text", "told"), [("A=1\ncanary-9f0c55\n", ":2: "), ("# nothing\n", "has no variables"), (None, "cannot read")]
)
def test_a_file_that_is_none_is_refused(run: Run, tmp_path: Path, text: str | None, told: str):
    """A file that is no env file, is empty or is not there is told with its line, without its text."""
    file = env_file(tmp_path, text) if text is not None else str(tmp_path / "none")
    done = run("import", "env", file, *OPTIONS)
    assert (done.returncode, done.stdout) == (78, "")
    assert told in done.stderr and CANARY not in done.stderr


def test_values_are_not_shown_on_a_terminal(tmp_path: Path):
    """On a terminal ``--values`` prints nothing, says where they go, and ends with 64."""
    ours, theirs = pty.openpty()
    words = [LAUNCHER, "import", "env", env_file(tmp_path, ENV), "--values"]
    done = subprocess.run(words, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(theirs)
    with pytest.raises(OSError, match="Input/output error"):  # nothing was written before the other end was closed
        os.read(ours, 1000)
    os.close(ours)
    assert (done.returncode, "values are not shown on a terminal" in done.stderr) == (64, True)


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True).map(str.encode)


@given(st.dictionaries(NAMES, st.binary(max_size=30), min_size=1, max_size=6))
def test_every_variable_is_stored_referred_to_or_left_out(variables: dict[bytes, bytes]):
    """Each variable of any env file is in exactly one of the three, and the scope is TOML that binds those of the first two."""
    taken = translate(variables)
    assert sorted([*taken.values, *taken.references, *taken.left]) == sorted(name.decode() for name in variables)
    assert all(variables[name.encode()].decode() == value for name, value in taken.values.items())
    scope = tomllib.loads(written(taken, scope="a.b", project="p", environment="e", path='s/\u00e9"\\x'))["scopes"]["a.b"]
    assert scope["env"] == {name: f'vault://s/\u00e9"\\x#{name}' for name in taken.values} | taken.references
    assert scope.get("allow_names", []) == [name for name in scope["env"] if dangerous(name)]


def test_a_scope_may_have_any_name(run: Run, tmp_path: Path):
    """A name with a dot is one key of TOML."""
    done = run("import", "env", env_file(tmp_path, ENV), *OPTIONS, "--scope", "web.v2")
    assert list(load(write(tmp_path, BASE, web=done.stdout), ENVIRON).scopes) == [ScopeName("web.v2")]
