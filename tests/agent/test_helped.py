"""An agent of the user nobody with a helper: files of other users whole or absent, and processes of other users ended."""

from __future__ import annotations

import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.supervise.supervised import PYTHON, Marked
from tests.support.as_user import NOBODY, in_child
from tests.support.helped import OWNED, ROOTS, VALUE, Helped, helped_agent
from tests.support.helper import DAEMON, WWW_DATA
from tests.support.own_agent import logged
from tests.support.soak import count
from tests.support.waiting import wait_until
from tests.trees.test_sweep import DEEP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.namespaces]


@pytest.fixture(scope="module")
def helped(openbao, central) -> Iterator[Helped]:
    """Configured by root, as under its units."""
    with helped_agent(openbao, central) as made:
        yield made


def owner(path: Path) -> tuple[int, int]:
    """Return a file's owner and mode."""
    return path.stat().st_uid, path.stat().st_mode & 0o7777


def test_every_file_has_its_owner_before_it_is_visible(helped):
    """Files of two other users are one generation; each owner reads its own and not the other's, nor does the agent's user."""
    helped.render("several")
    top = helped.files / "several"
    assert (owner(top / "web.env"), owner(top / "more/URL")) == ((WWW_DATA, 0o400), (DAEMON, 0o600))
    for uid, mine, other in ((WWW_DATA, "web.env", "more/URL"), (DAEMON, "more/URL", "web.env")):
        assert VALUE in in_child((top / mine).read_text, uid)
        with pytest.raises(PermissionError):
            in_child((top / other).read_text, uid)
    with pytest.raises(PermissionError):
        in_child((top / "web.env").read_text, NOBODY)
    assert helped.residue() == []


def test_what_did_not_change_keeps_its_time(helped):
    """A second render of the same values is no change to who looks at the time, though the file is another one."""
    helped.render("several")
    before = [(helped.files / "several" / name).stat() for name in ("web.env", "more/URL")]
    helped.render("several")
    after = [(helped.files / "several" / name).stat() for name in ("web.env", "more/URL")]
    assert [each.st_mtime_ns for each in before] == [each.st_mtime_ns for each in after]
    assert [each.st_uid for each in after] == [WWW_DATA, DAEMON]
    assert not [told for told in helped.agent.status()["files"] if told["drift"]]


def test_a_clear_empties_what_is_another_users(helped):
    """Who still has a file of its own open reads nothing more after a clear."""
    helped.render("several")
    with (helped.files / "several/web.env").open("rb") as first, (helped.files / "several/more/URL").open("rb") as second:
        assert helped.command("clear", "several").returncode == 0
        assert (first.read(), second.read()) == (b"", b"")
    assert not (helped.files / "several").exists() and helped.residue() == []


def test_what_the_helper_refuses_is_rendered_by_half_never(helped):
    """Where one file of several may not be given to its owner, by root's configuration as it is now, none becomes visible."""
    scope = helped.agent.directory / "scopes.d/several.toml"
    text = scope.read_text()
    helped.render("several")
    before = (helped.files / "several/web.env").stat().st_ino
    # The agent, stopped, does not see what the helper reads.
    helped.helper.process.kill()
    helped.helper.process.wait()
    other = helped.agent.directory / "other"
    shutil.copytree(helped.agent.directory / "scopes.d", other / "scopes.d")
    shutil.copy(helped.agent.config, other / "agent.toml")
    (other / "scopes.d/several.toml").write_text(text.replace('"0600"', '"0400"'))
    config, helped.helper.config = helped.helper.config, other / "agent.toml"
    helped.helper.start()
    try:
        line = helped.refused("several")
        assert f"no scope has a file of user {DAEMON}" in line and "scope several" in line
        assert (helped.files / "several/web.env").stat().st_ino == before
        assert helped.residue() == []
    finally:
        helped.helper.process.kill()
        helped.helper.process.wait()
        helped.helper.config = config
        helped.helper.start()
        shutil.rmtree(other)


