"""Who gets what: each caller only what its kernel-verified identity allows, and each denial on the log with its reason."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.asking import Told, answer, ask, exec_request, last_audit_id, pid_of, rows
from tests.agent.puppet import Puppet
from tests.support.agent import AgentProcess
from tests.support.as_user import NOBODY, in_child
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.central import CentralProcess

ME = os.geteuid()
BINDING = {"URL": "vault://secret/web#url"}
CANARY = b"canary-5b1d77e0"
PATIENT = 'timeout = "60s"'


@pytest.fixture(scope="module")
def agent(place, openbao, central) -> Iterator[AgentProcess]:
    """An agent that everybody may connect to, with scopes for all sorts of callers."""
    directory = place / "attested"
    directory.mkdir()
    running = AgentProcess(directory, openbao, central, agent='socket_mode = "0666"', central_lines=PATIENT)
    for name, caller in {
        "mine": {"kind": "operator", "uid": ME},
        "nobodys": {"kind": "service", "user": "nobody"},
        "run": {"kind": "agent", "uid": ME},
        "job": {"kind": "worker", "uid": ME},
        "python": {"kind": "operator", "executable": os.path.realpath(sys.executable)},
        "shell": {"kind": "operator", "uid": ME, "executable": "/bin/sh"},
        "group": {"kind": "operator", "gid": 4242},
        "unit": {"kind": "service", "uid": ME, "unit": "prism-vault-no-such.service"},
        "container": {"kind": "service", "uid": ME, "container": "0123456789ab"},
    }.items():
        running.scope(name, BINDING, callers=[caller])
    both = [{"kind": "operator", "uid": ME}, {"kind": "agent", "uid": ME}]
    running.scope("both", BINDING, callers=both)
    try:
        yield running.start()
    finally:
        running.kill()


def denial(central: CentralProcess, told: Told) -> dict[str, Any]:
    """Return the one row of a denied exec, which the caller was told of in words and with its audit id."""
    assert (told.status, told.exit) == (403, 77), told
    assert CANARY not in told.body
    line = told.body.decode()
    found = wait_until(lambda: rows(central, last_audit_id(line)), 30)
    assert [row["kind"] for row in found] == ["denied"]
    fields: dict[str, Any] = found[0]["fields"]
    assert fields["message"].replace("\\\\", "\\") in line
    return fields


def released(central: CentralProcess, told: Told) -> dict[str, Any]:
    """Return the RESERVED row of an exec that was served."""
    assert told.status == 200, told
    assert CANARY in told.body
    newest = [event for event in central.events(kind="reserved") if event["fields"]["caller"]["pid"]]
    fields: dict[str, Any] = newest[-1]["fields"]
    return fields


def as_user(agent: AgentProcess, request: bytes, uid: int | None, groups: Sequence[int] = ()) -> Told:
    """Return what a process of this user is answered."""
    return in_child(lambda: ask(agent.socket, request), uid, groups=groups)


def test_the_log_names_the_caller_as_the_kernel_does(agent, central):
    """The RESERVED row holds pid, uid, gid and executable of the very process that asked, and how sure that is."""
    pid, told = in_child(lambda: (os.getpid(), ask(agent.socket, exec_request("mine"))), uid=None)
    caller = released(central, told)["caller"]
    assert caller == {
        "pid": pid,
        "uid": ME,
        "gid": os.getegid(),
        "executable": os.readlink("/proc/self/exe"),
        "unit": caller["unit"],
        "container": caller["container"],
        "guarantee": "pidfd",
        "kind": "operator",
    }


@pytest.mark.root
def test_t18_scopes_are_for_the_users_that_they_name(agent, central):
    """Each user gets the scope that names it and no other; the denial names the user, the rule and how to satisfy it."""
    assert released(central, as_user(agent, exec_request("nobodys"), NOBODY))["caller"]["uid"] == NOBODY
    assert released(central, as_user(agent, exec_request("mine"), None))["caller"]["uid"] == 0
    for scope, uid in (("mine", NOBODY), ("nobodys", None)):
        told = as_user(agent, exec_request(scope), uid)
        fields = denial(central, told)
        assert (fields["reason"], fields["scopes"], fields["caller"]["uid"]) == ("caller", [scope], uid or 0)
        assert f"scope {scope}: uid {uid or 0} running ".encode() in told.body
        assert b"matches none of its callers; add a matching entry to the scope's callers" in told.body


@pytest.mark.root
def test_a_scope_beside_an_allowed_one_is_not_allowed_by_it(agent, central):
    """Asking for an allowed and a forbidden scope together gives neither."""
    assert denial(central, as_user(agent, exec_request("nobodys", "mine"), NOBODY))["reason"] == "caller"


@pytest.mark.root
def test_groups_count_with_the_further_ones(agent, central):
    """A scope for a group admits whoever has that group, also as a further one, and nobody else."""
    assert released(central, as_user(agent, exec_request("group"), NOBODY, [7, 4242]))["caller"]["uid"] == NOBODY
    assert denial(central, as_user(agent, exec_request("group"), NOBODY, [7]))["reason"] == "caller"


def test_executable_unit_and_container_must_match(agent, central):
    """A scope for an executable, a unit or a container does not admit a caller that is another or in another."""
    assert released(central, as_user(agent, exec_request("python"), None))["scopes"] == ["python"]
    for scope in ("shell", "unit", "container"):
        fields = denial(central, as_user(agent, exec_request(scope), None))
        assert (fields["reason"], fields["scopes"]) == ("caller", [scope])


@pytest.mark.parametrize(("scope", "lacking", "option"), [("run", "run_ref", "--run-ref"), ("job", "job_id", "--job-id")])
def test_f61_kinds_have_their_references(agent, central, scope, lacking, option):
    """F61: a caller of kind agent must name its run and one of kind worker its job; the log has it, and the denial says how."""
    told = ask(agent.socket, exec_request(scope))
    assert denial(central, told)["reason"] == f"{lacking}_required"
    assert f"must say {option}; add {option}".encode() in told.body
    fields = released(central, as_user(agent, exec_request(scope, **{lacking: "r-1"}), None))
    assert (fields[lacking], fields["caller"]["kind"]) == ("r-1", "agent" if scope == "run" else "worker")


def test_a_caller_of_several_kinds_is_the_first_that_it_can_be(agent, central):
    """Where several callers of a scope match, the first whose requirements are met says the kind."""
    assert released(central, as_user(agent, exec_request("both"), None))["caller"]["kind"] == "operator"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"purpose": "other"}, "purpose_not_allowed"),
        ({"purpose": "a\nb"}, "malformed_text"),
        ({"run_ref": "r" * 10_000}, "malformed_text"),
        ({"run_ref": "\x1b[31mred"}, "malformed_text"),
        ({"job_id": "j\u2028"}, "malformed_text"),
    ],
)
def test_f61_what_is_said_must_be_allowed_and_clean(agent, central, fields, reason):
    """F61: a purpose off the list, an overlong reference or a control character is denied; the row has it escaped and cut."""
    row = denial(central, ask(agent.socket, exec_request("mine", **fields)))
    assert row["reason"] == reason
    said = row[next(iter(fields))]
    assert said.isascii()
    assert said.isprintable()
    assert len(said) <= 203


@pytest.mark.parametrize("name", ["unknown", "Mine", "mine ", "../mine", "\x1b[31m", "s" * 20_000])
def test_what_no_scope_allows_is_denied(agent, central, name):
    """By default all is denied: a scope that does not exist, under whatever name, is a denial on the log."""
    assert denial(central, ask(agent.socket, exec_request(name)))["reason"] == "unknown_scope"


@pytest.mark.root
@pytest.mark.parametrize("sender", [None, NOBODY])
def test_f85_a_connection_of_one_who_has_ended(agent, central, sender):
    """F85: a request on a connection whose maker has ended is denied and recorded, whoever sends it."""
    with Puppet(agent.socket) as puppet:
        puppet.end()

        def send() -> Told:
            puppet.connection.sendall(exec_request("mine"))
            return answer(puppet.connection)

        fields = denial(central, in_child(send, sender))
    assert (fields["reason"], fields["caller"]["pid"], fields["caller"]["uid"]) == ("peer_gone", puppet.pid, 0)


def test_a_denial_can_be_looked_up_before_the_answer(agent, central):
    """A dry run and a plan leave no row, and tell of the same rule."""
    before = len(central.events())
    told = ask(agent.socket, exec_request("run", dry_run=1))
    assert (told.exit, b"--run-ref" in told.body) == (77, True)
    body = json.dumps({"scopes": ["run"]}).encode()
    head = f"POST /v1/plan HTTP/1.1\r\nHost: a\r\nX-Prism-Vault: 1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    assert json.loads(ask(agent.socket, head + body).body)["rule"] == "run_ref_required"
    assert len(central.events()) == before
    assert agent.status()["pid"] == pid_of(agent)
