"""A long outage of central: what waits on the host is bounded, nothing is released beyond it, and every loss is told."""

from __future__ import annotations

import subprocess

from prism_vault_agent.audit.batch import LARGEST_WAITING
from tests.agent.asking import ask, exec_request
from tests.support.stack import stack
from tests.support.waiting import wait_until

# A denial whose row is as large as a caller can make it: it fills the journal with the fewest requests.
LARGE = exec_request(*[f"{number:0>200}" for number in range(64)])


def test_f30_an_outage_that_fills_the_journal_releases_nothing_and_loses_no_end():
    """A caller that floods a host whose central is away fills what is set aside, no more; ends are kept, the rest is counted."""
    with stack(central_lines='timeout = "1s"') as made:
        agent = made.agent
        run = agent.spawn("--scope", "web", "--", "/bin/sh", "-c", "echo up; read -r line", stdin=subprocess.PIPE)
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        made.central.stop()
        asked = 0
        try:
            while not (lost := agent.status()["central"]["lost"]):
                for _ in range(50):
                    assert ask(agent.socket, LARGE).exit == 77
                asked += 50
            made.fails(75, "too many audit records are waiting for central")
            assert not agent.status()["ready"]
            run.communicate(timeout=30)
            wait_until(lambda: agent.status()["runs"] == [])
            assert asked - lost <= agent.status()["central"]["queued"]
            assert agent.stop() == 0
            state = agent.directory / "state"
            assert sum(file.stat().st_size for file in state.iterdir() if file.is_file()) < 2 * LARGEST_WAITING
        finally:
            made.central.start()
        agent.start()
        fields = [event["fields"] for event in made.settle()]
        assert [row["reason"] for row in fields if row["kind"] == "cleared"] == ["exited"]
        assert sum(row["kind"] == "denied" for row in fields) == asked - lost
        told = [row["message"] for row in fields if row.get("reason") == "records_lost"]
        assert [message.split()[0] for message in told] == [str(lost)]
        assert agent.log.count('"audit.full"') == 1
        made.works()