def test_without_the_helper_nothing_is_rendered_and_a_clear_says_so(helped):
    """While no helper is there a render of another user's file fails in one line; a clear hides it and says what is left."""
    helped.render("owned")
    helped.helper.process.kill()
    helped.helper.process.wait()
    try:
        assert "no helper serves us at" in helped.refused("owned")
        assert helped.residue() == []
        done = helped.command("clear", "owned")
        assert done.returncode == 75 and "no helper serves us at" in done.stderr
        assert not (helped.files / "owned").exists()
    finally:
        helped.helper.start()
    assert helped.command("clear", "owned").returncode == 0
    helped.render("owned")


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_a_process_of_another_user_is_ended(helped, how):
    """A run of root's, which a scope names as its caller, gets SIGTERM and, where it does not end by that, SIGKILL."""
    deaf = "trap '' TERM; echo deaf; while :; do sleep 1; done"
    words = ("sleep", "1000") if how == "SIGTERM" else ("sh", "-c", deaf)
    child = helped.agent.spawn("--scope", "roots", "--run-ref", how, "--", *words)
    wait_until(lambda: [run for run in helped.agent.status()["runs"] if run["run_ref"] == how and run["command"] != "python3"])
    assert how == "SIGTERM" or child.stdout.readline() == "deaf\n"
    done = helped.command("revoke", "--run-ref", how)
    assert done.returncode == 0 and how in done.stdout, done
    child.communicate(timeout=60)
    assert child.returncode == -signal.Signals[how]
    assert not logged(helped.agent, "revoke.not_permitted")


def test_a_tree_of_another_user_is_ended(helped):
    """What a run of root's has started is found by an agent that is not root, stopped and killed by its helper."""
    marked, number = Marked(), count(20, 200)
    code = f"import _signal; _signal.signal(15, _signal.SIG_IGN)\n{DEEP}"
    words = ("--scope", "roots", "--run-ref", marked.word, "--", *PYTHON, code, str(number))
    child = helped.agent.spawn(*words, env=marked.env, process_group=0)
    assert child.stdout.read(number) == "." * number
    done = helped.command("revoke", "--run-ref", marked.word)
    assert done.returncode == 0 and "SIGKILL" in done.stdout, done
    child.communicate(timeout=60)
    marked.wait_gone()
    assert not logged(helped.agent, "revoke.not_permitted")


def test_who_is_told_of_a_change_may_be_another_users(helped):
    """A caller's process that a pid file names is signalled by the helper; a render that changes nothing tells nobody."""
    told = subprocess.Popen(["sh", "-c", "trap 'echo HUP' HUP; echo ready; while :; do sleep 0.1; done"], stdout=subprocess.PIPE)
    assert told.stdout is not None and told.stdout.readline() == b"ready\n"
    pid_file = helped.agent.directory / "told.pid"
    pid_file.write_text(f"{told.pid}\n")
    notify = {"pid_file": str(pid_file), "signal": "HUP", "min_interval": "0s"}
    try:
        helped.openbao.kv_put("secret/told", {"url": VALUE})
        binding = {"URL": "vault://secret/told#url"}
        helped.agent.scope("told", binding, callers=ROOTS, files=[{**OWNED, "notify": notify}])
        (helped.agent.directory / "scopes.d/told.toml").chmod(0o644)
        helped.agent.hang_up()
        wait_until(lambda: "told" in [each["name"] for each in helped.agent.status()["scopes"]])
        helped.render("told")
        before = (helped.files / "told/web.env").stat().st_ino
        helped.render("told")
        assert (helped.files / "told/web.env").stat().st_ino != before
        helped.openbao.kv_put("secret/told", {"url": f"{VALUE}-2"})
        assert told.stdout.readline() == b"HUP\n"
        wait_until(lambda: [line["generation"] for line in logged(helped.agent, "notify.told")] == [3])
        assert not logged(helped.agent, "notify.failed")
    finally:
        told.kill()
        told.communicate()
