"""Several scopes in one run: one decision, one reservation, one reading, one release; all or nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.asking import rows
from tests.agent.started import child_environment, ours, refused, started
from tests.support.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from tests.support.central import CentralProcess

CANARY = "canary-e1c93f60"
UID = os.getuid()


@pytest.fixture(scope="module")
def proxy(openbao):
    """What stands between the agent and OpenBao and notes every request."""
    with FaultProxy(openbao.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def agent(place, openbao, central, proxy):
    """An agent with scopes that go together, and some that do not."""
    openbao.kv_put("secret/multi/web", {"url": f"{CANARY}-url", "SHARED": "one"})
    openbao.kv_put("secret/multi/db", {"user": "u", "password": f"{CANARY}-password"})
    openbao.kv_put("secret/multi/other", {"SHARED": "two"})
    openbao.kv_put("secret/multi/same", {"SHARED": "one"})
    scopes: dict[str, dict[str, Any]] = {
        "web": {"env": {"URL": "vault://secret/multi/web#url"}},
        "db": {"env": {"DB_USER": "vault://secret/multi/db#user", "DB_PASSWORD": "vault://secret/multi/db#password"}},
        "again": {"env": {"URL": "vault://secret/multi/web#url", "USER_OF_DB": "vault://secret/multi/db#user"}},
        "twin": {"env": {"URL": "vault://secret/multi/db#user"}},
        "missing": {"env": {"GONE": "vault://secret/multi/missing#x"}},
        "no_key": {"env": {"GONE": "vault://secret/multi/web#nope"}},
        "all_of_web": {"env_from": ["vault://secret/multi/web"]},
        "all_of_other": {"env_from": ["vault://secret/multi/other"]},
        "all_of_same": {"env_from": ["vault://secret/multi/same"]},
        "project": {"env": {"P": "vault://secret/multi/db#user"}, "project": "else"},
        "environment": {"env": {"E": "vault://secret/multi/db#user"}, "environment": "lan"},
        "two_purposes": {"env": {"T": "vault://secret/multi/db#user"}, "purposes": ["test", "deploy"]},
        "other_purpose": {"env": {"O": "vault://secret/multi/db#user"}, "purposes": ["deploy"]},
        "not_mine": {"env": {"N": "vault://secret/multi/db#user"}, "callers": [{"kind": "service", "uid": UID + 1}]},
        "of_agents": {"env": {"G": "vault://secret/multi/db#user"}, "callers": [{"kind": "agent", "uid": UID}]},
        "wins": {"env": {"W": "vault://secret/multi/db#user"}, "on_collision": "scope"},
        "yields": {"env": {"Y": "vault://secret/multi/db#user"}, "on_collision": "caller"},
        "paths": {"allow_paths": ["secret/multi/*"]},
    }
    with started(place, openbao, central, scopes, vault_address=proxy.address) as agent:
        yield agent


def scoped(*names: str) -> list[str]:
    """Return the words that name these scopes."""
    return [word for name in names for word in ("--scope", name)]


def reserved(central: CentralProcess) -> list[dict[str, Any]]:
    """Return the newest reservation's rows."""
    last = [event for event in central.events() if event["kind"] == "reserved"][-1]
    return rows(central, last["fields"]["reservation"])


@pytest.mark.parametrize("names", [("web", "db", "again"), ("again", "db", "web"), ("web", "db", "again", "web")])
def test_one_reservation_one_reading_one_release(agent, central, proxy, names):
    """Scopes together are one reservation and one success that name them all, and each path is read once for all of them."""
    before = len(proxy.seen)
    found = ours(child_environment(agent, *names), agent)
    assert found == {
        b"URL": f"{CANARY}-url".encode(),
        b"DB_USER": b"u",
        b"USER_OF_DB": b"u",
        b"DB_PASSWORD": f"{CANARY}-password".encode(),
    }
    reads = sorted(seen.path.rpartition("/")[2] for seen in proxy.seen[before:] if "/data/" in seen.path)
    assert reads == ["db", "web"]
    announced, success = reserved(central)[:2]
    assert announced["fields"]["scopes"] == success["fields"]["scopes"] == list(dict.fromkeys(names))
    assert sorted(success["fields"]["names"]) == ["DB_PASSWORD", "DB_USER", "URL", "USER_OF_DB"]
    assert [(lease["path"], lease["version"]) for lease in success["fields"]["leases"]] in (
        [("secret/multi/web", 1), ("secret/multi/db", 1)],
        [("secret/multi/db", 1), ("secret/multi/web", 1)],
    )


