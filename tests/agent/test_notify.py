"""Consumers of rendered files are told of a change by a real agent: once, of the newest, each for itself, and never silently."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support.files import SYSTEMD, Filed, filed
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
print("up", flush=True)
while signal.sigwait([signal.SIGHUP]):
    print("HUP", flush=True)
"""


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack of this file's own; each test has a scope of its own in it."""
    with filed(poll="250ms") as running:
        yield running


class Told:
    """A command that is told of a scope: it appends a line for each time, with the generation, and the arguments of a script."""

    def __init__(self, made: Filed, name: str, script: str = "") -> None:
        directory = made.top.parent / f"consumer-{name}"
        directory.mkdir(mode=0o755)
        self.program, self.seen = directory / "tell", directory / "seen"
        self.seen.touch()
        self.script(script)

    def script(self, script: str) -> None:
        """Have it do something else from now on, before it appends its line."""
        draft = self.program.with_suffix(".new")
        line = f'echo "$PRISM_VAULT_SCOPE $PRISM_VAULT_GENERATION" >> {shlex.quote(str(self.seen))}'
        draft.write_text(f"#!/bin/sh\n{script}\n{line}\n")
        draft.chmod(0o755)
        draft.rename(self.program)

    @property
    def lines(self) -> list[str]:
        """The lines that are there."""
        return self.seen.read_text().splitlines()

    def notify(self, **limits: Any) -> dict[str, Any]:
        """Return what a file's ``notify`` says for it."""
        return {"command": [str(self.program)], "min_interval": "0s", **limits}


def scope(made: Filed, name: str, told: Told, **limits: Any) -> str:
    """Make a scope with a file of which ``told`` is told, and render it."""
    made.scope(name, files=[{**SYSTEMD, "notify": told.notify(**limits)}])
    made.render(name)
    return name


def rotate(made: Filed, name: str, number: int) -> None:
    """Give a scope's secret a new value, and wait until it is in the file."""
    made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, number)})
    wait_until(lambda: made.file(name) == made.whole(name, number), 30)


def consumer(made: Filed, name: str) -> dict[str, Any]:
    """Return what status says of the one consumer of a scope."""
    told = made.told(name)
    assert told is not None
    (found,) = told["consumers"]
    return dict(found)


def noted(made: Filed, reason: str, name: str) -> list[str]:
    """Return the messages of the rows of this reason about a scope."""
    rows = [event["fields"] for event in made.stack.central.events()]
    return [row["message"] for row in rows if row.get("reason") == reason and row["message"].startswith(f"{name}: ")]


def closed() -> str:
    """Return a window that is closed for the next hours."""
    now = datetime.now()  # noqa: DTZ005 - windows are in the host's time
    return f"{now + timedelta(hours=11):%H}:00-{now + timedelta(hours=12):%H}:00"


def test_a_change_is_told_once_and_nothing_else_is(made):
    """Nobody is told of the first render or of one that changed nothing; a rotation is told, in status and on the log."""
    told = Told(made, "changed")
    name = scope(made, "changed", told)
    made.render(name)
    wait_until(lambda: consumer(made, name)["due"] is False)
    assert told.lines == []
    rotate(made, name, 2)
    wait_until(lambda: told.lines == [f"{name} 3"])
    wait_until(lambda: noted(made, "notified", name), 30)
    assert noted(made, "notified", name) == [f"{name}: generation 3, command {told.program}"]
    shown = consumer(made, name)
    assert (shown["due"], shown["error"], shown["failures"]) == (False, "", 0)
    assert f"command {told.program}" in made.command("status").stdout
    rotate(made, name, 3)
    wait_until(lambda: told.lines == [f"{name} 3", f"{name} 4"])


def test_files_with_one_consumer_are_told_together_and_others_are_not(made):
    """Two files that name the same consumer are one notification; who reads a file that did not change is not told."""
    told, other = Told(made, "both"), Told(made, "other")
    name = "several"
    files = [
        {"path": "web.env", "format": "systemd", "notify": told.notify()},
        {"path": "as.json", "format": "json", "notify": told.notify()},
        {"path": "fixed", "format": "template", "template": "", "notify": other.notify()},
    ]
    template = made.stack.agent.directory / "fixed.j2"
    template.write_text("the same\n")
    template.chmod(0o600)
    files[2]["template"] = str(template)
    made.scope(name, files=files)
    made.render(name)
    rotate(made, name, 2)
    wait_until(lambda: noted(made, "notified", name), 30)
    rotate(made, name, 3)
    wait_until(lambda: len(noted(made, "notified", name)) == 2, 30)
    assert (told.lines, other.lines) == ([f"{name} 2", f"{name} 3"], [])


