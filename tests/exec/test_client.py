"""What the thin client sends, and what it does with every kind of answer and fault."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.exec.fake_agent import LAUNCHER, FakeAgent, answer, error
from tests.support.waiting import wait_until

CANARY = b"canary-7f3a"


def told(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the one line on standard error."""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("prism-vault: ")
    assert done.stdout == b""
    return lines[0]


def test_request(tmp_path):
    """The request says scopes, purpose, run and job, what time is left, what the kernel will count, and the references."""
    environment = {"PATH": "/usr/bin:/bin", "A": "1", "REF": "vault://secret/own#key", "PRISM_VAULT_JOB_ID": "job-1"}
    (tmp_path / "my.env").write_text("FILE_REF=vault://secret/file#key\nPLAIN=x\n")
    with FakeAgent(tmp_path, answer()) as agent:
        agent.run(
            *("--scope", "web", "--scope=db", "--purpose", "p", "--run-ref", "r", "--env-file", str(tmp_path / "my.env")),
            *("--", "true", "x"),
            env=environment,
        )
        fields = agent.fields()
    said = dict(fields)
    assert agent.requests[0].startswith(b"POST /v1/exec HTTP/1.1\r\nHost: prism-vault\r\nX-Prism-Vault: 1\r\n")
    assert [value for name, value in fields if name == b"scope"] == [b"web", b"db"]
    assert [value for name, value in fields if name == b"ref"] == [
        b"FILE_REF=vault://secret/file#key",
        b"REF=vault://secret/own#key",
    ]
    assert (said[b"purpose"], said[b"run_ref"], said[b"job_id"]) == (b"p", b"r", b"job-1")
    assert (said[b"pristine"], said[b"dry_run"]) == (b"0", b"0")
    assert 8000 < int(said[b"timeout_ms"]) <= 10_000
    path = b"PATH=/usr/bin:/bin"
    assert int(said[b"env_bytes"]) == len(path) + len(b"A=1") + len(b"PLAIN=x") + 3 * 9
    assert int(said[b"pristine_env_bytes"]) == len(path) + len(b"PLAIN=x") + 2 * 9
    assert int(said[b"argv_bytes"]) == len(b"true") + len(b"x") + len(b"/usr/bin/true") + 3 * 9
    assert int(said[b"stack_limit"]) >= 0


def test_environment_of_the_command(tmp_path):
    """The command gets its caller's variables but for credentials, to the byte, and what the agent released."""
    own = {
        b"PATH": b"/usr/bin:/bin",
        b"odd.name": b"kept",
        b"BYTES": b"\xff\xfe\n",
        b"EMPTY": b"",
        b"VAULT_TOKEN": b"x",
        b"BAO_ADDR": b"x",
        b"PRISM_VAULT_PURPOSE": b"p",
        b"NOTIFY_SOCKET": b"x",
        b"LISTEN_FDS": b"1",
        b"CREDENTIALS_DIRECTORY": b"/x",
        b"REF": b"vault://secret/own#key",
    }
    released = {b"DB": CANARY, b"REF": b"resolved", b"LINES": b"a\nb='\"$`\\ "}
    with FakeAgent(tmp_path, answer(released)) as agent:
        done = agent.run("--scope", "web", "--", "env", "-0", env=own)
    assert done.returncode == 0
    child = dict(item.split(b"=", 1) for item in done.stdout.split(b"\0") if item)
    kept = {name: own[name] for name in (b"PATH", b"odd.name", b"BYTES", b"EMPTY")}
    assert child == kept | released


def test_empty_environment(tmp_path):
    """Where the caller has no variables the command has those of the scope only: none is added on the way."""
    with FakeAgent(tmp_path, answer({b"DB": b"1"})) as agent:
        done = agent.run("--scope", "web", "--", "/usr/bin/env", env={})
    assert done.stdout == b"DB=1\n"


@pytest.mark.parametrize(("option", "header"), [((), "1"), (("--pristine",), "0")])
def test_pristine(tmp_path, option, header):
    """With --pristine, or where the agent says so, only a short list of the caller's own variables is handed on."""
    (tmp_path / "my.env").write_text("FROM_FILE=1\n")
    own = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "SSH_AUTH_SOCK": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    with FakeAgent(tmp_path, answer({b"DB": b"1"}, more={"X-Prism-Vault-Pristine": header})) as agent:
        done = agent.run("--scope", "web", *option, "--env-file", str(tmp_path / "my.env"), "--", "env", env=own)
    assert set(done.stdout.splitlines()) == {b"PATH=/usr/bin:/bin", b"LC_ALL=C", b"FROM_FILE=1", b"DB=1"}


