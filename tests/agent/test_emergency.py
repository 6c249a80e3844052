"""The kill switch over many hosts: what they gave out is gone at once; who cannot be reached is shown until he answers."""

from __future__ import annotations

import os
import subprocess
import threading
from functools import partial

import pytest

from prism_vault_agent.cli.central_evidence import NAMED_HOSTS
from tests.bench.stand import percentile
from tests.support.agent import LAUNCHER
from tests.support.fault_proxy import Fault
from tests.support.fleet import FILES, Vanishing, fleet
from tests.support.signalled import evidence
from tests.support.soak import count
from tests.support.waiting import wait_until

HOSTS = count(8, 200)
PROCESSES = 2


@pytest.mark.timeout(1800)
def test_everything_is_gone_everywhere():
    """An emergency revocation takes every file and process of every host at once, with the provider sealed.

    Hosts that are cut off are told as silent and clear when they return; only then is the order complete.
    """
    with fleet(HOSTS, cut_off=3) as hosts:
        hosts.give_out(PROCESSES)
        hosts.openbao.seal()
        hosts.proxy.decide = lambda _seen: Fault("reset")
        hosts.proxy.cut()
        reached = {host.name for host in hosts.hosts} - {host.name for host in hosts.cut_off}
        for host in hosts.cut_off:
            wait_until(host.alone)

        with Vanishing(hosts.hosts) as vanishing:
            revoking = Revoking(hosts.central.url, hosts.central.operator_token)
            wait_until(lambda: vanishing.whole >= reached, 120)
            number = wait_until(lambda: revoking.number)
            for host in hosts.cut_off:
                wait_until(partial(revoking.told, f"{host.name} silent" if HOSTS > NAMED_HOSTS else f"{host.name}: silent"), 120)
            wait_until(lambda: evidence(hosts.central, number)["states"] == {"cleared": len(reached), "silent": 3}, 120)
            assert vanishing.whole == reached
            for host in hosts.cut_off:
                assert len(host.agent.status()["runs"]) == PROCESSES
                assert host.there() == len(FILES)
            found = evidence(hosts.central, number)
            assert {each["host"] for each in found["hosts"] if each["state"] == "silent"} == {host.name for host in hosts.cut_off}
            assert not found["complete"]

            hosts.proxy.decide = lambda _seen: None
            assert revoking.ended(180) == 0
            wait_until(lambda: len(vanishing.whole) == HOSTS)

        found = evidence(hosts.central, number)
        assert found["complete"] and found["states"] == {"cleared": HOSTS}
        made = found["made_at"] / 1000
        # A generation of files and each process are a release of their own, and each has its row, on the log and in the table.
        assert [each["cleared"] for each in found["hosts"]] == [PROCESSES + 1] * HOSTS
        releases = {release["audit_id"]: release for each in found["hosts"] for release in each["releases"]}
        assert len(releases) == (PROCESSES + 1) * HOSTS
        assert all(release["state"] == "cleared" and release["at"] / 1000 >= made for release in releases.values())
        assert {word for word in revoking.table.split() if word.startswith("pva_")} == set(releases)
        assert all(revoking.table.count(host.name) == PROCESSES + 2 for host in hosts.hosts)
        took = [vanishing.gone[name] - made for name in reached]
        done = [each["done_at"] / 1000 - made for each in found["hosts"] if each["host"] in reached]
        print(
            f"{HOSTS} hosts: gone after {percentile(took, 0.5):.2f} s in the median, {percentile(took, 0.99):.2f} s p99, "
            f"{max(took):.2f} s at most; on the log after {percentile(done, 0.99):.2f} s p99"
        )


class Revoking:
    """``prism-vault central revoke --everything --emergency`` as an operator runs it, with what it says while it waits."""

    def __init__(self, url: str, token: str) -> None:
        given = {"PRISM_VAULT_CENTRAL_URL": url, "PRISM_VAULT_OPERATOR_TOKEN": token, "PATH": os.environ["PATH"]}
        words = [LAUNCHER, "central", "revoke", "--everything", "--emergency", "--reason", "drill", "--timeout", "300"]
        self._process = subprocess.Popen(words, env=given, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.table = ""
        self._lines: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    @property
    def number(self) -> int:
        """The order's number, 0 until it is told."""
        return int(self._lines[0].split()[1]) if self._lines else 0

    def told(self, words: str) -> str:
        """Return the line that has these words; empty while there is none."""
        return next((line for line in self._lines if words in line), "")

    def ended(self, timeout: float) -> int:
        """Return the exit status; what is said at the end is ``table``."""
        assert self._process.stdout is not None
        with self._process.stdout as said:
            self.table = said.read()
        self._reading.join()
        return self._process.wait(timeout)

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            self._lines.extend(lines)
