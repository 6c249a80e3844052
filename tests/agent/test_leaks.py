"""No secret value in any log, error, answer, argument, database, state or core file, whatever happens to it on its way (G4)."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.asking import children, eventually, exec_request, pid_of
from tests.agent.started import PATIENT, Done, run, started
from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.central import CentralProcess
from tests.support.fault_proxy import Fault, FaultProxy, always, times
from tests.support.leaks import Canary, command_lines, files, leaks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.openbao import OpenBao

UID = os.getuid()
LARGE = 1_000_000
# Asks, says the first byte of the answer, and reads no more.
CALLER = """
import os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    connection.sendall(bytes.fromhex(sys.argv[2]))
    os.write(1, connection.recv(1))
    signal.pause()
"""


@dataclass(repr=False)
class Site:
    """Everything of ours that runs, between proxies that can fail, and what it has said so far."""

    directory: Path
    openbao: OpenBao
    central: CentralProcess
    agent: AgentProcess
    provider: FaultProxy
    audit: FaultProxy
    said: dict[str, bytes]

    def put(self, canary: Canary, **more: str) -> None:
        """Make the canary the value of every scope's secret."""
        self.openbao.kv_put("leaks/one", {"k": canary.value, **more})

    def exec(self, *words: str, **options: Any) -> Done:
        """Run ``prism-vault exec`` in the scratch directory and keep what it says."""
        done = run(self.agent, *words, cwd=self.directory / "scratch", **options)
        self.said[f"exec {' '.join(words)} #{len(self.said)}"] = done.stdout + done.stderr
        return done

    def command(self, *words: str, env: dict[str, str] | None = None) -> int:
        """Run another ``prism-vault`` command and keep what it says."""
        variables = {
            **self.agent.environment(),
            "PRISM_VAULT_CENTRAL_URL": self.central.url,
            "PRISM_VAULT_OPERATOR_TOKEN": self.central.operator_token,
            "PRISM_VAULT_CONFIG": str(self.agent.config),
            **(env or {}),
        }
        done = subprocess.run([LAUNCHER, *words], env=variables, capture_output=True, check=False, timeout=100)
        self.said[f"{' '.join(words)} #{len(self.said)}"] = done.stdout + done.stderr
        return done.returncode

    def places(self, *, but: tuple[Path, ...] = ()) -> dict[str, bytes | str]:
        """Return all that must not hold a value."""
        eventually(lambda: self.agent.status()["central"]["queued"] == 0)
        places: dict[str, bytes | str] = {
            "agent's status": json.dumps(self.agent.status()),
            "central's log": "".join(self.central.log),
            "central's rows": json.dumps(self.central.events()),
        }
        with self.central.client() as client:
            for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/audit/events?limit=1000"):
                places[f"GET {path}"] = client.get(path).content
        return places | self.said | command_lines() | files(self.directory, but=but)


@pytest.fixture(scope="module")
def site(openbao) -> Iterator[Site]:
    """A central and an agent of our own, so that all of their files are in one directory."""
    openbao.mount_kv("leaks")
    openbao.policy(
        "leaks", 'path "leaks/data/one" { capabilities = ["read"] }\npath "leaks/metadata/*" { capabilities = ["read"] }'
    )
    role_id, secret_id = openbao.approle("leaks", ["leaks"])
    auth = f'method = "approle"\nrole_id_file = "{role_id}"\nsecret_id_file = "{secret_id}"\n'
    own = {"callers": [{"kind": "agent", "uid": UID}], "pristine": False, "allow_paths": ["leaks/one"]}
    scopes: dict[str, dict[str, Any]] = {
        "one": {"env": {"A": "vault://leaks/one#k"}, **own},
        "all": {"env_from": ["vault://leaks/one"], **own},
        "closed": {"env": {"A": "vault://leaks/one#k", "B": "vault://leaks/closed#k"}, **own},
        "missing": {"env": {"A": "vault://leaks/one#k", "B": "vault://leaks/one#nope"}, **own},
    }
    with tempfile.TemporaryDirectory(prefix="pv-", dir="/tmp") as name:
        directory = Path(name)
        (directory / "scratch").mkdir()
        (directory / "central").mkdir(mode=0o700)
        with (
            CentralProcess(directory / "central") as central,
            FaultProxy(openbao.port) as provider,
            FaultProxy(int(central.url.rpartition(":")[2])) as audit,
        ):
            options = {"vault_address": provider.address, "central_url": audit.address, "auth": auth}
            brisk = {"vault": 'timeout = "2s"', "central_lines": 'timeout = "2s"'}
            with started(directory, openbao, central, scopes, **options, **brisk) as agent:
                yield Site(directory, openbao, central, agent, provider, audit, {})


