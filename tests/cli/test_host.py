"""What ``doctor`` concludes from a host: each answer that a kernel can give."""

from __future__ import annotations

import os
import resource
import socket
import ssl
import time
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest

from prism_vault_agent.agent.trees.choice import Facts
from prism_vault_agent.cli import doctor, host, reach, whole
from prism_vault_agent.cli.checks import PROMISES, Check
from prism_vault_agent.config.settings import AuthSettings, CentralSettings, TlsFiles, VaultSettings
from prism_vault_agent.scope import File, Scope, ScopeName
from tests.support.certificates import Tls
from tests.support.fake_server import FakeServer, reset

NOBODY = 65534
SWAPS = "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n"


def test_every_check_of_this_host_has_an_answer():
    """On the host that runs the tests every check says what it found, for a promise that exists, and how to mend it."""
    for check in host.checks():
        assert check.state in ("holds", "does not hold")
        assert check.promise in PROMISES
        assert check.why
        assert check.state == "holds" or check.mend
        assert "\n" not in check.line()


def test_looking_at_the_host_changes_nothing_in_us():
    """The checks that lower limits for good do so in a process of their own."""
    before = resource.getrlimit(resource.RLIMIT_CORE), Path("/proc/self/status").read_text().split("\n")[0]
    host.checks()
    assert (resource.getrlimit(resource.RLIMIT_CORE), Path("/proc/self/status").read_text().split("\n")[0]) == before


def test_f100_a_host_without_entropy_is_told(monkeypatch):
    """Where the kernel's random numbers are not there yet doctor says what waits for them; on the host of the tests they are."""
    check = {each.name: each for each in host.checks()}["keys cannot be guessed"]
    assert check.state == "holds"

    def refuse(_size: int, flags: int) -> bytes:
        assert flags == os.GRND_NONBLOCK
        raise BlockingIOError

    monkeypatch.setattr(os, "getrandom", refuse)
    check = {each.name: each for each in host.checks()}["keys cannot be guessed"]
    assert (check.state, check.needed) == ("does not hold", False)
    assert "virtio-rng" in check.mend


@pytest.mark.parametrize(
    ("disk", "swaps", "state"),
    [
        ("", SWAPS, "holds"),
        ("[disabled]\n", SWAPS, "holds"),
        ("[platform] shutdown reboot suspend\n", SWAPS.partition("\n")[0], "holds"),
        ("[platform] shutdown reboot suspend\n", SWAPS, "does not hold"),
    ],
)
def test_f101_a_host_that_can_hibernate_is_told(disk: str, swaps: str, state: str):
    """Where the host can hibernate to swap doctor warns and says what to mask; the agent works all the same."""
    check = host.hibernation(disk, swaps)
    assert (check.state, check.needed) == (state, False)
    assert state == "holds" or "hibernate.target" in check.mend


@pytest.mark.parametrize(
    ("pattern", "can_limit", "state"),
    [
        ("core", True, "holds"),
        ("|/usr/lib/systemd/systemd-coredump %P", True, "holds"),
        ("core", False, "holds"),
        ("|/usr/lib/systemd/systemd-coredump %P", False, "does not hold"),
    ],
)
def test_a_piped_core_handler_needs_a_limit_of_one_byte(pattern: str, can_limit: bool, state: str):  # noqa: FBT001
    """A hard limit of 0 does not stop a handler, so there it does not hold and LimitCORE=1 mends it."""
    check = host.core(pattern, can_limit=can_limit)
    assert (check.state, check.needed) == (state, True)
    assert state == "holds" or "LimitCORE=1" in check.mend


@pytest.mark.parametrize(
    ("swaps", "locked", "state"),
    [("", False, "holds"), (SWAPS.splitlines()[0], False, "holds"), (SWAPS, True, "holds"), (SWAPS, False, "does not hold")],
)
def test_swap_matters_only_where_memory_is_not_locked(swaps: str, locked: bool, state: str):  # noqa: FBT001
    """Without swap, or with memory that can be locked, nothing of the agent reaches the disk."""
    check = host.swap(swaps, locked=locked)
    assert check.state == state
    assert state == "holds" or "/dev/sda2" in check.why


def test_how_a_supervised_tree_is_found():
    """Without the adoption of orphans a supervised tree cannot be ended; without the kernel's lists it takes longer."""
    assert host.supervision(adopts=True, lists=True).why == "orphans are adopted and listed by the kernel"
    slower = host.supervision(adopts=True, lists=False)
    assert slower.state == "holds"
    assert "found among all processes" in slower.why
    assert host.supervision(adopts=False, lists=True).state == "does not hold"


