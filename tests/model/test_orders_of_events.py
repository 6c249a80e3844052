"""Orders of events that the model's small count hardly meets, each with all of its invariants: see ``test_model.py``."""

from __future__ import annotations

import signal

import pytest

from tests.model.invariants import Invariants


@pytest.fixture
def holds(world) -> Invariants:
    """What must hold on it, with files and a process of each scope out there."""
    made = Invariants(world)
    for scope in ("web", "db", "calm", "left"):
        world.render(scope)
        world.exec((scope,), "run-1", stubborn=True, seconds=10.0)
    pass_(made, 2.0)
    assert len(world.out()) == 8
    return made


def pass_(holds: Invariants, *pauses: float) -> None:
    """Let time pass, and look after each part of it."""
    for seconds in pauses:
        holds.world.run(seconds)
        holds.passed(seconds)
        holds.check()


def test_what_is_narrowed_is_taken_back(world, holds):
    """A process with a variable that its scope gives no longer is ended, and files are rendered without it."""
    world.reload_to("narrowed")
    holds.reloaded()
    pass_(holds, 10.0, 100.0, 200.0)
    assert {each.what for each in world.out() if "web" in each.scopes} == {"files of web"}
    assert next(each for each in world.out() if each.what == "files of web").names == {"WEB_KEY", "WEB_SAME"}
    holds.end()


@pytest.mark.parametrize("well", [True, False])
def test_files_stay_where_they_are_found_to_be_well(world, holds, well):
    """New files that are not well are rolled back with their lease, and taken again once they are well and are ordered."""
    (before,) = [each for each in world.out() if each.what == "files of db"]
    world.trouble("all well" if well else "not well")
    world.order("rotation", {"scope": "db"})
    pass_(holds, 1.0, 2.0, 10.0, 60.0)
    (now,) = [each for each in world.out() if each.what == "files of db"]
    assert (now.reservation == before.reservation) is not well
    assert (before.leases <= world.provider.leases.keys()) is not well
    holds.end()


@pytest.mark.parametrize("turns", range(0, 40, 8))
def test_a_revocation_that_an_agent_did_not_finish_is_finished_by_the_next(world, holds, turns):
    """A process in its grace when the agent is killed is ended by the next agent, which central tells of it again."""
    holds.revoked(lambda out: bool(out.scopes & {"web", "db", "calm"}), frozenset({"secret/web"}), central=True)
    world.central.order("revocation", {"reference": "vault://secret/web#key"})
    world.burn(turns)
    world.run(2.0)
    if world.loop is not None:
        world.crash()
    holds.crashed()
    world.start()
    pass_(holds, 3.0, 10.0, 10.0)
    assert {each.what.partition(" ")[0] for each in world.out()} <= {"files", "process"}
    assert not [each for each in world.out() if each.is_process and each.scopes & {"web", "db", "calm"}]
    holds.end()


def test_what_a_release_took_that_failed_is_given_back(world, holds):
    """What a release took that failed, or that came to its end at a second attempt, is given back within the minute."""
    for trouble in ("central loses answers", "workers lost", "readers lost", "children lost", "provider loses answers"):
        world.trouble(trouble)
        world.exec(("db",), "run-2", stubborn=False, seconds=1.0)
        pass_(holds, 2.0)
        world.trouble("all well")
        pass_(holds, 30.0, 30.0, 30.0, 30.0)
        assert trouble != "children lost" or world.processes.all[-1].alive  # what is not its own was not taken for its end
    held = {each.reservation for each in world.out()}
    assert all(each["reservation"] in held for each in world.journalled("leases").values())
    holds.end()


def test_what_is_withdrawn_is_taken_back(world, holds):
    """A version of a key that decrypts no more takes the files along; who is left keeps it; a certificate is replaced in time."""
    world.provider.withdraw("transit/decrypt/app", destroy=False)
    holds.withdrawn("transit/decrypt/app")
    pass_(holds, 100.0, 150.0)
    assert {each.what.partition(" ")[0] for each in world.out() if "left" in each.scopes} == {"process"}
    (first,) = [each.leases for each in world.out() if each.what == "files of calm"]
    pass_(holds, 300.0, 400.0)
    (second,) = [each.leases for each in world.out() if each.what == "files of calm"]
    assert first.isdisjoint(second)
    holds.end()


def test_who_is_to_be_signalled_at_a_rotation_is(world, holds):
    """A process whose scope says so gets its signal for a new version within a poll, and goes on; the others get none."""
    world.provider.write("secret/web")
    pass_(holds, 60.0, 60.0)
    got = {each.scopes: {number for number, _ in each.signals} for each in world.processes.all}
    assert got == {("web",): set(), ("db",): set(), ("calm",): {signal.SIGHUP}, ("left",): set()}
    holds.end()


@pytest.mark.parametrize("scope", ["db", None])
def test_a_clear_means_the_first_render_that_is_under_way(world, scope):
    """Files that are being rendered when they are cleared, or when everything is, do not come afterwards."""
    asked = world.render("db")
    while not world.central.reserved():  # and so nothing is read yet
        world.run(0.001)
    world.clear(scope)
    world.run(10.0)
    assert asked.done() and asked.result().reason == "revoked"
    assert world.out() == []