ONE = ("--scope", "one", "--run-ref", "leak-hunt")


def success(site: Site, canary: Canary) -> None:
    """The command runs with the value and ends."""
    assert site.exec(*ONE, "--", "/usr/bin/env", "-i", "/bin/echo", "ran").stdout == b"ran\n"


def oversize(site: Site, canary: Canary) -> None:
    """The value is more than the kernel takes."""
    site.put(canary, k2=canary.value * 3000)
    assert site.exec("--scope", "all", "--run-ref", "leak-hunt", "--", "/bin/true").returncode == 78


def nul(site: Site, canary: Canary) -> None:
    """The value holds a NUL."""
    site.put(canary, k2=canary.value + "\0" + canary.value)
    assert site.exec("--scope", "all", "--run-ref", "leak-hunt", "--", "/bin/true").returncode == 78


def two_values(site: Site, canary: Canary) -> None:
    """One name would get two values."""
    site.put(canary, A=canary.value + "2")
    assert site.exec(*ONE, "--scope", "all", "--", "/bin/true").returncode == 78


def collision(site: Site, canary: Canary) -> None:
    """The caller has another value already, which is no secret to the caller but none of the log's business either."""
    assert site.exec(*ONE, "--", "/bin/true", env={"A": canary.value + "mine"}).returncode == 78


def denied(site: Site, canary: Canary) -> None:
    """Policy says no: to the kind of caller, and to a path."""
    assert site.exec("--scope", "one", "--", "/bin/true").returncode == 77
    assert site.exec(*ONE, "--", "/bin/true", env={"R": "vault://leaks/two#k"}).returncode == 77


def provider_403(site: Site, canary: Canary) -> None:
    """The provider refuses one of two secrets."""
    assert site.exec("--scope", "closed", "--run-ref", "leak-hunt", "--", "/bin/true").returncode == 77


def provider_404(site: Site, canary: Canary) -> None:
    """A key is missing beside the one that holds the value."""
    assert site.exec("--scope", "missing", "--run-ref", "leak-hunt", "--", "/bin/true").returncode == 66


def provider_answers_nonsense(site: Site, canary: Canary) -> None:
    """The provider puts the value into an error, a wrong shape, broken JSON, a key's name's place, or a redirect."""
    bodies = [
        (status, json.dumps({"errors": [f"1 error occurred: {canary.value}"], "warnings": [canary.value]}))
        for status in (400, 403, 404, 412, 429, 500, 502, 503)
    ]
    bodies += [(200, text) for text in (canary.value, json.dumps(canary.value), json.dumps({"data": canary.value}))]
    bodies += [(200, json.dumps({"data": {"data": data}})) for data in (canary.value, [canary.value], {"z": canary.value})]
    bodies += [
        (200, json.dumps({"data": {"data": {"k": canary.value}, "metadata": metadata}})) for metadata in (canary.value, None)
    ]
    bodies += [(307, canary.value)]
    for status, body in bodies:
        fault = always(Fault("answer", status=status, body=body.encode()), lambda seen: "/data/" in seen.path)
        with site.provider.failing(fault):
            assert site.exec(*ONE, "--", "/bin/true").returncode in (66, 75, 76, 77, 78), (status, body)


def central_down(site: Site, canary: Canary) -> None:
    """The value has been read, and central does not take the record of the success."""
    for fault in (Fault("reset"), Fault("answer", status=503), Fault("hang"), Fault("answer", status=401)):
        with site.audit.failing(always(fault, lambda seen: "success" in seen.kinds)):
            assert site.exec(*ONE, "--timeout", "2s", "--", "/bin/true").returncode in (75, 76, 77)
    eventually(lambda: site.agent.status()["central"]["state"] == "reachable")


def central_refuses_late(site: Site, canary: Canary) -> None:
    """Central persists the success but its answer is lost."""
    with site.audit.failing(times(1, Fault("reset", forwarded=True), lambda seen: "success" in seen.kinds)):
        site.exec(*ONE, "--", "/bin/true")


def direct(site: Site, canary: Canary) -> None:
    """Without an agent: success, the kernel's refusal, and a provider that answers the value as an error."""
    words = ("--direct", "--config", str(site.agent.config), *ONE)
    assert site.exec(*words, "--", "/bin/true").returncode == 0
    assert site.exec(*words, "--", "/bin/true", env={"A": "mine"}).returncode == 78
    body = json.dumps({"errors": [canary.value]}).encode()
    with site.provider.failing(always(Fault("answer", status=400, body=body), lambda seen: "/data/" in seen.path)):
        assert site.exec(*words, "--", "/bin/true").returncode not in (0, 70)
    site.put(canary, k2=canary.value * 3000)
    assert site.exec(*words, "--scope", "all", "--", "/bin/true").returncode == 78