def test_a_process_is_signalled(made):
    """The process of a pid file gets its signal at a rotation."""
    with subprocess.Popen([sys.executable, "-Ic", SERVICE], stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            assert service.stdout.readline() == "up\n"
            directory = made.top.parent / "consumer-pid"
            directory.mkdir(mode=0o755)
            (directory / "pid").write_text(f"{service.pid}\n")
            (directory / "pid").chmod(0o644)
            files = [{**SYSTEMD, "notify": {"pid_file": str(directory / "pid"), "signal": "HUP", "min_interval": "0s"}}]
            name = made.scope("signalled", files=files)
            made.render(name)
            rotate(made, name, 2)
            assert service.stdout.readline() == "HUP\n"
        finally:
            service.kill()
    wait_until(lambda: noted(made, "notified", name), 30)
    (directory / "pid").unlink()
    rotate(made, name, 3)
    wait_until(lambda: len(noted(made, "notified", name)) == 2, 30)
    assert consumer(made, name)["note"] == "there is no pid file"
    assert "knows them (there is no pid file)" in made.command("status").stdout


def test_a_failure_is_told_recorded_and_tried_again(made):
    """One that fails is on the log once with its reason and in status with its count, is tried again, and then is told."""
    told = Told(made, "failing", script='cat "$PRISM_VAULT_DIRECTORY/web.env"; exit 3')
    name = scope(made, "failing", told)
    rotate(made, name, 2)
    wait_until(lambda: consumer(made, name)["failures"])
    shown = consumer(made, name)
    why = f"{told.program} ended with 3; run it by hand, what it prints here is discarded"
    assert (shown["due"], shown["error"]) == (True, why)
    assert f"FAILED {shown['failures']} times: {why}; again " in made.command("status").stdout
    wait_until(lambda: noted(made, "notify_failed", name), 30)
    (recorded,) = noted(made, "notify_failed", name)
    assert recorded.startswith(f"{name}: generation 2, command {told.program}: {told.program} ended with 3"[:200])
    assert made.value(name, 2) not in made.stack.agent.log, "what it printed was a value"
    told.script("")
    wait_until(lambda: told.lines == [f"{name} 2"], 60)
    wait_until(lambda: consumer(made, name)["error"] == "", 30)
    wait_until(lambda: noted(made, "notified", name), 30)
    assert len(noted(made, "notify_failed", name)) == 1


def test_one_that_hangs_holds_up_no_other(made):
    """While one consumer hangs another scope's is told; the one that hangs is ended with its children when its time is up."""
    hanging, other = Told(made, "hanging"), Told(made, "prompt")
    pids = hanging.seen.with_name("pids")
    hanging.script(f"sleep 1000 & echo $! >> {pids}; echo $$ >> {pids}; wait")
    stuck, prompt = scope(made, "hanging", hanging, timeout="5s"), scope(made, "prompt", other)
    rotate(made, stuck, 2)
    wait_until(lambda: pids.exists() and pids.read_text().count("\n") == 2)
    numbers = [int(line) for line in pids.read_text().split()]
    rotate(made, prompt, 2)
    wait_until(lambda: other.lines == [f"{prompt} 2"], 15)
    assert all(psutil.pid_exists(each) for each in numbers), "the other one still hangs"
    wait_until(lambda: consumer(made, stuck)["error"].startswith("it took longer than 5 s"), 60)
    wait_until(lambda: not any(psutil.pid_exists(each) for each in numbers))
    made.command("clear", stuck)


def test_a_change_waits_for_its_window_and_for_the_next_agent(made):
    """Changes outside of the window wait, are one, and survive SIGKILL: the next agent tells of the newest as soon as it may."""
    told = Told(made, "waiting")
    name = scope(made, "waiting", told, window=[closed()])
    rotate(made, name, 2)
    rotate(made, name, 3)
    wait_until(lambda: consumer(made, name)["due"])
    assert consumer(made, name)["due_in"] > 3600
    assert "is told in" in made.command("status").stdout
    made.stack.agent.kill()
    made.stack.agent.start()
    assert consumer(made, name)["due"] and told.lines == []
    made.stack.agent.scope(name, {"KEY": f"vault://secret/{name}#key"}, files=[{**SYSTEMD, "notify": told.notify()}])
    made.reload()
    wait_until(lambda: told.lines == [f"{name} 3"])
    wait_until(lambda: consumer(made, name)["due"] is False)


def test_an_agent_that_is_killed_while_it_tells_tells_again(made):
    """Who was being told when the agent was killed is told by the next one, and its limits count what the first one did."""
    told = Told(made, "killed")
    began, release = told.seen.with_name("began"), told.seen.with_name("release")
    told.script(f"echo $$ >> {began}; [ -e {release} ] || sleep 1000")
    name = scope(made, "killed", told)
    rotate(made, name, 2)
    wait_until(lambda: began.exists() and began.read_text().endswith("\n"))
    made.stack.agent.kill()
    os.killpg(int(began.read_text()), signal.SIGKILL)
    release.touch()
    made.stack.agent.start()
    wait_until(lambda: told.lines == [f"{name} 2"])
    wait_until(lambda: consumer(made, name)["due"] is False)
    kept = json.loads((made.stack.agent.directory / "state/notify").read_text())
    assert len(kept[name][f"command {told.program}"]["begun"]) == 2


def test_a_stop_ends_what_it_tells_and_leaves_it_to_the_next(made):
    """An agent that is stopped ends the command that it runs, at once, and the next agent runs it again."""
    told = Told(made, "stopped")
    began, release = told.seen.with_name("began"), told.seen.with_name("release")
    told.script(f"[ -e {release} ] || {{ echo $$ > {began}; sleep 1000; }}")
    name = scope(made, "stopped", told)
    rotate(made, name, 2)
    pid = int(wait_until(lambda: began.exists() and began.read_text()))
    before = time.monotonic()
    assert made.stack.agent.stop() == 0
    assert time.monotonic() - before < 15, "not as long as the command"
    assert not psutil.pid_exists(pid)
    release.touch()
    made.stack.agent.start()
    wait_until(lambda: told.lines == [f"{name} 2"])


def test_what_is_cleared_and_rendered_again_is_a_first_render(made):
    """After a clear nobody is told: neither of the clear nor of the render that follows it, though its files are others."""
    told = Told(made, "again")
    name = scope(made, "again", told, window=[closed()])
    rotate(made, name, 2)
    wait_until(lambda: consumer(made, name)["due"])
    made.command("clear", name)
    made.render(name)
    assert consumer(made, name)["due"] is False
    assert told.lines == []


def test_a_consumer_that_is_new_in_the_configuration_is_told_of_the_next_change(made):
    """Who is added while files are there is not told of these, and is of the next."""
    told = Told(made, "added")
    name = made.scope("added")
    made.render(name)
    made.stack.agent.scope(name, {"KEY": f"vault://secret/{name}#key"}, files=[{**SYSTEMD, "notify": told.notify()}])
    made.reload()
    wait_until(lambda: made.told(name)["consumers"])
    rotate(made, name, 2)
    wait_until(lambda: told.lines)
    assert told.lines == [f"{name} {made.told(name)['generation']}"]


def test_what_is_kept_has_no_value_and_is_the_agents(made):
    """The file of the agent's state that says who is to be told is readable by the agent alone, and has no value."""
    told = Told(made, "kept-state")
    name = scope(made, "kept-state", told)
    rotate(made, name, 2)
    wait_until(lambda: told.lines)
    file = Path(made.stack.agent.directory / "state/notify")
    wait_until(lambda: name in file.read_text())
    assert file.stat().st_mode & 0o777 == 0o600
    assert made.stack.canary not in file.read_text()


def test_a_damaged_state_keeps_nobody_from_serving(made):
    """An agent whose memory of its consumers cannot be read says so and serves; the next change is told."""
    told = Told(made, "damaged")
    name = scope(made, "damaged", told)
    made.stack.agent.kill()
    (made.stack.agent.directory / "state/notify").write_text('{"x": [')
    made.stack.agent.start()
    assert "notify.forgotten" in made.stack.agent.log
    rotate(made, name, 2)
    wait_until(lambda: told.lines == [f"{name} 2"])
