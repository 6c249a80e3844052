"""The thin client against the command line proper: what it says, where, and with which exit status."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.errors import Denied, SecretNotFound, to_plain
from tests.exec.fake_agent import LAUNCHER, FakeAgent, answer
from tests.exec.test_client import say_nothing
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

PROPER = [sys.executable, "-c", "import sys; from prism_vault_agent.cli.main import main; sys.exit(main(sys.argv[1:]))"]


def said(body: object, status: str = "200 OK") -> bytes:
    """Return the answer of an agent in JSON."""
    return answer(json.dumps(body).encode() + b"\n", status=status, kind="application/json")


RENDERED = said({"rendered": [{"scope": "web", "generation": "g\x1b", "id": "pva_1", "directory": "/r", "files": ["a", "b\n"]}]})
LEFT = said({"cleared": [{"scope": "web", "files": 2}], "failed": [{"scope": "db", "why": "no\nway"}]})
REVOKED = said({"cleared": [{"scope": "web", "files": 2}], "ended": [{"pid": 7, "how": "SIGTERM"}], "failed": [{"pid": 8}]})
REFUSED = said(to_plain(Denied("no", mend="ask", scope="web", audit_id="pva_1")), "403 Forbidden")
ABSENT = said(to_plain(SecretNotFound("no such secret é")), "404 Not Found")


def both(words: list[str], **environment: str) -> tuple[int, bytes, bytes]:
    """Return status, output and errors of a command line, which are the same by either way."""
    env = {"PATH": "/usr/bin:/bin", **environment}
    ways = [subprocess.run([*way, *words], env=env, capture_output=True, timeout=60, check=False) for way in (LAUNCHER, PROPER)]
    thin, proper = [(done.returncode, done.stdout, done.stderr) for done in ways]
    assert thin == proper
    return thin


@pytest.mark.parametrize(
    ("words", "reply", "status"),
    [
        (["render", "web"], RENDERED, 0),
        (["render", "web", "--json"], RENDERED, 0),
        (["render", "web"], REFUSED, 77),
        (["render", "web", "--json"], ABSENT, 66),
        (["clear", "web", "db"], LEFT, 75),
        (["clear", "--all"], said({"cleared": [], "failed": []}), 0),
        (["rotate", "web", "vault://secret/web"], said({"files": 1, "runs": 2}), 0),
        (["revoke", "web"], REVOKED, 75),
        (["revoke", "--run-ref", "r", "--json"], REVOKED, 75),
        (["clear"], RENDERED, 64),
        (["clear", "web", "--all"], RENDERED, 64),
        (["revoke"], RENDERED, 64),
        (["render"], RENDERED, 64),
        (["render", "web", "--purpos"], RENDERED, 64),
        (["render", "--help"], RENDERED, 0),
        (["render", "web"], said(["a", "list"]), 76),
        (["render", "web"], answer(b"no JSON", kind="application/json"), 76),
        (["render", "web"], b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{}", 76),
        (["render", "web"], b"SSH-2.0-nothing\r\n", 76),
        (["render", "web"], b"", 76),
    ],
)
def test_answers(tmp_path: Path, words: list[str], reply: bytes, status: int):
    """To whatever the agent answers, and whatever the words are, output, line and status are those of the command line proper."""
    with FakeAgent(tmp_path, reply) as agent:
        found, output, errors = both(words, PRISM_VAULT_SOCKET=agent.path)
        assert (found, bool(errors)) == (status, status != 0)
        asked = agent.requests
        assert asked[: len(asked) // 2] == asked[len(asked) // 2 :]
    assert b"\x1b" not in output + errors


def test_no_agent(tmp_path: Path):
    """Without a socket, without a listener, at a path that is too long or no socket's, the line and the status are the same."""
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(dead))
    for path, status in ((tmp_path / "none", 69), (dead, 69), (tmp_path / ("x" * 120), 69), (tmp_path / "dead.sock/x", 76)):
        assert both(["render", "web", f"--socket={path}"])[0] == status
        assert both(["rotate", "web"], PRISM_VAULT_SOCKET=str(path))[0] == status


@pytest.mark.root
@pytest.mark.tool("setpriv")
def test_a_closed_socket(tmp_path: Path, monkeypatch):
    """A socket that the caller may not use is told as denied, with 77."""
    # Root without the right to pass by modes, because another user may not be able to run this test's interpreter.
    weak = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    monkeypatch.setattr(sys.modules[__name__], "LAUNCHER", [*weak, *LAUNCHER])
    monkeypatch.setattr(sys.modules[__name__], "PROPER", [*weak, *PROPER])
    with FakeAgent(tmp_path, RENDERED) as agent:
        os.chown(agent.path, 12345, 12345)
        os.chmod(agent.path, 0o660)
        status, _, line = both(["render", "web", "--socket", agent.path])
    assert (status, line.count(b"\n")) == (77, 1)


def test_an_agent_that_says_nothing(tmp_path: Path):
    """Where no answer comes in time it is 75: told by the verb with the shortest time, five seconds."""
    with FakeAgent(tmp_path, say_nothing) as agent:
        status, _, line = both(["rotate", "web", "--socket", agent.path])
    assert (status, line) == (75, b"prism-vault: the agent does not answer; see its log, or restart it\n")


@pytest.mark.parametrize(("way", "ended"), [(LAUNCHER, -signal.SIGINT), (PROPER, 130)])
def test_ctrl_c(tmp_path: Path, way: list[str], ended: int):
    """Ctrl-C while the agent works ends the command silently: by that signal or with 130, which is the same in a shell."""
    with FakeAgent(tmp_path, say_nothing) as agent:
        with subprocess.Popen([*way, "render", "web", "--socket", agent.path], stderr=subprocess.PIPE) as client:
            wait_until(lambda: agent.requests)
            client.send_signal(signal.SIGINT)
            assert client.communicate(timeout=20)[1] == b""
        assert client.returncode == ended


def test_nobody_reads(tmp_path: Path):
    """Output that nobody reads any more ends the command with 141, and silently."""
    reader, writer = os.pipe()
    os.close(reader)
    with FakeAgent(tmp_path, RENDERED) as agent:
        words = [*LAUNCHER, "render", "web", "--socket", agent.path]
        done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_module_takes_the_same_way(tmp_path: Path):
    """``python -m prism_vault_agent render`` says what the command says."""
    with FakeAgent(tmp_path, RENDERED) as agent:
        words = [sys.executable, "-m", "prism_vault_agent", "render", "web", "--socket", agent.path]
        done = subprocess.run(words, capture_output=True, check=True, timeout=60)
    assert done.stdout == b"web: generation g\\x1b (pva_1)\n  /r/a\n  /r/b\\n\n"
