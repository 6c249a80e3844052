"""Orders of this host: ``prism-vault rotate`` and ``revoke``, SIGHUP, and what is dropped into a directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.files import SYSTEMD, Filed, filed
from tests.support.signalled import order
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filed]:
    """A stack whose agent does not look by itself while a test lasts, with a directory of drops."""
    drops = tmp_path_factory.mktemp("drops") / "here"
    with filed(poll="60s", agent=f'drops = "{drops}"') as running:
        wait_until(drops.is_dir)
        yield running


def drops(made: Filed) -> Path:
    """Return the directory of drops."""
    line = next(line for line in made.stack.agent.main.splitlines() if line.startswith("drops = "))
    return type(made.top)(json.loads(line.removeprefix("drops = ")))


def given(made: Filed, name: str) -> tuple[subprocess.Popen[str], str]:
    """Make a scope, render its file, start a run of it; return the run and the audit id of the file."""
    made.scope(name)
    made.render(name)
    child = made.stack.agent.spawn("--scope", name, "--run-ref", name, "--", "sleep", "1000")
    wait_until(lambda: child.pid in [run["pid"] for run in made.stack.agent.status()["runs"]])
    told = made.told(name)
    assert told is not None
    return child, str(told["id"])


def ended(child: subprocess.Popen[str]) -> int:
    """Return how a child ended, reading away what it said."""
    child.communicate(timeout=60)
    return child.returncode


def rotated(made: Filed, name: str) -> None:
    """Write the second value of a scope's secret."""
    made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 2)})


@pytest.mark.parametrize("what", ["scope", "reference"])
def test_rotate_has_the_newest_value_rendered_now(made, what):
    """``rotate`` with a scope or a secret renders its files anew without waiting for a poll, and says how much of it there is."""
    name = made.scope(f"rotate-{what}")
    made.render(name)
    rotated(made, name)
    done = made.command("rotate", name if what == "scope" else f"vault://secret/{name}#key")
    assert (done.returncode, done.stdout.partition(": ")[2]) == (0, "1 sets of files, 0 runs\n")
    wait_until(lambda: made.file(name) == made.whole(name, 2))


def test_rotate_reads_what_has_no_versions(made):
    """Files of a KV version 1 secret, whose changes no metadata tells, are read anew when they are rotated, by central too."""
    made.stack.openbao.mount_kv("kv1", version=1)
    made.stack.openbao.must("POST", "kv1/plain", {"key": "old"})
    made.stack.agent.scope("plain", {"KEY": "vault://kv1/plain#key"}, files=[SYSTEMD])
    made.reload()
    wait_until(lambda: "plain" in [scope["name"] for scope in made.stack.agent.status()["scopes"]])
    made.render("plain")
    made.stack.openbao.must("POST", "kv1/plain", {"key": "new"})
    assert made.command("rotate", "plain").returncode == 0
    wait_until(lambda: made.file("plain") == 'KEY="new"\n')
    made.stack.openbao.must("POST", "kv1/plain", {"key": "newer"})
    order(made.stack.central, "rotations", reference="vault://kv1/plain#key")
    wait_until(lambda: made.file("plain") == 'KEY="newer"\n')


def test_a_hang_up_looks_for_newer_versions(made):
    """SIGHUP has the agent look for newer versions at once, beside reading its configuration."""
    name = made.scope("hang-up")
    made.render(name)
    rotated(made, name)
    made.reload()
    wait_until(lambda: made.file(name) == made.whole(name, 2))


@pytest.mark.parametrize("what", ["scope", "reference", "version"])
def test_revoke_takes_back_files_and_processes(made, what):
    """``revoke`` with a scope or a secret clears its files, ends its processes, says so, and each has its row."""
    child, audit_id = given(made, f"revoke-{what}")
    name = f"revoke-{what}"
    asked = {"scope": name, "reference": f"vault://secret/{name}", "version": f"vault://secret/{name}#key?version=1"}[what]
    done = made.command("revoke", asked)
    assert (done.returncode, done.stdout) == (0, f"{name}: cleared web.env\npid {child.pid}: SIGTERM\n")
    assert made.file(name) is None
    assert ended(child) == -signal.SIGTERM
    assert made.ended(audit_id) == "revoked"


