"""What is done at a rotation with what is out there: as the scope says, files before processes, once, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import signal
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.rotating import LISTENER, Held, noted, noted_rows, put, stale
from tests.support.fault_proxy import Fault, always
from tests.support.files import SYSTEMD, Filed, filed
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_ONCE = {"min_interval": "0s"}


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack of this file's own; each test has a scope of its own in it."""
    with filed(poll="250ms") as running:
        yield running


@contextlib.contextmanager
def held(made: Filed, *scopes: str, **options: Any) -> Iterator[Held]:
    """Run a command with these scopes."""
    running = Held(made, *scopes, **options)
    try:
        yield running
    finally:
        running.end()


def closed() -> str:
    """Return a window that is closed for the next hours."""
    now = datetime.now()  # noqa: DTZ005 - windows are in the host's time
    return f"{now + timedelta(hours=11):%H}:00-{now + timedelta(hours=12):%H}:00"


def test_without_a_word_files_follow_and_processes_stay(made):
    """As ever: files are rendered anew, a process keeps what it has, and status says that this is not the newest."""
    name = made.scope("quiet")
    made.render(name)
    with held(made, name) as running:
        put(made, name, 2)
        wait_until(lambda: made.file(name) == made.whole(name, 2), 30)
        told = stale(running)
        assert (told["stale"], told["on_rotate"], told["pending"]) == ([f"secret/{name}"], "notify", False)
        assert running.lives()
        page = made.command("status").stdout
        assert f"older secret/{name} (on_rotate = notify)" in page


def test_a_process_is_ended_after_its_files_are_new(made):
    """``terminate``: the new generation is there and on the record before the process that has the old values is asked to end."""
    name = made.scope("ended", on_rotate="terminate", rotate_limits=AT_ONCE)
    made.render(name)
    with held(made, name) as running:
        audit_id = running.told["id"]
        put(made, name, 2)
        assert running.process.wait(30) == -signal.SIGTERM
        assert made.file(name) == made.whole(name, 2)
        assert made.ended(audit_id) == "on_rotate"
        wait_until(lambda: noted(made, "run_rotated", audit_id), 30)
        (row,) = noted_rows(made, "run_rotated", audit_id)
        assert row["message"] == f"{audit_id}: terminate, secret/{name}"
        assert list(row["stages"]) == ["switched"] and 0 <= row["stages"]["switched"] < 30_000
        reasons = [event["fields"].get("reason") for event in made.stack.central.events(scope=name)]
        assert reasons.index("rotated") < reasons.index("on_rotate"), "the old generation was replaced before"


def test_a_process_gets_its_signal_once_for_each_version(made):
    """``signal``: one for each new version, none again after the agent was killed; it stays stale, since its environment does.

    What was done is recorded by the next agent where the one that did it is killed while central takes nothing.
    """
    name = made.scope("signalled", on_rotate="signal:HUP", rotate_limits=AT_ONCE)
    with held(made, name, script=LISTENER) as running:
        with made.stack.to_central.failing(always(Fault("hang"))):
            waits = made.stack.agent.spawn("--scope", name, "--timeout", "3s", "--", "true")  # nothing else is sent meanwhile
            wait_until(lambda: made.stack.to_central.seen[-1].method == "POST", 30)
            put(made, name, 2)
            assert running.hear() == "HUP"
            wait_until(lambda: running.told.get("rotated"), 30)
            told = running.told
            assert (told["stale"], told["rotated"]["what"], told["pending"]) == ([f"secret/{name}"], "signal", False)
            made.stack.agent.kill()
            waits.communicate()
        made.stack.agent.start()
        wait_until(lambda: noted(made, "run_rotated", running.told["id"]), 30)
        stale(running)
        put(made, name, 3)
        assert running.hear() == "HUP"
        wait_until(lambda: len(noted(made, "run_rotated", running.told["id"])) == 2, 30)
        running.process.send_signal(signal.SIGUSR1)
        assert running.hear() == "USR1", "and no third one before it"


def test_none_touches_nothing_and_status_tells(made):
    """``none``: the old file and the old process stay as they are, and are shown as stale."""
    name = made.scope("untouched", on_rotate="none")
    made.render(name)
    with held(made, name) as running:
        put(made, name, 2)
        assert stale(running)["on_rotate"] == "none"
        told = wait_until(lambda: (told := made.told(name)) and told["stale"] and told, 30)
        assert (told["on_rotate"], told["generation"]) == ("none", 1)
        assert made.file(name) == made.whole(name, 1) and running.lives()
    assert made.command("rotate", name).returncode == 0
    wait_until(lambda: made.file(name) == made.whole(name, 2), 30)


def test_one_variable_says_its_own(made):
    """A variable with a word of its own is treated by that; where another changes too, the stronger word counts."""
    name = "keys"
    made.stack.openbao.kv_put("secret/calm", {"key": "1"})
    made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 1)})
    env = {"KEY": f"vault://secret/{name}#key", "CALM": "vault://secret/calm#key"}
    table = {"on_rotate": "terminate", "keys": {"CALM": {"on_rotate": "none"}}, "rotate_limits": AT_ONCE}
    made.stack.agent.scope(name, env, **table)
    made.reload()
    wait_until(lambda: name in [each["name"] for each in made.stack.agent.status()["scopes"]])
    with held(made, name) as running:
        put(made, name, 2, "calm")
        assert stale(running)["on_rotate"] == "none"
        assert running.lives()
        put(made, name, 2)
        assert running.process.wait(30) == -signal.SIGTERM


