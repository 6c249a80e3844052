"""Rendered files, end to end: the same script as exec; whole or absent, looked after, cleared at once (G5, G6, G7)."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.agent.asking import last_audit_id
from tests.support.as_user import NOBODY
from tests.support.fault_proxy import Fault, always, with_kind
from tests.support.files import SYSTEMD, Filed, filed
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack of this file's own; each test has a scope of its own in it."""
    with filed() as running:
        yield running


def test_a_render_is_on_the_log_before_its_file_is_there(made):
    """The file has value, owner and mode as the scope says, and the two rows of its render; nothing is left beside it."""
    name = made.scope("first", files=[{**SYSTEMD, "mode": "0440"}])
    said = made.render(name)
    told = made.told(name)
    found = (made.top / name / "web.env").stat()

    assert made.file(name) == made.whole(name, 1)
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o440, os.geteuid(), os.getegid())
    assert told is not None and (told["generation"], told["drift"], told["stale"]) == (1, [], False)
    assert f"{made.top}/{name}/web.env" in said and told["id"] in said
    reserved, success = made.rows(told["id"])
    assert (reserved["kind"], reserved["mode"], success["kind"], success["names"]) == ("reserved", "file", "success", ["KEY"])
    assert made.residue() == []


def test_every_format_of_a_scope_is_one_generation(made):
    """All files of a scope come from one reading; a file for each secret has the secret and nothing else."""
    forms = ["systemd", "sh", "docker", "compose", "dotenv", "portable", "json", "dir"]
    name = made.scope("forms", files=[{"path": f"as-{form}", "format": form} for form in forms])
    made.render(name)
    value = made.value(name, 1)
    assert (made.top / name / "as-dir/KEY").read_text() == value
    texts = [(made.top / name / f"as-{form}").read_text() for form in forms[:-1]]
    assert all(value in text for text in texts)


def test_what_did_not_change_keeps_its_inode_and_time(made):
    """A second render of the same values leaves the file as it is, has rows of its own, and ends the first."""
    name = made.scope("same")
    made.render(name)
    before, first = (made.top / name / "web.env").stat(), made.told(name)
    made.render(name)
    after, second = (made.top / name / "web.env").stat(), made.told(name)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert second["generation"] == first["generation"] + 1 and second["id"] != first["id"]
    assert made.ended(first["id"]) == "rotated"


def test_what_a_format_cannot_carry_leaves_the_old_files(made):
    """A value that the format cannot carry ends the render with a failure that names it; what was there stays."""
    name = made.scope("pem", files=[{"path": "web.env", "format": "docker"}])
    made.render(name)
    before = made.file(name)
    made.stack.openbao.kv_put(f"secret/{name}", {"key": f"{made.stack.canary}\nX=1"})
    line = made.refused(78, "render", name)
    assert "KEY holds a line break, which a file of format docker cannot carry" in line and f"scope {name}" in line
    audit_id = last_audit_id(line)
    wait_until(lambda: len(made.rows(audit_id)) == 2, 30)
    assert [(row["kind"], row.get("reason")) for row in made.rows(audit_id)] == [
        ("reserved", None),
        ("failure", "unrepresentable"),
    ]
    assert (made.file(name), made.residue()) == (before, [])


@pytest.mark.parametrize("kind", ["reserved", "success"])
def test_g7_without_the_log_nothing_becomes_visible(made, kind):
    """While central does not take one of the rows nothing is rendered, and what was there stays as it was."""
    name = made.scope(f"no-{kind}")
    made.render(name)
    with made.stack.to_central.failing(always(Fault("reset"), with_kind(kind))):
        made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 2)})
        made.refused(75, "render", name)
        wait_until(lambda: made.residue() == [], 60)  # the agent tries it by itself, too
        assert made.file(name) == made.whole(name, 1)


def test_who_may_not_have_a_scope_gets_no_file(made):
    """A caller whom the scope does not name is denied on the record; a scope without files, and one that is none, are told."""
    name = made.scope("theirs", callers=[{"kind": "operator", "uid": 12345}])
    assert "matches none of its callers" in made.refused(77, "render", name)
    assert made.file(name) is None
    assert "has no files" in made.refused(64, "render", "web")
    assert "there is no scope nowhere" in made.refused(77, "render", "nowhere")


def test_a_rotation_is_rendered_anew_within_a_poll(made):
    """A newer version at the provider becomes a generation by itself, with rows of its own; the old render is told as gone."""
    name = made.scope("rotated")
    made.render(name)
    first = made.told(name)
    made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 2)})
    wait_until(lambda: made.file(name) == made.whole(name, 2), 30)
    second = made.told(name)
    assert (second["generation"], second["stale"]) == (2, False)
    assert [row["kind"] for row in made.rows(second["id"])] == ["reserved", "success"]
    assert made.ended(first["id"]) == "rotated"