def test_revoke_works_with_everything_away(made):
    """With central and the provider away a revocation clears and ends at once, and is on the log when central is back."""
    child, audit_id = given(made, "away")
    made.stack.openbao.pause()
    made.stack.central.pause()
    try:
        done = made.command("revoke", "away")
        assert (done.returncode, made.file("away"), ended(child)) == (0, None, -signal.SIGTERM)
    finally:
        made.stack.openbao.resume()
        made.stack.central.resume()
    assert made.ended(audit_id) == "revoked"


def test_another_version_is_left_alone(made):
    """A revocation of a version that is not out there takes nothing back, and is no error."""
    child, _ = given(made, "other-version")
    done = made.command("revoke", "vault://secret/other-version?version=7")
    assert (done.returncode, done.stdout, child.poll()) == (0, "", None)
    assert made.file("other-version") is not None
    child.kill()
    ended(child)


def test_what_is_to_be_taken_back_must_be_said_once(made):
    """Neither nothing, nor a scope and a run at once, is an order: 64."""
    assert "name what" in made.refused(64, "revoke")
    assert "name what" in made.refused(64, "revoke", "web", "--run-ref", "a")


def test_dropped_orders_are_done(made):
    """A file NAME.rotate or NAME.revoke in the directory is done, line by line, and gone."""
    child, audit_id = given(made, "dropped")
    rotated(made, "dropped")
    (drops(made) / "a.rotate").write_text("vault://secret/dropped#key\n\n")
    wait_until(lambda: made.file("dropped") == made.whole("dropped", 2))
    newest = made.told("dropped")
    assert newest is not None and made.ended(audit_id) == "rotated"
    (drops(made) / "b.revoke").write_text("dropped")
    assert ended(child) == -signal.SIGTERM
    wait_until(lambda: made.file("dropped") is None)
    wait_until(lambda: os.listdir(drops(made)) == [])


def test_a_dropped_order_that_is_none_is_put_aside(made):
    """What names no scope or secret, is not ours, too large, or no file, is renamed, told in the log, and holds up no other."""
    name = made.scope("beside")
    made.render(name)
    rotated(made, name)
    place = drops(made)
    (place / "wrong.revoke").write_text("vault://no key\n")
    (place / "large.rotate").write_text("x\n" * 50_000)
    (place / "link.rotate").symlink_to("/etc/hostname")
    os.mkfifo(place / "pipe.revoke")
    (place / "zz.rotate").write_text(name)
    wait_until(lambda: made.file(name) == made.whole(name, 2))
    refused = {f"{each}.refused" for each in ("wrong.revoke", "large.rotate", "link.rotate", "pipe.revoke")}
    wait_until(lambda: set(os.listdir(place)) == refused)
    assert made.stack.agent.log.count("drops.refused") == len(refused)
    for each in refused:
        (place / each).unlink()


def test_a_process_that_takes_its_time_holds_up_no_other_order(made):
    """While one process takes its grace, the next line, the next file and the next order of that name are done."""
    made.scope("slow", grace="1000s")
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); input()"
    slow = made.stack.agent.spawn("--scope", "slow", "--", sys.executable, "-Ic", stubborn, stdin=subprocess.PIPE)
    assert slow.stdout is not None and slow.stdout.readline() == "up\n"
    children = [given(made, name)[0] for name in ("next-line", "next-file", "next-order")]
    (drops(made) / "a.revoke").write_text("slow\nnext-line\n")
    (drops(made) / "b.revoke").write_text("next-file\n")
    assert [ended(child) for child in children[:2]] == [-signal.SIGTERM] * 2
    wait_until(lambda: os.listdir(drops(made)) == ["a.revoke"])
    assert slow.poll() is None
    (drops(made) / "a.revoke").write_text("next-order\n")
    assert ended(children[2]) == -signal.SIGTERM
    slow.kill()
    slow.communicate()
    wait_until(lambda: os.listdir(drops(made)) == [])