@pytest.mark.parametrize(("policy", "value"), [("scope", b"released"), ("caller", b"own"), ("error", None)])
def test_collision(tmp_path, policy, value):
    """Where both have a name the agent's word decides; for ``error`` nothing runs and the name is told, not the values."""
    with FakeAgent(tmp_path, answer({b"DB": b"released"}, more={"X-Prism-Vault-Collision": policy})) as agent:
        done = agent.run("--scope", "web", "--", "env", env={"PATH": "/bin", "DB": "own"})
    if value:
        assert b"DB=" + value in done.stdout.splitlines()
    else:
        assert done.returncode == 78
        line = told(done)
        assert line.startswith("prism-vault: scope web: DB is already set")
        assert "released" not in line


@pytest.mark.parametrize("exit_status", [64, 66, 70, 75, 77, 78])
def test_refusals(tmp_path, exit_status):
    """An error of the agent is told as it is, in one line, with its exit status, and nothing runs."""
    line = f"scope web: no; do this (pva_{exit_status})"
    with FakeAgent(tmp_path, error(exit_status, line)) as agent:
        done = agent.run("--scope", "web", "--", "touch", str(tmp_path / "ran"))
    assert (done.returncode, told(done)) == (exit_status, f"prism-vault: {line}")
    assert not (tmp_path / "ran").exists()


def test_refusal_cannot_forge_lines(tmp_path):
    """Control characters and further lines of an error do not reach the terminal."""
    with FakeAgent(tmp_path, error(77, "no \x1b[2J\x07 more\nsecond line")) as agent:
        done = agent.run("--scope", "web", "--", "true")
    assert told(done) == "prism-vault: no ?[2J? more"


def say_nothing(connection: socket.socket) -> None:
    """Wait until the client is gone."""
    connection.recv(1)


BLOCK = answer({b"DB": CANARY})
HOSTILE = {
    "nothing": b"",
    "cut in the head": BLOCK[:40],
    "cut in the body": BLOCK[:-1],
    "too much": BLOCK + b"x",
    "no http": b"\x00\x01" * 40,
    "endless head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000,
    "too long": answer(more={"Content-Length": str(17 * 1024 * 1024)}),
    "no policy": answer({b"DB": CANARY}, more={"X-Prism-Vault-Collision": ""}),
    "bad policy": answer({b"DB": CANARY}, more={"X-Prism-Vault-Collision": "any"}),
    "no pristine": answer({b"DB": CANARY}, more={"X-Prism-Vault-Pristine": ""}),
    "text": answer(CANARY, kind="text/plain"),
    "no end": answer(b"DB=" + CANARY),
    "no sign": answer(CANARY + b"\0"),
    "twice": answer(b"DB=" + CANARY + b"\0DB=" + CANARY + b"\0"),
    "no status": answer(CANARY, status="403 Forbidden", kind="text/plain"),
    "status 0": error(0, CANARY.decode()),
    "status 256": error(256, CANARY.decode()),
    "success as error": answer(CANARY, status="204 No Content", kind="text/plain"),
}