@pytest.mark.parametrize(("scope", "reason"), [("missing", "no_such_path"), ("no_key", "no_such_key")])
def test_one_missing_secret_stops_all(agent, scope, reason):
    """One secret that is missing ends the run of all scopes: no command, one failure row, no value of the others."""
    line, found = refused(agent, *scoped("web", "db", scope), status=66, kinds=["reserved", "failure"], hidden=[CANARY])
    assert found[1]["fields"]["reason"] == reason
    assert f"scope web,db,{scope}: " in line and "vault://secret/multi/" in line


def test_one_name_for_two_secrets_is_denied(agent, proxy):
    """A name that two scopes bind to different secrets is denied before anything is read, by the name."""
    before = len(proxy.seen)
    line, found = refused(agent, *scoped("web", "twin"), status=77, kinds=["denied"])
    assert "URL is bound to two different secrets" in line and found[0]["fields"]["reason"] == "duplicate_name"
    own = {"URL": "vault://secret/multi/db#user"}
    line, found = refused(agent, *scoped("web", "paths"), status=77, kinds=["denied"], env=own)
    assert found[0]["fields"]["reason"] == "duplicate_name"
    assert not [seen for seen in proxy.seen[before:] if "/data/" in seen.path]


def test_the_same_reference_of_the_callers_own_is_no_second_binding(agent):
    """A reference of the caller's own that says what a scope says already changes nothing."""
    own = {"URL": "vault://secret/multi/web#url"}
    assert ours(child_environment(agent, "web", "paths", env=own), agent) == {b"URL": f"{CANARY}-url".encode()}


def test_whole_secrets_that_disagree(agent):
    """Keys of two whole secrets under one name are refused where their values differ, and fine where they do not."""
    line, found = refused(agent, *scoped("all_of_web", "all_of_other"), status=78, kinds=["reserved", "failure"], hidden=[CANARY])
    assert "SHARED has two different values" in line and found[1]["fields"]["reason"] == "collision"
    together = ours(child_environment(agent, "all_of_web", "all_of_same"), agent)
    assert together == {b"url": f"{CANARY}-url".encode(), b"SHARED": b"one"}


@pytest.mark.parametrize("other", ["project", "environment"])
def test_different_projects_or_environments_are_denied(agent, other):
    """Scopes of different projects or environments cannot be combined."""
    line, found = refused(agent, *scoped("web", other), status=77, kinds=["denied"])
    assert "different projects or environments" in line and found[0]["fields"]["reason"] == "mixed_projects"


def test_every_scope_must_admit_the_caller(agent):
    """One scope that does not admit the caller, or that does not exist, denies all of them."""
    line, found = refused(agent, *scoped("web", "not_mine"), status=77, kinds=["denied"])
    assert "scope not_mine" in line and found[0]["fields"]["reason"] == "caller"
    line, found = refused(agent, *scoped("web", "nowhere"), status=77, kinds=["denied"])
    assert "there is no scope nowhere" in line and found[0]["fields"]["reason"] == "unknown_scope"


def test_the_purpose_must_be_one_that_all_have(agent):
    """One purpose holds for all scopes: it is asked for where they have several, and denied where one does not have it."""
    line, _ = refused(agent, *scoped("web", "two_purposes"), status=77, kinds=["denied"])
    assert "name one with --purpose: test, deploy" in line
    assert child_environment(agent, "web", "two_purposes", words=("--purpose", "test"))[b"T"] == b"u"
    line, found = refused(agent, *scoped("web", "two_purposes"), "--purpose", "deploy", status=77, kinds=["denied"])
    assert "scope web" in line and found[0]["fields"]["reason"] == "purpose_not_allowed"
    line, found = refused(agent, *scoped("web", "other_purpose"), status=77, kinds=["denied"])
    assert found[0]["fields"]["reason"] == "purpose_required"


def test_the_strictest_scope_decides_about_the_environment(agent):
    """Kind ``agent`` of one scope makes the whole run pristine and ask for its run; different collision rules mean ``error``."""
    line, found = refused(agent, *scoped("web", "of_agents"), status=77, kinds=["denied"])
    assert "--run-ref" in line and found[0]["fields"]["reason"] == "run_ref_required"
    together = child_environment(agent, "web", "of_agents", words=("--run-ref", "r1"), env={"MINE": "x"})
    assert b"MINE" not in together and together[b"G"] == b"u"
    assert child_environment(agent, "yields", env={"Y": "mine"})[b"Y"] == b"mine"
    assert child_environment(agent, "wins", env={"W": "mine"})[b"W"] == b"u"
    with pytest.raises(AssertionError, match="Y is already set"):
        child_environment(agent, "wins", "yields", env={"Y": "mine"})