def test_a_rotation_that_cannot_be_rendered_is_told_and_tried_again(made):
    """While a rotation cannot be rendered the old files stay and status says why; afterwards it is."""
    name = made.scope("later")
    made.render(name)
    with made.stack.to_central.failing(always(Fault("reset"), with_kind("reserved"))):
        made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 2)})
        wait_until(lambda: made.told(name)["error"], 60)
        assert made.told(name)["stale"] and made.file(name) == made.whole(name, 1)
        assert "a newer one is due" in made.command("status").stdout
    wait_until(lambda: made.file(name) == made.whole(name, 2), 60)


def test_f50_many_scopes_are_rendered_anew_together_and_each_by_itself(made):
    """A secret of 40 scopes is rotated: each has a generation and rows of its own, and one that fails its old file."""
    env = {"KEY": "vault://secret/shared#key"}
    names = [f"many-{number}" for number in range(40)]
    made.stack.openbao.kv_put("secret/shared", {"key": "one"})
    for name in names:
        format_ = "docker" if name == "many-7" else "systemd"
        made.stack.agent.scope(name, env, files=[{"path": "web.env", "format": format_}])
    made.reload()
    wait_until(lambda: {*names} <= {scope["name"] for scope in made.stack.agent.status()["scopes"]})
    made.render(*names)
    first = {name: made.told(name)["id"] for name in names}
    made.stack.openbao.kv_put("secret/shared", {"key": "two\nlines"})
    others = [name for name in names if name != "many-7"]
    wait_until(lambda: {made.file(name) for name in others} == {'KEY="two\nlines"\n'}, 60)
    wait_until(lambda: "line break" in made.told("many-7")["error"], 60)

    assert (made.file("many-7"), made.told("many-7")["generation"]) == ("KEY=one\n", 1)
    events = [event["fields"] for event in made.stack.settle()]
    for name in others:
        second = made.told(name)
        assert (second["generation"], second["stale"]) == (2, False)
        mine = [row["kind"] for row in events if row.get("reservation") == second["id"].removeprefix("pva_")]
        assert mine == ["reserved", "success"]
        assert made.ended(first[name]) == "rotated"
    wait_until(lambda: made.residue() == [], 60)
    made.command("clear", *names)


@pytest.mark.parametrize(
    ("how", "reason"), [("data", "secret_deleted"), ("metadata", "secret_no_such_path")], ids=["deleted", "erased"]
)
def test_a_withdrawn_secret_is_cleared_within_a_poll(made, how, reason):
    """A secret that is deleted or erased at the provider takes its files with it, on the record."""
    name = made.scope(f"gone-{how}")
    made.render(name)
    audit_id = made.told(name)["id"]
    with (made.top / name / "web.env").open() as reader:
        made.stack.openbao.must("DELETE", f"secret/{how}/{name}")
        wait_until(lambda: made.file(name) is None, 30)
        wait_until(lambda: os.fstat(reader.fileno()).st_size == 0)  # it is hidden a moment before it is emptied
        assert reader.read() == "", "who has it open reads nothing more"
    assert made.ended(audit_id) == reason
    assert (made.told(name), made.residue()) == (None, [])


def test_clear_waits_for_nobody_and_its_row_is_not_lost(made):
    """With neither central nor the provider answering a clear is done at once; its row is on the log when central is back."""
    name = made.scope("cleared")
    made.render(name)
    audit_id = made.told(name)["id"]
    hang = always(Fault("reset"))
    with made.stack.to_central.failing(hang), made.stack.to_openbao.failing(hang):
        assert f"{name}: cleared web.env" in made.command("clear", name).stdout
        assert made.file(name) is None
    assert made.ended(audit_id) == "cleared"
    assert made.command("clear", name).stdout == "nothing of it was rendered\n"
    assert "takes scopes, or --all" in made.refused(64, "clear")


def test_f60_a_scope_that_is_removed_takes_its_files_along(made):
    """A reload without the scope clears its files; one that defines it otherwise renders it anew."""
    name, other = made.scope("removed"), made.scope("changed")
    made.render(name, other)
    audit_id = made.told(name)["id"]
    (made.stack.agent.directory / "scopes.d" / f"{name}.toml").unlink()
    made.stack.agent.scope(
        other, {"KEY": f"vault://secret/{other}#key"}, files=[SYSTEMD, {"path": "more.json", "format": "json"}]
    )
    made.reload()
    wait_until(lambda: made.file(name) is None, 30)
    assert made.ended(audit_id) == "scope_removed"
    wait_until((made.top / other / "more.json").exists, 30)
    assert made.told(other)["files"] == ["web.env", "more.json"]


