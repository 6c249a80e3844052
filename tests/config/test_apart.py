"""A configuration that another process reads is the same, told in the same words, and leaves nothing of that process behind."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.config.apart import Configuration
from prism_vault_agent.config.load import load
from prism_vault_agent.errors import PrismVaultError, Unavailable
from prism_vault_agent.scope import ScopeName
from tests.config.test_load import WHOLE
from tests.config.test_templates import BOUND, entry, template
from tests.config.written import BASE, SCOPE, write

if TYPE_CHECKING:
    from pathlib import Path

WEB = ScopeName("web")


def environment(directory: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(directory), "XDG_RUNTIME_DIR": str(directory), "PATH": os.environ["PATH"], **more}


def test_it_is_the_same(tmp_path: Path):
    """Every section, what variables stand in for, and the text of a template are what a load in this process gives."""
    path = write(tmp_path, WHOLE)
    environ = environment(tmp_path, BAO_NAMESPACE="team", PRISM_VAULT_RELAY="/run/relay")
    assert Configuration(path, environ).load() == load(path, environ)
    path = write(tmp_path, BOUND + entry(template(tmp_path)))
    found = Configuration(path, environ).load()
    assert found == load(path, environ)
    assert found.scopes[WEB].files[0].text


def test_a_scope_that_did_not_change_is_the_same_object(tmp_path: Path):
    """What is as it was before is that very object; what differs, or is new, is another."""
    path = write(tmp_path, BASE + SCOPE)
    environ = environment(tmp_path)
    before = Configuration(path, environ).load().scopes
    write(tmp_path, BASE + SCOPE + SCOPE.replace("scopes.web", "scopes.db"))
    again = Configuration(path, environ).load(before).scopes
    assert again[WEB] is before[WEB] and "db" in again
    write(tmp_path, BASE + SCOPE.replace('"lan"', '"wan"'))
    assert Configuration(path, environ).load(again).scopes[WEB] is not again[WEB]


def test_it_is_told_whether_a_file_says_something_else(tmp_path: Path):
    """A file that changed, one more, a template that changed and what cannot be read are changes; the same again is none."""
    used = template(tmp_path)
    path = write(tmp_path, BOUND + entry(used))
    configuration = Configuration(path, environment(tmp_path))
    scopes = configuration.load().scopes
    write(tmp_path, BOUND + entry(used))
    assert configuration.unchanged(scopes)
    used.write_text("another = {{ KEY }}\n")
    assert not configuration.unchanged(scopes)
    template(tmp_path)
    assert configuration.unchanged(scopes)
    write(tmp_path, BOUND + entry(used), more=SCOPE.replace("scopes.web", "scopes.db"))
    assert not configuration.unchanged(scopes)
    os.unlink(path)
    assert not configuration.unchanged(scopes)
    with pytest.raises(PrismVaultError):
        configuration.load()
    assert not configuration.unchanged({})


def test_it_is_handed_only_what_a_load_looks_at(tmp_path: Path, monkeypatch):
    """Of the caller's variables the process that reads has only those that mean something to it: no token."""
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\n/usr/bin/env > "{tmp_path}/seen"\nexit 1\n')
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(Unavailable):
        Configuration(write(tmp_path, BASE), environment(tmp_path, VAULT_TOKEN="x", BAO_ADDR="https://bao")).load()
    seen = {line.partition("=")[0] for line in (tmp_path / "seen").read_text().splitlines()}
    assert {"HOME", "XDG_RUNTIME_DIR", "BAO_ADDR"} <= seen and "VAULT_TOKEN" not in seen


@pytest.mark.parametrize(
    "text",
    ["", BASE.replace("address", "adress"), BASE + "x = ", BASE + SCOPE + "oops = 1\n", BASE + SCOPE + SCOPE],
    ids=["empty", "misspelt", "no TOML", "unknown key", "twice"],
)
def test_a_fault_is_told_in_the_same_words(tmp_path: Path, text: str):
    """The error is of the same class and says the same line, key and way out."""
    path = write(tmp_path, text)
    with pytest.raises(PrismVaultError) as here:
        load(path, environment(tmp_path))
    with pytest.raises(PrismVaultError) as there:
        Configuration(path, environment(tmp_path)).load()
    assert (type(there.value), there.value.line()) == (type(here.value), here.value.line())


def test_a_file_that_may_not_be_used_is_told_in_the_same_words(tmp_path: Path):
    """A file that others may write, and one that is not there, are refused as ever."""
    path = write(tmp_path, BASE)
    os.chmod(path, 0o666)
    for wrong in (path, str(tmp_path / "none.toml")):
        with pytest.raises(PrismVaultError) as here:
            load(wrong, {})
        with pytest.raises(PrismVaultError) as there:
            Configuration(wrong, {}).load()
        assert (type(there.value), there.value.line()) == (type(here.value), here.value.line())


@pytest.mark.parametrize(
    ("program", "told"), [("/nonexistent", "no process can be started"), ("/bin/false", "ended with status 1")]
)
def test_a_process_that_cannot_do_it_is_temporary(tmp_path: Path, monkeypatch, program: str, told: str):
    """Where no process can be started, or it ends before it has told, that is one line and to be tried again (75)."""
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(Unavailable, match=told):
        Configuration(write(tmp_path, BASE), environment(tmp_path)).load()


def test_a_defect_there_says_nothing_here(tmp_path: Path, monkeypatch, capfd):
    """What goes wrong in that process, or that nobody waits for it any more, leaves no trace on our standard error."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho Traceback >&2\nexit 1\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(Unavailable):
        Configuration(write(tmp_path, BASE), environment(tmp_path)).load()
    assert capfd.readouterr() == ("", "")


def test_what_validates_stays_away(tmp_path: Path):
    """Who has it read loads neither pydantic nor a TOML parser."""
    path = write(tmp_path, BASE + SCOPE)
    code = (
        "import sys; from prism_vault_agent.config.apart import Configuration\n"
        "Configuration(sys.argv[1], {'HOME': sys.argv[2]}).load(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, path, str(tmp_path)], capture_output=True, text=True, check=True)
    assert not {"pydantic", "pydantic_core", "tomllib", "rich"} & set(done.stdout.split())
