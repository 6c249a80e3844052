"""What a host can do to its agent: it is cloned, shares its name, ends the agent for its memory, or starts anew."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.audit.event import Chain, digest
from prism_vault_agent.audit.installation import FILE
from prism_vault_agent.central.log.holding import Sender
from tests.agent.asking import command_line, pid_of
from tests.central.host import Host
from tests.support.fault_proxy import Fault, always
from tests.support.files import Filed, filed
from tests.support.own_agent import logged
from tests.support.signalled import status_of
from tests.support.stack import is_read
from tests.support.stream import Following
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agent import AgentProcess

MEMORY = Path("/sys/fs/cgroup/memory")
SLEEP = ("--", "sleep", "1000")


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack whose agent has files, too, and whose reservations are given up soon."""
    with filed() as running:
        yield running


def test_f97_an_agent_whose_clone_went_on_in_its_name_releases_nothing_and_says_so(made):
    """Where a clone of the machine has gone on with its chain the agent is refused, tells it loudly, and releases nothing more.

    A restart begins a chain of its own, and so does the clone's: from then on the log has both, each whole.
    """
    agent, central = made.stack.agent, made.stack.central
    made.stack.works()
    last = [each for each in made.stack.settle() if each["fields"].get("host") == "server1"][-1]
    clone = Host(central)
    fields = last["fields"]
    clone.chain = Chain("server1", fields["epoch"], fields["seq"], digest(last["body"].encode()))
    assert clone.send(clone.make("denied")).status_code == 201
    before = made.stack.reads
    made.stack.fails(75)
    assert made.stack.reads == before
    wait_until(lambda: '"audit.chain_broken"' in agent.log)
    made.stack.fails(75)
    agent.stop()
    agent.start()
    made.stack.works()
    assert clone.send(clone.make("denied")).status_code == 201
    made.stack.verify()


def test_f98_a_second_agent_of_one_name_is_refused_until_the_first_is_gone(made):
    """It reads and releases nothing, says why and what to do, and is told to the operator; when the first ends it is let in."""
    agent, central = made.stack.agent, made.stack.central
    made.stack.works()
    before = made.stack.reads
    with made.stack.second(host="server1") as other:
        wait_until(lambda: other.status()["central"]["refused"])
        for _ in range(2):
            done = other.exec("--scope", "web", "--", "true")
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (75, "", 1)
            for told in ("another installation", "server1", "its own name", "central token create"):
                assert told in done.stderr
        direct = {"PRISM_VAULT_SOCKET": "/nonexistent"}
        done = other.exec("--direct", "--config", str(other.config), "--scope", "web", "--", "true", env=direct)
        assert (done.returncode, "another installation" in done.stderr) == (75, True)
        assert not other.status()["ready"] and agent.status()["ready"] and not agent.status()["central"]["refused"]
        assert made.stack.reads == before
        made.stack.works()
        assert made.stack.direct("true").returncode == 0
        (line,) = logged(other, "name.refused")
        assert (line["level"], line["reason"]) == ("critical", "name_held")
        rows = [each["fields"] for each in central.events(kind="admin", host="server1")]
        assert [row["message"].endswith("server1: name_held") for row in rows if row["reason"] == "refused"] == [True]
        agent.stop()
        wait_until(lambda: other.status()["ready"], 60)
        assert other.exec("--scope", "web", "--", "true").returncode == 0
        agent.start(ready=False)
        made.stack.fails(75, "another installation", "server1")
    wait_until(lambda: agent.status()["ready"], 60)
    made.stack.works()
    made.stack.verify()


def test_f98_a_restart_is_never_refused_while_the_stream_of_the_agent_before_seems_open(made):
    """Neither after SIGKILL nor after an upgrade does an agent wait for what central still takes for its predecessor."""
    agent = made.stack.agent
    before = len(logged(agent, "name.refused"))
    for end in (agent.kill, agent.stop):
        made.stack.works()
        epoch = made.stack.settle()[-1]["fields"]["epoch"]
        sender = Sender("server1", epoch, agent.status()["central"]["installation"])
        with Following(made.stack.central, made.stack.central.agent_tokens["server1"], sender=sender) as half_open:
            end()
            agent.start()
            made.stack.works()
            assert half_open.end == "" and len(logged(agent, "name.refused")) == before


