"""Files from templates, end to end: rendered with the scope's values, anew when value or template change, and never half."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.agent.asking import last_audit_id
from tests.support.files import SYSTEMD, Filed, filed
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = "[database]\nkey = {{ KEY|json }}\nplain = {{ KEY }}\n"


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack of this file's own; each test has a scope and a template of its own in it."""
    with filed() as running:
        yield running


def template(made: Filed, name: str, text: str) -> Path:
    """Write a template; the agent notices a changed one by itself."""
    path = made.stack.agent.directory / "templates" / f"{name}.j2"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.rename(path)
    return path


def scope(made: Filed, name: str, text: str = TEXT, **more: object) -> str:
    """Make a scope with a secret of its own and a file from a template beside one without."""
    file = {"path": "app.conf", "format": "template", "template": str(template(made, name, text)), **more}
    return made.scope(name, files=[file, SYSTEMD])


def file(made: Filed, name: str) -> str | None:
    path = made.top / name / "app.conf"
    return path.read_text() if path.exists() else None


def whole(made: Filed, name: str, number: int) -> str:
    value = made.value(name, number)
    return f'[database]\nkey = "{value}"\nplain = {value}\n'


def test_a_template_is_rendered_and_follows_a_rotation(made):
    """Its file has owner, mode and the values; a newer version of the secret is in all files of the scope within a poll."""
    name = scope(made, "templated", mode="0440")
    made.render(name)
    found = (made.top / name / "app.conf").stat()
    assert (file(made, name), made.file(name)) == (whole(made, name, 1), made.whole(name, 1))
    assert (found.st_mode & 0o7777, found.st_uid) == (0o440, os.geteuid())
    first = made.told(name)
    assert [row["kind"] for row in made.rows(first["id"])] == ["reserved", "success"]
    made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 2)})
    wait_until(lambda: file(made, name) == whole(made, name, 2), 30)
    assert made.file(name) == made.whole(name, 2)
    assert made.ended(first["id"]) == "rotated"
    assert made.residue() == []


def test_a_changed_template_is_rendered_anew(made):
    """A template that is replaced is noticed without a signal, and what was rendered of it is stale; the other file stays."""
    name = scope(made, "edited")
    made.render(name)
    before = (made.top / name / "web.env").stat()
    template(made, name, "now: {{ KEY }}\n")
    wait_until(lambda: file(made, name) == f"now: {made.value(name, 1)}\n", 30)
    after = (made.top / name / "web.env").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert made.told(name)["generation"] == 2


def test_a_template_that_changed_while_no_agent_ran_is_rendered_anew(made):
    """After a crash the next agent adopts what is the same and renders anew what has another template by then."""
    same, other = scope(made, "unchanged"), scope(made, "changed-meanwhile")
    made.render(same, other)
    made.stack.agent.kill()
    template(made, other, "later: {{ KEY }}\n")
    made.stack.agent.start()
    wait_until(lambda: file(made, other) == f"later: {made.value(other, 1)}\n", 30)
    assert (file(made, same), made.told(same)["generation"]) == (whole(made, same, 1), 1)


@pytest.mark.parametrize(
    ("how", "text", "told"),
    [
        ("misspelt", "ok\n{{ KYE }}\n", ":2: uses KYE, which the scope does not have"),
        ("computed", "{{ {}[KEY] }}", ":1: uses what is not defined"),
        ("escape", "{{ KEY.__class__ }}", ":1: asks for an attribute, and values have none"),
        ("number", "{{ KEY|int }}", ":1: fails with ValueError"),
        ("endless", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", ":1: takes too much time"),
        ("greedy", "{{ KEY|indent(1000000000) }}", ":1: takes too much memory"),
    ],
)
def test_a_template_that_fails_leaves_everything_as_it_was(made, how, text, told):
    """The render ends with status 78 and one line without a value, a failure on the log, and the old files; the agent goes on."""
    name = scope(made, f"bad-{how}")
    made.render(name)
    before = (file(made, name), made.file(name))
    path = template(made, name, text)
    wait_until(lambda: told in made.told(name)["error"], 60)
    line = made.refused(78, "render", name)
    assert f"scope {name}: {path}{told}; correct the template" in line
    assert (file(made, name), made.file(name), made.residue()) == (*before, [])
    audit_id = last_audit_id(line)
    wait_until(lambda: len(made.rows(audit_id)) == 2, 30)
    assert [(row["kind"], row.get("reason")) for row in made.rows(audit_id)] == [("reserved", None), ("failure", "bad_template")]
    for told_elsewhere in (made.stack.agent.log, str(made.stack.agent.status()), str(made.stack.central.events())):
        assert made.stack.canary not in told_elsewhere
    template(made, name, "mended: {{ KEY }}")
    wait_until(lambda: file(made, name) == f"mended: {made.value(name, 1)}", 60)


def test_a_template_that_is_gone_keeps_the_old_configuration(made):
    """Without its template the configuration is refused and told; what is rendered stays, and rotations use the old text."""
    name = scope(made, "gone")
    made.render(name)
    path = template(made, name, TEXT)
    path.unlink()
    wait_until(lambda: "there is no such template" in str(made.stack.agent.status()), 30)
    made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 2)})
    wait_until(lambda: file(made, name) == whole(made, name, 2), 30)
    template(made, name, TEXT)
    wait_until(lambda: "there is no such template" not in str(made.stack.agent.status()), 30)


def test_a_template_that_is_none_is_told_at_the_reload(made):
    """One that is not in the language is told at once, with its line, by status and ``config check``; what is rendered stays."""
    name = scope(made, "broken")
    made.render(name)
    path = template(made, name, "fine\n{{ KEY|shout }}\n")
    told = f"{path}:2: uses the filter shout, which there is not"
    wait_until(lambda: told in made.stack.agent.status()["config"]["error"], 30)
    checked = made.command("config", "check", "--config", str(made.stack.agent.config))
    assert (checked.returncode, told in checked.stderr) == (78, True), checked
    assert file(made, name) == whole(made, name, 1)
    assert made.told(name)["error"] == ""
    template(made, name, TEXT)
    wait_until(lambda: not made.stack.agent.status()["config"]["error"], 30)
