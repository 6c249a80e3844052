"""An agent between a real OpenBao and a real central, with a fault proxy on either side of it."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.support import history
from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.central import CentralProcess
from tests.support.certificates import Tls
from tests.support.fault_proxy import FaultProxy, Seen
from tests.support.openbao import OpenBao
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Stack:
    """The parts. ``canary`` is the value of CANARY in scope ``web``; it is another one in each stack."""

    directory: Path
    openbao: OpenBao
    central: CentralProcess
    to_openbao: FaultProxy
    to_central: FaultProxy
    agent: AgentProcess
    canary: str = field(default_factory=lambda: secrets.token_hex(16))

    def exec(self, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command that prints CANARY under exec."""
        return self.agent.exec("--scope", "web", *options, "--", "/bin/sh", "-c", 'echo "ran $CANARY"', **more)

    def direct(self, *words: str, env: dict[str, str] | None = None, scope: str = "web") -> subprocess.CompletedProcess[str]:
        """Run ``exec --direct WORDS`` with the agent's configuration, for one who has no agent."""
        environment = self.agent.environment(env) | {"PRISM_VAULT_SOCKET": "/nonexistent"}
        options = ["--direct", "--config", str(self.agent.config), "--scope", scope]
        return subprocess.run(
            [LAUNCHER, "exec", *options, *words], env=environment, text=True, capture_output=True, check=False, timeout=60
        )

    def works(self) -> None:
        """Fail unless an exec gives the value now."""
        done = self.exec()
        assert (done.returncode, done.stdout) == (0, f"ran {self.canary}\n"), (done, self.agent.log[-3000:])

    def fails(self, status: int, *told: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Fail unless an exec ends with ``status``, runs nothing, shows no value and tells all of ``told`` in one line."""
        done = self.exec(*options)
        assert done.returncode == status, (done, self.agent.log[-3000:])
        assert done.stdout == ""
        assert done.stderr.startswith("prism-vault: ")
        assert done.stderr.count("\n") == 1
        assert self.canary not in done.stderr
        for each in told:
            assert each in done.stderr
        return done

    @property
    def reads(self) -> int:
        """How often a secret's value was asked for at OpenBao."""
        return self.to_openbao.count(is_read)

    def rows(self, after: int = 0) -> list[dict[str, Any]]:
        """Return the fields of all events of renders behind the first ``after`` events."""
        found = [event["fields"] for event in self.central.events()[after:]]
        return [fields for fields in found if fields["kind"] not in history.ALONE]

    @contextlib.contextmanager
    def second(self, **options: Any) -> Iterator[AgentProcess]:
        """Run one more agent, with the scope ``web`` and a directory of its own, whether it gets ready or not.

        Options are those of ``AgentProcess``.
        """
        directory = Path(tempfile.mkdtemp(dir=self.directory))
        with contextlib.ExitStack() as ending:
            options = {"central": self.central, "role": directory.name, **options}
            agent = AgentProcess(directory, self.openbao, **options)
            ending.callback(agent.kill)
            agent.scope("web", {"CANARY": "vault://secret/web#canary"})
            yield agent.start(ready=False)
            agent.stop()
            assert self.canary not in agent.log
            assert "Traceback" not in agent.log

    def settle(self) -> list[dict[str, Any]]:
        """Wait until central has all that the agent has to tell, and no reservation is open; check the whole log; return it."""
        wait_until(lambda: self.agent.process is None or self.agent.status()["central"]["queued"] == 0, 30)
        wait_until(lambda: not history.open_reservations(self.central.events()), 30)
        events = self.central.events()
        history.check(events)
        assert self.canary not in "".join(event["body"] for event in events)
        return events

    def verify(self) -> None:
        """Fail unless ``prism-vault audit verify`` finds the log whole; one without events cannot be verified."""
        if not self.central.events():
            return
        environment = {"PRISM_VAULT_CENTRAL_URL": self.central.url, "PRISM_VAULT_OPERATOR_TOKEN": self.central.operator_token}
        done = subprocess.run(
            [LAUNCHER, "audit", "verify"], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done


@contextlib.contextmanager
def stack(
    *, durable: bool = False, reservation_ttl: str = "2s", vault: str = "", central_lines: str = "", **options: Any
) -> Iterator[Stack]:
    """Run a stack, with the scope ``web``; at its end check the log, and that no value was logged.

    ``durable`` is an OpenBao that has its secrets after a restart, which the agent reaches through the proxy all the same.
    """
    directory = Path(tempfile.mkdtemp(prefix="pv-", dir="/tmp"))
    directory.chmod(0o711)  # an agent of another user has its part of it
    try:
        for name in ("bao", "central", "agent"):
            (directory / name).mkdir(mode=0o700)
        with (
            OpenBao(directory / "bao", tls=Tls(directory / "pki") if durable else None) as openbao,
            CentralProcess(directory / "central", reservation_ttl=reservation_ttl) as central,
            FaultProxy(openbao.port, ca_file=openbao.tls.ca_file if openbao.tls else None) as to_openbao,
            FaultProxy(urlsplit(central.url).port or 0) as to_central,
        ):
            agent = AgentProcess(
                directory / "agent",
                openbao,
                central,
                vault_address=to_openbao.address,
                central_url=to_central.address,
                vault=vault,
                central_lines=central_lines,
                **options,
            )
            made = Stack(directory, openbao, central, to_openbao, to_central, agent)
            openbao.kv_put("secret/web", {"canary": made.canary})
            agent.scope("web", {"CANARY": "vault://secret/web#canary"})
            try:
                with agent:
                    yield made
                    made.settle()
                    made.verify()
                assert made.canary not in agent.log
                assert "Traceback" not in agent.log, agent.log[agent.log.index("Traceback") - 500 :][:3000]
            finally:
                agent.kill()
    finally:
        shutil.rmtree(directory)


def is_read(seen: Seen) -> bool:
    """Tell whether a request asks OpenBao for a value."""
    return seen.method == "GET" and seen.path.startswith("/v1/secret/data/")


def is_login(seen: Seen) -> bool:
    """Tell whether a request is an AppRole login."""
    return seen.path == "/v1/auth/approle/login"