def test_f97_the_later_start_of_an_agent_and_its_copy_has_the_name(made):
    """Where a machine was copied with its state, the one that starts later releases; the other one says so."""
    agent = made.stack.agent
    made.stack.works()
    with made.stack.second(host="server1") as copy:
        copy.stop()
        shutil.copy(agent.directory / "state" / FILE, copy.directory / "state" / FILE)
        copy.start()
        assert copy.exec("--scope", "web", "--", "true").returncode == 0
        wait_until(lambda: made.stack.exec().returncode == 75)
        made.stack.fails(75, "a copy of it", "installation")
        assert copy.exec("--scope", "web", "--", "true").returncode == 0
    agent.stop()
    agent.start()
    made.stack.works()


@pytest.mark.namespaces
def test_f99_an_agent_that_the_kernel_ends_for_its_memory_is_followed_by_one_that_knows_its_runs_and_files(made):
    """The out-of-memory killer ends the agent: runs and files stay, and the next one adopts them and takes them back."""
    agent = made.stack.agent
    name = made.scope("remembered")
    made.render(name)
    child = agent.spawn("--scope", name, *SLEEP)
    wait_until(lambda: "prism-vault" not in command_line(child.pid))
    wait_until(lambda: child.pid in [run["pid"] for run in agent.status()["runs"]])
    agent.stop()
    with little_memory() as group:
        agent.before = ["/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
        agent.start()
        agent.before = []
        Path(f"/proc/{pid_of(agent)}/oom_score_adj").write_text("1000")
        used = int((group / "memory.usage_in_bytes").read_text())
        (group / "memory.limit_in_bytes").write_text(str(used + 65536))
        wait_until(lambda: agent.exec("--scope", "web", "--timeout", "1s", "--", "true").returncode and ended(agent), 60)
    assert child.poll() is None and made.file(name) == made.whole(name, 1)
    agent.start()
    assert child.pid in [run["pid"] for run in agent.status()["runs"]] and made.told(name)["generation"] == 1
    made.stack.openbao.must("DELETE", f"secret/data/{name}")
    assert status_of(child) == -signal.SIGTERM
    wait_until(lambda: made.file(name) is None)


@pytest.mark.namespaces
def test_f102_a_host_that_goes_down_in_the_middle_of_a_render_leaves_an_abandoned_row_and_no_file(made):
    """All ends at once between reservation and read: central gives that up in its time, and no file is there afterwards."""
    agent = made.stack.agent
    name = made.scope("interrupted")
    made.render(name)
    with made.stack.to_openbao.failing(always(Fault("hang"), is_read)):
        child = agent.spawn("--scope", name, *SLEEP)
        (reserved,) = wait_until(lambda: [row for row in made.stack.rows() if row["kind"] == "reserved" and open_(made, row)])
        agent.kill()  # first: it could record that its caller is gone, or that the provider is silent
        child.kill()
        status_of(child)
    subprocess.run(["umount", str(made.top)], check=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for record in ("runs", "leases"):
        with contextlib.suppress(FileNotFoundError):
            path = agent.directory / "state" / record
            path.write_text(path.read_text().replace(boot, boot[::-1]))
    wait_until(lambda: not open_(made, reserved), 60)
    ends = [row["kind"] for row in made.rows(reserved["reservation"])]
    assert ends == ["reserved", "abandoned"]
    agent.start()
    assert made.file(name) is None and agent.status()["files"] == []


def open_(made: Filed, row: dict[str, object]) -> bool:
    """Tell whether a reservation has no end yet."""
    return len(made.rows(str(row["reservation"]))) == 1


def ended(agent: AgentProcess) -> bool:
    """Tell whether the kernel has killed the agent."""
    return agent.process is not None and agent.process.poll() == -signal.SIGKILL


@contextlib.contextmanager
def little_memory() -> Iterator[Path]:
    """Give a control group of version 1 whose memory can be bounded."""
    group = MEMORY / f"prism-vault-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        wait_until(lambda: (group / "cgroup.procs").read_text() == "", 60)
        group.rmdir()