def looking(site: Site, canary: Canary) -> None:
    """Everything that shows: dry run, plan, status, doctor, audit, configuration."""
    assert site.exec(*ONE, "--dry-run").returncode == 0
    for words in ("plan one --run-ref x", "plan one", "status --json", "doctor --json"):
        assert site.command(*words.split()) in (0, 1, 77, 78), words
    for words in ("audit tail -n 1000", "audit verify", "config show"):
        assert site.command(*words.split()) == 0, words


def revoked(site: Site, canary: Canary) -> None:
    """A run is ended while it has the value."""
    child = site.agent.spawn(*PATIENT, *ONE, "--", "/bin/sleep", "600")
    eventually(lambda: any(each["pid"] == child.pid for each in site.agent.status()["runs"]))
    site.said["revoked arguments"] = Path(f"/proc/{child.pid}/cmdline").read_bytes()
    assert site.command("revoke", "--run-ref", "leak-hunt") == 0
    site.said["revoked"] = "".join(child.communicate()).encode()
    assert child.returncode == -signal.SIGTERM


def timeout(site: Site, canary: Canary) -> None:
    """The provider answers half of the value and stops; the caller does not wait."""
    body = json.dumps({"data": {"data": {"k": canary.value}}}).encode()
    with site.provider.failing(always(Fault("drip", status=200, body=body), lambda seen: "/data/" in seen.path)):
        assert site.exec(*ONE, "--timeout", "1s", "--", "/bin/true").returncode == 75


def caller_leaves(site: Site, canary: Canary) -> None:
    """The caller hangs up while its values are being delivered."""
    before = not_delivered(site)
    deliver_to_nobody(site, canary, lambda: None)
    eventually(partial(more_not_delivered, site, before))


def workers_crash(site: Site, canary: Canary) -> None:
    """Workers die while they deliver: by a fault of memory, an abort, and a kill."""
    for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL):
        before = not_delivered(site)
        deliver_to_nobody(site, canary, partial(signal_workers, site.agent, number))
        eventually(partial(more_not_delivered, site, before))
    assert site.exec(*ONE, "--", "/bin/true").returncode == 0  # the idle ones were hit as well, and are not used


def agent_crashes(site: Site, canary: Canary) -> None:
    """The agent itself dies of a fault of memory while a value is being delivered, and starts again."""

    def crash() -> None:
        process = site.agent.process
        assert process is not None
        process.send_signal(signal.SIGSEGV)
        process.wait(20)
        site.agent.process = None

    deliver_to_nobody(site, canary, crash)
    site.agent.start()


def command_crashes(site: Site, canary: Canary) -> None:
    """The command itself dies of a fault of memory, in a directory where a core file could be written."""
    for number in ("SEGV", "ABRT", "QUIT"):
        done = site.exec(*ONE, "--", "/bin/sh", "-c", f"kill -{number} $$")
        assert done.returncode == -getattr(signal, f"SIG{number}")


def reloaded(site: Site, canary: Canary) -> None:
    """A reload while runs live: of the same, and of a file that is broken."""
    broken = site.agent.directory / "scopes.d" / "broken.toml"
    site.agent.hang_up()
    broken.write_text("[scopes.broken\n")
    broken.chmod(0o600)
    try:
        eventually(lambda: site.agent.status()["config"]["error"])
        assert site.exec(*ONE, "--", "/bin/true").returncode == 0
    finally:
        broken.unlink()
        site.agent.hang_up()
    eventually(lambda: not site.agent.status()["config"]["error"])


FLOWS: list[Callable[[Site, Canary], None]] = [
    success,
    oversize,
    nul,
    two_values,
    collision,
    denied,
    provider_403,
    provider_404,
    provider_answers_nonsense,
    central_down,
    central_refuses_late,
    direct,
    looking,
    revoked,
    timeout,
    caller_leaves,
    workers_crash,
    agent_crashes,
    command_crashes,
    reloaded,
]


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.__name__)
def test_t22_no_value_anywhere(site, flow):
    """After each of these the value is in no output, log, row, database, state, core file or command line, in no form."""
    canary = Canary()
    site.put(canary)
    flow(site, canary)
    assert leaks(canary, site.places()) == []
    assert not [path for path in site.directory.rglob("*") if path.name.startswith("core")]