def test_who_nobody_would_start_again_is_left_and_told(made):
    """``restart`` of a process without a supervisor or unit: it is not ended, and that is in status and once on the log."""
    name = made.scope("alone", on_rotate="restart", rotate_limits=AT_ONCE)
    with held(made, name) as running:
        put(made, name, 2)
        wait_until(lambda: noted(made, "run_not_restarted", running.told["id"]), 30)
        told = running.told
        assert (told["rotated"]["what"], told["stale"], told["pending"]) == ("cannot_restart", [f"secret/{name}"], False)
        assert running.lives()
        (message,) = noted(made, "run_not_restarted", told["id"])
        assert "nobody would start it again" in message


def test_what_a_window_holds_back_is_done_by_the_next_agent(made):
    """A rotation outside of the window waits, over SIGKILL of the agent too, and is done as soon as it may be, once."""
    name = made.scope("held", on_rotate="signal:HUP", rotate_limits={**AT_ONCE, "window": [closed()]})
    with held(made, name, script=LISTENER) as running:
        put(made, name, 2)
        wait_until(lambda: running.told.get("due_in"), 30)
        assert running.told["due_in"] > 3600
        assert "HUP in " in made.command("status").stdout
        made.stack.agent.kill()
        made.stack.agent.start()
        assert running.told["pending"], "kept, before anything was polled"
        put(made, name, 3)
        made.stack.agent.scope(name, {"KEY": f"vault://secret/{name}#key"}, on_rotate="signal:HUP", rotate_limits=AT_ONCE)
        made.reload()
        assert running.hear() == "HUP"


def test_no_more_than_so_many_an_hour(made):
    """Processes of a scope have their turns together and no more often than it says; what is too much waits for its hour."""
    name = made.scope("hourly", on_rotate="signal:HUP", rotate_limits={**AT_ONCE, "max_per_hour": 1})
    with held(made, name, script=LISTENER) as first, held(made, name, script=LISTENER) as second:
        put(made, name, 2)
        assert (first.hear(), second.hear()) == ("HUP", "HUP")
        wait_until(lambda: not (first.told["pending"] or second.told["pending"]), 30)
        put(made, name, 3)
        wait_until(lambda: first.told["due_in"] and second.told["due_in"], 30)
        assert 3000 < first.told["due_in"] <= 3600
        first.process.send_signal(signal.SIGUSR1)
        assert first.hear() == "USR1"


def test_readers_of_a_file_that_is_only_rewritten_are_not_told(made, tmp_path):
    """``rewrite``: the file is new, and who ``notify`` names is not told of it; nor is any process."""
    seen = tmp_path / "seen"
    files = [{**SYSTEMD, "notify": {"command": ["/usr/bin/touch", str(seen)], "min_interval": "0s"}}]
    name = made.scope("rewritten", on_rotate="rewrite", files=files)
    made.render(name)
    put(made, name, 2)
    # The file is there before the agent has noted that it is: what it did about it is known only then.
    told = wait_until(lambda: (told := made.told(name)) and told["generation"] == 2 and told, 30)
    assert made.file(name) == made.whole(name, 2) and [each["due"] for each in told["consumers"]] == [False]
    applied = made.stack.agent.log.count('"event": "config.applied"')
    made.stack.agent.scope(name, {"KEY": f"vault://secret/{name}#key"}, files=files)
    made.reload()
    wait_until(lambda: made.stack.agent.log.count('"event": "config.applied"') > applied, 30)
    put(made, name, 3)
    wait_until(seen.exists, 30)
    wait_until(lambda: noted(made, "notified", f"{name}: "), 30)
    assert [each.partition(",")[0] for each in noted(made, "notified", f"{name}: ")] == [f"{name}: generation 3"]


def test_plan_tells_what_is_done_later(made):
    """Before anything is given out ``plan`` says what a rotation and a revocation will do, by scope and by variable."""
    made.scope("planned", on_rotate="restart", keys={"KEY": {"on_revoke": "signal:INT"}})
    page = made.command("plan", "planned").stdout
    assert "out there:" not in page
    rows = [line.split() for line in page.partition("later:\n")[2].splitlines()]
    assert rows[1:3] == [["planned", "all", "restart", "terminate"], ["planned", "KEY", "restart", "signal:INT"]]
    assert "any other process is left as it is\n" in page


def test_plan_tells_what_is_out_there_and_what_a_rotation_does_to_that(made):
    """Of files and processes that are out there ``plan`` says version, age, next check, and what would be done with whom."""
    files = [{**SYSTEMD, "notify": {"command": ["/bin/true"]}}]
    name = made.scope("given", on_rotate="signal:HUP", files=files)
    made.render(name)
    with held(made, name, script=LISTENER) as running:
        told = json.loads(made.command("plan", name, "--json").stdout)["given"]
        assert [(each["scopes"], each["pid"]) for each in told] == [([name], None), ([name], running.process.pid)]
        for each in told:
            assert (each["versions"], each["adopted"], bool(each["stale"])) == ({f"secret/{name}": 1}, False, False)
            assert (each["at_rotation"], each["last_rotation"]) == ("signal:HUP", None)
            assert 0 <= each["age"] < 60 and 0 <= each["next_check"] <= 60
        page = made.command("plan", name).stdout.partition("out there:")[2]
        assert "are written anew, told is command /bin/true" in page
        assert f"process {running.process.pid}" in page and "signal:HUP" in page
        put(made, name, 2)
        assert running.hear() == "HUP"
        last = wait_until(lambda: json.loads(made.command("plan", name, "--json").stdout)["given"][1]["last_rotation"], 30)
        (row,) = wait_until(lambda: noted_rows(made, "run_rotated", running.told["id"]))
        assert row["stages"] == pytest.approx({"switched": last["stages"]["switched"] * 1000}, abs=1)
