"""The evidence of a revocation: a host is cleared where it said so and the log agrees, and in no other case."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.audit.event import SIGNAL_DONE as DONE
from prism_vault_agent.audit.event import SIGNAL_RECEIVED as RECEIVED
from prism_vault_agent.central.config import OWN_HOST
from prism_vault_agent.central.log.evidence import NAMED, TOLD, About, Host, Release, hosts

NAMES = st.sampled_from(["h1", "h2", "h3"])
EPOCHS = st.sampled_from(["e1", "e2"])
BOOT = st.integers(0, 3)
RELEASES = st.lists(
    st.builds(Release, n=st.integers(1, 9), reservation=st.just("0" * 32), host=NAMES, epoch=EPOCHS, boot_ms=BOOT)
)
ANSWERS = st.builds(
    lambda host, epoch, reason, failed, boot: About(
        10, host, epoch, "admin", 5, {"reason": reason, "failed": failed, "boot_ms": boot}
    ),
    NAMES,
    EPOCHS,
    st.sampled_from([RECEIVED, DONE]),
    st.integers(0, 1),
    BOOT,
)
TOLDS = st.lists(NAMES).map(lambda names: About(10, OWN_HOST, "c", "admin", 4, {"reason": TOLD, "hosts": names}))


def told(*about: About, left: tuple[Release, ...] = (), connected: tuple[str, ...] = ()) -> Host:
    """Return the one host that is concerned."""
    (found,) = hosts(about, left, connected)
    return found


def answer(reason: str, epoch: str = "e1", boot_ms: int = 100, **counts: int) -> About:
    """Return what host h1 says about a signal."""
    return About(20, "h1", epoch, "admin", 7, {"reason": reason, "boot_ms": boot_ms, **counts})


def release(epoch: str = "e1", boot_ms: int = 50) -> Release:
    """Return a release on host h1 that has no end."""
    return Release(1, "0" * 32, "h1", epoch, boot_ms)


@given(st.lists(st.one_of(ANSWERS, TOLDS)), RELEASES, st.lists(NAMES))
def test_cleared_is_said_and_so_by_the_log(about, left, connected):
    """Whatever was said: a host is cleared only if it said done, without failure, and no release of its present boot is left."""
    found = {each.host: each for each in hosts(about, left, connected)}
    last = {row.host: row for row in about if row.host != OWN_HOST}
    concerned = {*connected, *last, *(each.host for each in left)}
    concerned |= {name for row in about if row.host == OWN_HOST for name in row.fields["hosts"]}

    assert found.keys() == concerned
    for name, host in found.items():
        alive = [
            each for each in left if each.host == name and not (name in last and last[name].fields["boot_ms"] < each.boot_ms)
        ]
        done = [row for row in about if row.host == name and row.fields["reason"] == DONE]
        assert (host.state == "cleared") == (bool(done) and not done[-1].fields["failed"] and not alive)
        assert (host.state == "silent") == (name not in last)


def test_a_host_that_was_told_and_is_silent_is_named():
    """A host that was told or is connected, and never answers, is there as silent, with when it was told."""
    found = told(About(1, OWN_HOST, "c", "admin", 4, {"reason": TOLD, "hosts": ["h1"]}))

    assert (found.state, found.told_at, found.received_at) == ("silent", 4, None)
    assert told(connected=("h1",)).state == "silent"


def test_done_is_not_believed_against_the_log():
    """A host that says it is done is not cleared while a release of this start of its agent has no end."""
    assert told(answer(DONE), left=(release(),)).state == "ending"
    assert told(answer(RECEIVED)).state == "ending"
    assert told(answer(DONE, failed=1)).state == "failed"
    assert told(answer(DONE)).state == "cleared"


def test_what_no_agent_watches_is_told_apart():
    """A release of another start of the agent is unwatched, until the host has certainly booted since."""
    assert told(answer(DONE, epoch="e2"), left=(release("e1"),)).state == "unwatched"
    assert told(answer(DONE, epoch="e2", boot_ms=49), left=(release("e1", 50),)).state == "cleared"
    assert told(answer(DONE, epoch="e2", boot_ms=50), left=(release("e1", 50),)).state == "unwatched"


def test_what_is_left_is_named_however_much_was_cleared():
    """Of each state the first twenty are named, with what they are of; all are counted."""
    rows = [About(30 + n, "h1", "e1", "cleared", 8, {"reservation": f"{n:032x}", "scopes": ["web"]}) for n in range(NAMED + 5)]
    kept = Release(2, "f" * 32, "h1", "e1", 50, ("db",), "run-1")
    found = told(answer(RECEIVED), *rows, left=(*(release() for _ in range(NAMED)), kept, release("e0")))
    states = [each["state"] for each in found.releases]

    assert (found.cleared, found.left, found.unwatched) == (NAMED + 5, NAMED + 1, 1)
    assert states == ["cleared"] * NAMED + ["left"] * NAMED + ["unwatched"]
    assert found.releases[0] == {
        "audit_id": "pva_" + "0" * 32, "scopes": ["web"], "run_ref": None, "state": "cleared", "at": 8, "n": 30
    }  # fmt: skip
    alone = told(left=(kept,)).releases
    assert [(each["scopes"], each["run_ref"], each["state"]) for each in alone] == [(["db"], "run-1", "left")]