def test_by_what_a_tree_is_ended():
    """Where a control group can be made it holds, with what ends it; where not, what is found then is told, and what to do."""
    divisible = Facts(seen=True, divisible=True, alone=False)
    assert "cgroup.kill" in whole.judged(divisible, kills=True).why
    assert "process by process" in whole.judged(divisible, kills=False).why
    helped = Facts(seen=True, divisible=False, alone=False, helped=True)
    assert "made by the helper" in whole.judged(helped, kills=True).why and whole.judged(helped, kills=True).state == "holds"
    for seen, mend in ((True, "exec --supervise"), (False, "mount cgroup v2")):
        check = whole.judged(Facts(seen=seen, divisible=False, alone=False), kills=False)
        assert (check.state, check.needed) == ("does not hold", False)
        assert "descendant" in check.why and mend in check.mend
        assert ("unit or container to itself" in check.why) == seen


def test_what_stays_when_the_agent_ends():
    """It is told as the agent says it; where nothing is to stay and nobody would see to that, it is needed."""
    assert whole.at_end({}).state == "unknown"
    kept = whole.at_end({"end": {"on_end": "keep", "sentinel": 0}})
    assert (kept.state, kept.needed) == ("does not hold", False)
    alone = whole.at_end({"end": {"on_end": "clear", "sentinel": 0}, "pid": 0})
    assert (alone.state, alone.needed) == ("does not hold", True)


@pytest.mark.root
def test_what_the_agent_may_counts_and_not_what_we_may():
    """Run by root, the check tells what the agent says of itself; without an agent, what root may on this host."""
    assert whole.trees({}).state == "holds"
    assert whole.trees({"process": {"divides_groups": False}}).state == "does not hold"
    assert whole.trees({"process": {"divides_groups": False, "has_groups_made": True}}).state == "holds"


@pytest.mark.parametrize(
    ("scope", "state"), [("", "does not hold"), ("0\n", "does not hold"), ("1\n", "holds"), ("3\n", "holds")]
)
def test_yama_keeps_processes_of_one_user_apart(scope: str, state: str):
    """Without Yama, or with its scope 0, processes of one user may attach to each other."""
    assert host.ptrace(scope).state == state


def test_a_proc_that_hides_others_is_told_with_its_option(tmp_path: Path):
    """Where /proc hides the processes of other users callers cannot be looked at; the mount option is named."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_text(f"22 28 0:21 / {tmp_path} rw,nosuid - proc proc rw,hidepid=invisible\n")
    check = host.visible(tmp_path)
    assert (check.state, check.needed) == ("does not hold", True)
    assert "(hidepid=invisible)" in check.why
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "stat").write_text("1 (init)")
    assert host.visible(tmp_path).state == "holds"


def test_control_groups_are_needed_by_rules_that_use_them(tmp_path: Path):
    """Without cgroup v2 units and containers are not told apart: needed only where a rule names one."""
    check = host.control_groups(tmp_path, needed=True)
    assert (check.state, check.needed) == ("does not hold", True)
    (tmp_path / "cgroup.controllers").touch()
    assert host.control_groups(tmp_path, needed=False).state == "holds"


def test_clocks_may_be_half_a_minute_apart():
    """A difference of more than 30 s is told; a server that does not tell its time leaves it unknown."""
    now = time.time()
    assert reach.skew(formatdate(now, usegmt=True), now).state == "holds"
    assert reach.skew(formatdate(now - 3600, usegmt=True), now).state == "does not hold"
    for date in ("", "yesterday", "\x00"):
        assert reach.skew(date, now).state == "unknown"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_credential_that_others_may_read_does_not_hold(tmp_path: Path, mode: int):
    """A credential's file is for its owner alone."""
    file = tmp_path / "secret-id"
    file.touch(0o600)
    assert doctor.credential(file).state == "holds"
    file.chmod(mode)
    check = doctor.credential(file)
    assert (check.state, check.needed) == ("does not hold", True)
    assert f"mode {mode:04o}; chmod go= {file}" in check.line()


@pytest.mark.root
def test_what_somebody_else_owns_does_not_hold(tmp_path: Path):
    """A credential, or the socket's directory, that another user owns is theirs."""
    file = tmp_path / "secret-id"
    file.touch(0o600)
    os.chown(file, NOBODY, -1)
    assert doctor.credential(file).state == "does not hold"
    os.chown(tmp_path, NOBODY, -1)
    assert doctor.directory(tmp_path).state == "does not hold"


def test_a_missing_credential_does_not_hold(tmp_path: Path):
    """A credential that is not there is told with its path."""
    check = doctor.credential(tmp_path / "secret-id")
    assert (check.state, check.needed) == ("does not hold", True)
    assert str(tmp_path) in check.why


