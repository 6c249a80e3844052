"""What the model has found wrong with the agent, each as the few steps that show it, and the rule that was broken."""

from __future__ import annotations

import pytest

from tests.model.invariants import Invariants


def test_an_agent_that_comes_back_goes_back_to_no_older_version(world):
    """What an earlier agent has given out is a version that was seen: a replica that lags is refused after a restart, too."""
    holds = Invariants(world)
    world.provider.write("secret/web")
    world.render("web")
    world.run(1.0)
    world.crash()
    world.provider.lagging = True
    world.start()
    world.order("rotation", {"scope": "web"})
    world.run(1.0)
    holds.check()
    (files,) = world.out()
    assert files.versions["secret/web"] == 2
    holds.end()
    assert "stale_read" in world.log.read_text()


@pytest.mark.parametrize("how", ["cleared", "rotated", "no longer allowed"])
def test_the_end_of_files_is_on_the_log_whenever_the_agent_is_killed(world, how):
    """Files that are gone, or replaced, leave their end to the next agent, at whichever turn of its loop the agent crashes."""
    for turns in range(12):
        holds = Invariants(world)
        world.render("web")
        world.run(1.0)
        holds.check()
        if how == "cleared":
            world.clear("web")
            world.burn(turns)
        elif how == "rotated":
            world.order("rotation", {"scope": "web"})
            world.burn(turns * 4)
        else:
            world.crash()
            world.reload_to("without web")
            world.start(turns * 3)
        world.run(1.0)
        if world.loop is None:
            world.start()
        world.clear("web")
        world.run(5.0)
        assert holds.seen
        assert all(world.central.of(each).count("cleared") == 1 for each in holds.seen)
        world.mend()


def test_a_revocation_by_run_ref_means_a_run_that_is_still_being_given_its_values(world):
    """Whoever revokes a run that is about to begin is told that there is none, and it does not begin either."""
    under_way = 0
    for milliseconds in range(10, 100, 5):
        world.exec(("web",), "run-1", stubborn=False, seconds=10.0)
        world.run(milliseconds / 1000)
        client = world.processes.all[-1]
        meant = {row["reservation"] for row in world.central.reserved()}
        under_way += bool(meant) and not client.values
        world.order("revocation", {"run_ref": "run-1"})
        world.run(10.0)
        assert client.reservation not in meant or not client.alive
        client.end()
        world.run(1.0)
    assert under_way > 3


@pytest.mark.parametrize("how", ["goes on", "is killed", "is stopped"])
def test_leases_of_replaced_files_wait_for_their_consumers_whatever_becomes_of_the_agent(world, how):
    """Who uses replaced files and cannot be told of the newer ones keeps its lease, also where another agent runs by then."""
    holds = Invariants(world)
    world.render("calm")
    world.run(5.0)
    (before,) = world.out()
    world.trouble("consumers fail")
    world.order("rotation", {"scope": "calm"})
    world.run(4.0)
    if how != "goes on":
        (world.crash if how == "is killed" else world.stop)()
        world.start()
    for _ in range(6):
        world.run(10.0)
        holds.check()
    (now,) = [each for each in world.out() if each.what == "files of calm"]
    assert now.reservation != before.reservation and before.leases <= world.provider.leases.keys()
    world.trouble("all well")
    world.run(330.0)
    assert not before.leases & world.provider.leases.keys()
    holds.end()


def test_what_a_worker_has_staged_that_is_lost_is_removed(world):
    """A worker that dies when it has written files, and before it has said so, leaves none of them behind."""
    holds = Invariants(world)
    world.trouble("readers lost")
    for scope in ("web", "db"):
        world.render(scope)
        world.run(1.0)
    assert not list((world.files / ".staged").iterdir())
    world.trouble("all well")
    world.render("web")
    world.run(1.0)
    assert [each.what for each in world.out()] == ["files of web"]
    holds.end()
