"""New files are judged: all is well and the old ones go, or the old ones are back in one switch, told, and not tried again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.rotating import LISTENER, Held, noted, put
from tests.support.files import SYSTEMD, Filed, filed
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A judgement that fails takes all of it, and on a busy machine a shell may take a second to begin.
JUDGED = "4s"


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack of this file's own; each test has a scope of its own in it."""
    with filed(poll="250ms") as running:
        yield running


class Service:
    """What reads the file of a scope: told of it by a command that notes the generation, judged by one that does as told."""

    def __init__(self, made: Filed, name: str, verdict: str, within: str = "60s", **more: Any) -> None:
        self.made, self.name = made, name
        self.place = made.top.parent / f"service-{name}"
        self.place.mkdir(mode=0o755)
        self.seen = self.place / "seen"
        self.seen.touch()
        tell = self._program("tell", f'echo "$PRISM_VAULT_GENERATION" >> {shlex.quote(str(self.seen))}')
        self.judge(verdict)
        files = [{**SYSTEMD, "notify": {"command": [str(tell)], "min_interval": "0s"}}]
        health = {"command": [str(self.place / "judge")], "within": within}
        made.scope(name, files=files, health=health, rotate_limits={"min_interval": "0s"}, **more)
        made.render(name)

    def judge(self, script: str) -> None:
        """Have it be judged like this from now on; ``GO`` is a file of its own."""
        self._program("judge", script.replace("GO", str(self.place / "go")))

    def go(self) -> None:
        """Make that file."""
        (self.place / "go").touch()

    def _program(self, name: str, script: str) -> Path:
        draft = self.place / f"{name}.new"
        draft.write_text(f"#!/bin/sh\n{script}\n")
        draft.chmod(0o755)
        return draft.rename(self.place / name)

    @property
    def told(self) -> list[str]:
        """The generations that the consumer was told of."""
        return self.seen.read_text().split()

    @property
    def shown(self) -> dict[str, Any]:
        """What status says of the files."""
        return self.made.told(self.name) or {}

    def holds(self, number: int) -> bool:
        """Tell whether the file has this value."""
        return self.made.file(self.name) == self.made.whole(self.name, number)

    def rejected(self) -> list[str]:
        """The rows that tell of a way back."""
        return noted(self.made, "files_rolled_back", f"{self.name}: ")

    def cleared(self, audit_id: str) -> list[str]:
        """Return why a generation is no longer out there, by the log."""
        return [row["reason"] for row in self.made.rows(audit_id) if row["kind"] == "cleared"]


def test_the_old_generation_goes_when_all_is_well(made):
    """While it is judged the old one is out there, by the log too; when the command ends with 0 it goes, and nothing is left."""
    service = Service(made, "well", "test -e GO")
    before = service.shown["id"]
    put(made, "well", 2)
    wait_until(lambda: service.holds(2) and service.told == ["2"], 30)
    assert service.shown["judging"] and service.cleared(before) == []
    assert "is being judged" in made.command("status").stdout
    service.go()
    wait_until(lambda: service.cleared(before) == ["rotated"], 30)
    wait_until(lambda: not service.shown["judging"] and made.residue() == [], 30)
    assert service.holds(2) and service.told == ["2"]


def test_what_is_not_well_goes_back_and_is_not_tried_again(made):
    """The old file is back and told, the log tells both ends and why; only a newer version or an order has it tried again."""
    service = Service(made, "bad", 'grep -q -e "-2\\"" $PRISM_VAULT_DIRECTORY/web.env && exit 9; exit 0', within=JUDGED)
    before = service.shown["id"]
    put(made, "bad", 2)
    wait_until(service.rejected, 30)
    assert service.rejected() == [f"bad: generation 2: {service.place}/judge ended with 9; generation 1 is back"]
    wait_until(lambda: service.told == ["2", "1"], 30)
    assert service.holds(1) and made.residue() == []
    assert (service.shown["id"], service.shown["generation"], service.cleared(before)) == (before, 1, [])
    assert f"ROLLED BACK: {service.place}/judge ended with 9" in made.command("status").stdout
    made.stack.agent.kill()
    made.stack.agent.start()
    wait_until(lambda: service.shown["stale"], 30)
    assert service.holds(1) and "ended with 9" in service.shown["rolled_back"]
    assert made.command("rotate", "bad").returncode == 0
    wait_until(lambda: len(service.rejected()) == 2, 30)
    assert service.holds(1)
    put(made, "bad", 3)
    wait_until(lambda: service.holds(3) and not service.shown["judging"], 30)
    assert len(service.rejected()) == 2 and service.shown["rolled_back"] == ""


def test_an_agent_that_is_killed_leaves_it_to_the_next(made):
    """The kept generation outlives the agent, and the next one judges anew and goes back."""
    service = Service(made, "killed", "test -e GO && exit 3; sleep 1000", within="60s")
    put(made, "killed", 2)
    wait_until(lambda: service.shown.get("judging") and service.told == ["2"], 30)
    made.stack.agent.kill()
    service.go()
    service.judge("exit 3")
    health = {"command": [str(service.place / "judge")], "within": "1s"}
    made.stack.agent.scope("killed", {"KEY": "vault://secret/killed#key"}, files=[SYSTEMD], health=health)
    made.stack.agent.start()
    wait_until(service.rejected, 30)
    assert service.holds(1) and made.residue() == []


def test_there_is_no_way_back_to_what_was_taken_back(made):
    """When the old version is deleted while the new one is judged it goes at once; the new one stays, and that is told."""
    service = Service(made, "deleted", "touch GO; exit 4", within="8s")
    before = service.shown["id"]
    put(made, "deleted", 2)
    wait_until((service.place / "go").exists, 30)
    assert service.shown["judging"] and service.holds(2)
    made.stack.openbao.must("POST", "secret/delete/deleted", {"versions": [1]})
    wait_until(lambda: service.cleared(before) == ["secret_deleted"], 30)
    wait_until(lambda: noted(made, "files_not_well", "deleted: "), 60)
    assert service.holds(2) and made.residue() == []


def test_a_clear_takes_both_generations(made):
    """What is cleared while it is judged leaves neither the new generation nor the old one."""
    service = Service(made, "both", "test -e GO")
    before = service.shown["id"]
    put(made, "both", 2)
    wait_until(lambda: service.shown["judging"] and service.holds(2), 30)
    after = service.shown["id"]
    assert made.command("clear", "both").returncode == 0
    assert made.file("both") is None and made.residue() == []
    wait_until(lambda: (service.cleared(before), service.cleared(after)) == (["cleared"], ["cleared"]), 30)


def test_processes_that_cannot_go_back_wait_for_the_judgement(made):
    """``terminate`` and ``restart`` wait until all is well, and are not done for what was rejected; a signal is, and again."""
    service = Service(made, "ending", "test -e GO && exit 0; exit 1", within=JUDGED, on_rotate="terminate")
    signalled = Service(made, "hearing", "exit 1", within="2s", on_rotate="signal:HUP")
    ending, hearing = Held(made, "ending"), Held(made, "hearing", script=LISTENER)
    try:
        for name in ("hearing", "ending"):
            put(made, name, 2)
        assert (hearing.hear(), hearing.hear()) == ("HUP", "HUP"), "for the new file, and for the old one again"
        wait_until(lambda: len(signalled.rejected()) == 1 and service.rejected(), 30)
        wait_until(lambda: ending.told["stale"], 30)
        assert ending.lives()
        service.go()
        put(made, "ending", 3)
        assert ending.process.wait(30) == -15
    finally:
        ending.end()
        hearing.end()