def test_the_sockets_directory_is_nobody_elses(tmp_path: Path):
    """Who may write the directory could put a socket of theirs there; one that is not there yet is unknown."""
    tmp_path.chmod(0o755)
    assert doctor.directory(tmp_path).state == "holds"
    tmp_path.chmod(0o1777)
    assert doctor.directory(tmp_path).state == "does not hold"
    assert doctor.directory(tmp_path / "run").state == "unknown"


def helped(uid: int, path: str = "", owner: int = 0) -> Check:
    """Return what doctor tells of a helper, for an agent of this user with a file of that owner."""
    file = File("web.env", "systemd", owner, 0, 0o400)
    scope = Scope(ScopeName("web"), "prism", "lan", (), (), files=(file,))
    settings = SimpleNamespace(agent=SimpleNamespace(helper=path), scopes={"web": scope})
    return doctor.helper(settings, {"process": {"uid": uid}})  # type: ignore[arg-type]  # what it looks at of them


def test_doctor_says_whether_there_is_a_helper(tmp_path: Path):
    """Root needs none; another agent needs one where a file is another user's, and what is missing is told."""
    path = str(tmp_path / "helper.sock")
    assert helped(0).state == "holds"
    missing = helped(1000, path, owner=2000)
    assert (missing.state, missing.needed, missing.promise in PROMISES) == ("does not hold", True, True)
    assert f"no helper listens at {path}" in missing.why and "prism-vault-helper.socket" in missing.mend
    assert not helped(1000, path, owner=1000).needed
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen()
        assert helped(1000, path, owner=2000).state == "holds"


def answering(body: bytes) -> FakeServer:
    """Return a server that answers every request with this body."""
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(head + body)
        return False

    return FakeServer(behave)


def vault_check(address: str, tls: TlsFiles | None = None, timeout: float = 5.0) -> str:
    """Return the first line that doctor tells of a provider at ``address``."""
    settings = VaultSettings(
        address, AuthSettings("token_file", "token", token_file="/t"), tls=tls or TlsFiles(), timeout=timeout
    )
    return reach.vault(settings)[0].line()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"sealed": false, "version": "2.7.2"}', "holds          G7  the provider answers: version 2.7.2, unsealed"),
        (b'{"sealed": true, "version": "2"}', "does not hold  G7  the provider answers (needed): version 2, sealed; unseal it"),
        (b"<html>", "does not hold  G7  the provider answers (needed): what answers is no Vault and no OpenBao"),
        (b"[]", "does not hold  G7  the provider answers (needed): what answers is no Vault and no OpenBao"),
    ],
)  # fmt: skip
def test_the_provider_is_known_by_its_health(body: bytes, told: str):
    """An unsealed provider holds; a sealed one, and what is none, does not. No credential is sent."""
    with answering(body) as server:
        assert vault_check(server.address).startswith(told)
        assert b"oken" not in server.received


def test_a_server_that_does_not_answer_is_told_in_time():
    """A provider that takes the connection and says nothing is told after the timeout of the configuration."""
    with FakeServer(lambda _connection, _request: True) as server:
        assert "127.0.0.1 does not answer within 0.2 s" in vault_check(server.address, timeout=0.2)


def test_a_certificate_that_does_not_verify_is_told(tmp_path: Path):
    """TLS holds only under the authority that the configuration names; otherwise the reason is told."""
    tls = Tls(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.cert_file, tls.key_file)
    with answering(b'{"sealed": false, "version": "2"}') as plain:
        behave = plain.behave
    with FakeServer(behave, context=context) as server:
        assert "the certificate of 127.0.0.1 does not verify (" in vault_check(server.address)
        assert vault_check(server.address, TlsFiles(str(tls.ca_file))).startswith("holds")
        assert vault_check(server.address, TlsFiles(str(tmp_path / "none.pem"))).startswith("does not hold")


def test_one_replica_of_central_that_can_record_is_enough():
    """Each replica of central is told; one that is away is needed only where no other can record."""
    with FakeServer(reset) as server:
        gone = server.address
    with answering(b"{}") as server:
        checks = reach.central(CentralSettings(gone, replicas=(server.address,)))
    told = {check.name: check for check in checks}
    one, two = (told[f"central answers at {url.removeprefix('http://')}"] for url in (gone, server.address))
    assert (one.state, one.needed) == ("does not hold", False)
    assert two.state == "holds"
    assert [check.needed for check in reach.central(CentralSettings(gone, replicas=("http://127.0.0.1:9",)))] == [True, True]