def test_a_value_written_into_the_configuration_is_not_repeated(site):
    """A secret written where a reference belongs is in no error of ``config check``, of a reload, or in the status."""
    canary = Canary()
    wrong = site.agent.directory / "scopes.d" / "wrong.toml"
    entry = 'project = "p"\nenvironment = "e"\npurposes = ["t"]\ncallers = [{ kind = "operator", uid = 0 }]\n'
    wrong.touch(mode=0o600)
    for text in (
        f"[scopes.wrong]\n{entry}env = {{ A = {json.dumps(canary.value)} }}\n",
        f"[scopes.wrong]\n{entry}password = {json.dumps(canary.value)}\n",
        f"[scopes.wrong]\n{entry}ttl_of = {canary.core}\n",
    ):
        wrong.write_text(text)
        eventually(lambda: site.agent.status()["config"]["error"])
        assert site.command("config", "check") == 78
        site.agent.hang_up()
        assert leaks(canary, site.places(but=(wrong,))) == []
    wrong.unlink()
    site.agent.hang_up()
    eventually(lambda: not site.agent.status()["config"]["error"])


def test_credentials_are_nowhere_either(site):
    """The agent's token, its secret id and its token for central are in no output, log, row, state file or command line."""
    success(site, Canary())
    assert site.command("status", "--json") == 0
    tokens = {seen.headers["x-vault-token"] for seen in site.provider.seen if "x-vault-token" in seen.headers}
    bearers = {seen.headers["authorization"].partition(" ")[2] for seen in site.audit.seen if "authorization" in seen.headers}
    logins = [json.loads(seen.body) for seen in site.provider.seen if seen.path.endswith("/login")]
    credentials = tokens | bearers | {login["secret_id"] for login in logins}
    assert len(credentials) >= 3
    places = site.places(but=(site.agent.directory / "central.token",))
    for credential in credentials:
        raw = credential.encode()
        found = [place for place, content in places.items() if holds(content, raw)]
        assert found == []


def holds(content: bytes | str, raw: bytes) -> bool:
    """Tell whether a text holds these bytes, plain or as base64 or hex."""
    text = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    return any(form in text for form in (raw, raw.hex().encode(), base64.b64encode(raw)))


def test_the_search_finds_what_is_planted(site, tmp_path):
    """The search itself finds a value in every form, in files, databases, rows, logs, outputs and command lines."""
    for name, form in Canary(core="canary0123456789abcdef").forms().items():
        canary = Canary(core="canary0123456789abcdef")
        (tmp_path / "planted").write_bytes(b"before " + form + b" after")
        assert any(place.startswith(f"file {tmp_path}") for place in leaks(canary, files(tmp_path))), name
    planted = Canary()
    # A purpose is no secret: it is told on the record, and so in all the places that a leak would show up in.
    assert site.exec(*ONE, "--purpose", planted.core, "--", "/bin/true").returncode == 77
    holding = subprocess.Popen([sys.executable, "-ISc", "input()", planted.core], stdin=subprocess.PIPE)
    try:
        found = leaks(planted, site.places())
    finally:
        holding.communicate(b"\n")
    site.said.clear()
    for place in ("exec ", "central's rows", "GET /v1/audit/events", "arguments of", "file "):
        assert any(each.startswith(place) for each in found), (place, found)
    assert any("audit.db" in each for each in found)


def deliver_to_nobody(site: Site, canary: Canary, disturb: Callable[[], object]) -> None:
    """Have a worker deliver more than a socket takes at once to a caller that does not read; then disturb it."""
    site.put(canary, **{f"k{n}": (canary.value * 3000)[:100_000] for n in range(LARGE // 100_000)})
    request = exec_request("all", run_ref="leak-hunt", stack_limit=0)
    # A process of its own: a caller that may have everything, and nobody knows, is ended.
    with subprocess.Popen([sys.executable, "-c", CALLER, site.agent.socket, request.hex()], stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        assert caller.stdout.read(1) == b"H"
        disturb()
        caller.kill()


def not_delivered(site: Site) -> int:
    """Return how many releases were taken back so far, because they did not reach their caller."""
    return site.agent.log.count('"reason": "not_delivered"')


def more_not_delivered(site: Site, before: int) -> bool:
    """Tell whether another release was taken back."""
    return not_delivered(site) > before


def signal_workers(agent: AgentProcess, number: int) -> None:
    """Send a signal to every worker of the agent."""
    for pid, line in children(pid_of(agent)).items():
        if line == "prism-vault agent: worker":
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