@pytest.mark.parametrize("reply", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_answers(tmp_path, reply):
    """An answer that is cut, too long, malformed or not what was asked for is 76; nothing runs and no value is told."""
    with FakeAgent(tmp_path, reply) as agent:
        done = agent.run("--scope", "web", "--", "touch", str(tmp_path / "ran"))
    assert done.returncode == 76
    assert told(done).startswith("prism-vault: scope web: the agent's answer cannot be understood: ")
    assert CANARY not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_slices(tmp_path):
    """An answer that comes byte by byte is understood, and so is one of the largest size."""

    def trickle(connection: socket.socket) -> None:
        for byte in BLOCK:
            connection.sendall(bytes([byte]))

    with FakeAgent(tmp_path, trickle) as agent:
        assert CANARY in agent.run("--scope", "web", "--", "env").stdout
        agent.reply = answer({b"V%d" % number: b"x" * 100_000 for number in range(10)})
        assert agent.run("--scope", "web", "--", "true").returncode == 0


def test_answer_before_the_request_is_read(tmp_path):
    """An agent that refuses and closes without reading a large request is still heard."""
    path = str(tmp_path / "early.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        own = {"PATH": "/usr/bin:/bin", **{f"R{number}": "vault://secret/x#" + "k" * 90_000 for number in range(8)}}
        command = [*LAUNCHER, "exec", "--socket", path, "--scope", "web", "--", "true"]
        with subprocess.Popen(command, env=own, stderr=subprocess.PIPE) as client:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(error(77, "too large; ask for less"))
                connection.shutdown(socket.SHUT_RD)
                assert client.stderr is not None
                assert client.stderr.read() == b"prism-vault: too large; ask for less\n"
    assert client.returncode == 77


def test_no_agent(tmp_path):
    """Without an agent it is 69 and the line says how to start one; there is no fall-back to --direct."""
    command = [*LAUNCHER, "exec", "--socket", str(tmp_path / "none.sock"), "--scope", "web", "--", "true"]
    done = subprocess.run(command, env={"PATH": "/bin"}, capture_output=True, check=False)
    assert done.returncode == 69
    line = told(done)
    assert all(part in line for part in ("scope web", "none.sock", "no such socket", "prism-vault agent", "--direct"))


def test_stale_socket(tmp_path):
    """A socket on which nobody listens any more is 69."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "stale.sock"))
    command = [*LAUNCHER, "exec", "--socket", str(tmp_path / "stale.sock"), "--scope", "web", "--", "true"]
    done = subprocess.run(command, env={"PATH": "/bin"}, capture_output=True, check=False)
    assert done.returncode == 69
    assert "connection refused" in told(done)


def test_long_socket_path(tmp_path):
    """A socket path that the kernel cannot take is a configuration error."""
    command = [*LAUNCHER, "exec", "--socket", "/" + "x" * 120, "--scope", "web", "--", "true"]
    done = subprocess.run(command, env={"PATH": "/bin"}, capture_output=True, check=False)
    assert done.returncode == 78
    assert "107 bytes" in told(done)


@pytest.mark.root
@pytest.mark.tool("setpriv")
def test_closed_socket(tmp_path):
    """A socket that we may not use is 77; the line tells its group and mode."""
    # Root without the right to pass by modes, because another user may not be able to run this test's interpreter.
    weak = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    with FakeAgent(tmp_path, answer()) as agent:
        command = [*weak, *LAUNCHER, "exec", "--socket", agent.path, "--scope", "web", "--", "true"]
        os.chown(agent.path, 12345, 12345)
        Path(agent.path).chmod(0o660)
        done = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=False)
        assert done.returncode == 77
        assert "group 12345, mode 0660" in told(done)
        os.chown(tmp_path, 12345, 12345)
        done = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=False)
        os.chown(tmp_path, 0, 0)
    assert done.returncode == 77
    assert "access to its directory" in told(done)


def test_timeout_covers_everything(tmp_path):
    """An agent that says nothing, or a byte now and then, is 75 when the time of --timeout is over."""

    def trickle(connection: socket.socket) -> None:
        try:
            for byte in BLOCK * 100:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
        except OSError:
            return

    for reply in (say_nothing, trickle):
        directory = tmp_path / reply.__name__
        directory.mkdir()
        with FakeAgent(directory, reply) as agent:
            started = time.monotonic()
            done = agent.run("--scope", "web", "--timeout", "300ms", "--", "true")
            assert done.returncode == 75
            assert "in time" in told(done)
            assert 0.3 <= time.monotonic() - started < 5


def test_timeout_covers_connecting(tmp_path):
    """A queue that is full is waited for, but not longer than --timeout."""
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        command = [*LAUNCHER, "exec", "--socket", path, "--scope", "web", "--timeout", "300ms", "--", "true"]
        done = subprocess.run(command, env={"PATH": "/bin"}, capture_output=True, check=False)
    assert done.returncode == 75


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_waiting(tmp_path, number):
    """Ctrl-C or SIGTERM while the agent works ends the client at once and silently, as any program: 130 or 143 in a shell."""
    with FakeAgent(tmp_path, say_nothing) as agent:
        command = [*LAUNCHER, "exec", "--socket", agent.path, "--scope", "web", "--", "true"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, env={"PATH": "/usr/bin:/bin"}) as client:
            wait_until(lambda: agent.requests)
            client.send_signal(number)
            assert client.wait(10) == -number
            assert client.stderr is not None
            assert client.stderr.read() == b""


def test_dry_run(tmp_path):
    """--dry-run prints what the agent tells, needs no command, and runs none."""
    with FakeAgent(tmp_path, answer(b"DB  vault://secret/web#db\n", kind="text/plain; charset=utf-8")) as agent:
        done = agent.run("--scope", "web", "--dry-run")
        assert (done.returncode, done.stdout) == (0, b"DB  vault://secret/web#db\n")
        assert (b"dry_run", b"1") in agent.fields()
        agent.reply = BLOCK
        assert agent.run("--scope", "web", "--dry-run", "--", "env").returncode == 76


def test_usage(tmp_path):
    """Without a command, without a scope, or with an unknown option it is 64, and no agent is asked."""
    with FakeAgent(tmp_path, answer()) as agent:
        for words in (["--scope", "web"], ["--scope", "web", "--"], ["--", "true"], ["--nope", "--", "true"]):
            done = agent.run(*words, cwd="/")
            assert done.returncode == 64
            told(done)
        assert agent.requests == []


def test_nobody_reads_the_error(tmp_path):
    """Where standard error is closed the exit status still tells, and the line goes nowhere else."""
    with FakeAgent(tmp_path, answer()) as agent:
        words = [*LAUNCHER, "exec", "--socket", agent.path, "--scope", "web", "--", "nope"]
        script = 'exec "$@" 2>&-'
        done = subprocess.run(["sh", "-c", script, "sh", *words], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (127, b"", b"")