def test_f45_drift_is_told_and_recorded(made):
    """A file that somebody edited is told by status and by a row, and left as it is; the next render mends it."""
    name = made.scope("drifted")
    made.render(name)
    file = made.top / name / "web.env"
    file.chmod(0o600)
    file.write_text("theirs")
    assert made.told(name)["drift"] == ["web.env was edited"]
    assert "web.env was edited" in made.command("status").stdout
    noted = wait_until(lambda: [row for row in made.stack.central.events() if row["fields"].get("reason") == "files_drift"], 30)
    assert noted[0]["fields"]["message"] == f"{name}: web.env was edited"
    made.render(name)
    assert (made.file(name), made.told(name)["drift"]) == (made.whole(name, 1), [])


def test_f49_a_restart_adopts_what_it_knows_and_clears_the_rest(made):
    """After SIGKILL the next agent looks after the same files, and clears, on the record, what is staged or no longer allowed."""
    name, gone = made.scope("kept"), made.scope("ungranted")
    made.render(name, gone)
    before, audit_id = (made.top / name / "web.env").stat(), made.told(gone)["id"]
    made.stack.agent.kill()
    (made.top / ".staged/rest").mkdir()
    (made.top / "stray").write_text("x")
    (made.stack.agent.directory / "scopes.d" / f"{gone}.toml").unlink()
    made.stack.agent.start()
    after = (made.top / name / "web.env").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert made.told(name)["generation"] == 1
    assert (made.file(gone), made.residue(), (made.top / "stray").exists()) == (None, [], False)
    assert made.ended(audit_id) == "scope_removed"
    made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 2)})
    wait_until(lambda: made.file(name) == made.whole(name, 2), 30)
    assert made.told(name)["generation"] == 2


def test_a_revocation_clears_files_and_a_rotation_looks_at_them(made):
    """What central has revoked is cleared and counted in the evidence; what it has rotated is looked at."""
    from tests.support.signalled import complete, order  # noqa: PLC0415 - its module starts with other fixtures

    name = made.scope("revoked")
    made.render(name)
    audit_id = made.told(name)["id"]
    wait_until(lambda: made.stack.agent.status()["signals"]["connected"], 30)
    number = order(made.stack.central, "revocations", scope=name, reason="leaked")
    wait_until(lambda: made.file(name) is None, 30)
    assert made.ended(audit_id) == "revoked"
    (host,) = complete(made.stack.central, number)["hosts"]
    assert (host["state"], host["ended"], host["cleared"], host["left"]) == ("cleared", 1, 1, 0)


def test_f44_a_second_agent_on_the_same_directory_is_refused(made):
    """An agent whose directory another agent has does not start, and says which."""
    made.scope("mine")
    made.render("mine")
    told = f"another agent renders below {made.top}"
    with pytest.raises(AssertionError, match=told), made.stack.second(agent=f'files = "{made.top}"\nfiles_risks = ["swap"]'):
        pass


@pytest.mark.root
def test_another_user_gets_the_file_and_nobody_else_may_clear_it(made):
    """A file for another user is that user's, whom our own directory lets through; another user may not clear it."""
    name = made.scope("owned", files=[{**SYSTEMD, "owner": str(NOBODY), "mode": "0400"}])
    made.render(name)
    found = (made.top / name / "web.env").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (NOBODY, 0o400)


def test_plan_tells_which_versions_are_rendered_and_newest(made):
    """``plan --diff`` tells of each path what is rendered and what is newest, from metadata: no value is read, no row made."""
    name = made.scope("planned")
    before = json.loads(made.command("plan", "--diff", "--json", name).stdout)["differences"]
    assert before == [{"scope": name, "path": f"secret/{name}", "rendered": None, "newest": 1}]
    assert made.stack.to_openbao.count(lambda seen: seen.path.endswith(f"/data/{name}") and seen.method == "GET") == 0
    assert [row for row in made.stack.central.events() if name in row["fields"]["scopes"]] == []
    made.render(name)
    with made.stack.to_central.failing(always(Fault("reset"), with_kind("reserved"))):
        made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 2)})
        after = made.command("plan", "--diff", name).stdout
    assert after.splitlines()[-1].split() == [name, f"secret/{name}", "1", "2"]
    assert made.command("plan", "--diff", "web").stdout.endswith("files: none\n")


def test_clear_all_clears_everything(made):
    """``clear --all`` leaves nothing of what the caller may clear."""
    names = [made.scope("one"), made.scope("two")]
    made.render(*names)
    assert made.command("clear", "--all").returncode == 0
    assert [each for each in os.listdir(made.top) if not each.startswith(".")] == []
    assert made.stack.agent.status()["files"] == []
