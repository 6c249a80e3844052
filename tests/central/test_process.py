"""The serving process: what it lets out, how it starts and ends, and how it bears bad clients."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import psutil
import pytest

from prism_vault_agent.audit.event import new_id
from tests.central.host import Host
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until


def connected(central: CentralProcess) -> socket.socket:
    """Return a bare connection to central."""
    host, _, port = central.url.partition("://")[2].rpartition(":")
    return socket.create_connection((host, int(port)), timeout=25)


def test_the_process_cannot_be_read_or_dumped():
    """Before anything is read the process is made not dumpable, without cores, with a umask for its owner only."""
    program = (
        "import ctypes, os, resource; from prism_vault_agent.central.serve import _harden; _harden();"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE), oct(os.umask(0)))"
    )

    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert printed.split(maxsplit=1) == ["0", "(0, 0) 0o77\n"]


def test_nothing_of_a_request_is_logged(central):
    """Logs are JSON lines with request ids; no credential and nothing of a body is in them, whatever goes wrong."""
    canary = f"canary-{new_id()}"
    host = Host(central)
    answers = [
        host.send(host.make("reserved", bindings=canary, run_ref=canary)),
        host.send(host.make("reserved", bindings=canary, purpose=canary)),
        host.client.post("/v1/audit/reservations", content=f'{{"{canary}":'.encode()),
        host.client.post("/v1/audit/events:batch", json={"events": [canary]}),
        host.client.get("/v1/audit/events", params={"limit": canary}),
        host.client.get("/v1/audit/events", headers={"Authorization": f"Bearer {canary}"}),
        host.client.post("/v1/audit/reservations", content=b"{}", headers={"Authorization": f"Bearer {canary}.{canary}.x"}),
    ]
    ids = {answer.headers["x-request-id"] for answer in answers}
    wait_until(lambda: any(answers[-1].headers["x-request-id"] in line for line in central.log))
    lines = [json.loads(line) for line in central.log]

    assert len(ids) == len(answers)
    assert all("event" in line and "timestamp" in line for line in lines)
    assert canary not in "".join(central.log)
    assert not [token for token in (*central.agent_tokens.values(), central.operator_token) if token in "".join(central.log)]
    assert canary not in "".join(answer.text for answer in answers[2:])


def cut_off(client: socket.socket) -> bool:
    """Send an endless head and tell whether it was answered or the connection closed before 800 kB."""
    try:
        for _ in range(100):
            client.sendall(b"X-Filler: " + b"x" * 8000 + b"\r\n")
        return client.recv(64).startswith(b"HTTP/1.1 431 ")
    except ConnectionError:
        return True


def test_a_head_that_is_too_large_ends_the_connection(central):
    """A request whose head does not end within 32 KiB is cut off, and others are served meanwhile."""
    with connected(central) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n")

        assert cut_off(client)
    with central.client() as other:
        assert other.get("/healthz").status_code == 200


def test_slow_requests_end_in_time(central, host):
    """A connection that says nothing, a head and a body that do not come to their end are closed within 20 s."""
    starts = [b"", b"GET /healthz HTTP/1.1\r\nHost:", b"POST /v1/audit/reservations HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"]
    clients = [connected(central) for _ in starts]
    for client, start in zip(clients, starts, strict=True):
        client.settimeout(20)
        client.sendall(start)
    try:
        for client in clients:
            while client.recv(4096):
                pass
    finally:
        for client in clients:
            client.close()


@pytest.mark.root  # central is not dumpable: only root may count its descriptors
def test_many_idle_connections_do_not_stop_a_good_one(central, host):
    """With 500 connections that send half a head, appends are answered, and the descriptors come back."""
    process = psutil.Process(central.process.pid)
    before = process.num_fds()
    idle = [connected(central) for _ in range(500)]
    for client in idle:
        client.sendall(b"POST /v1/audit")

    answers = [host.send(host.make("reserved")) for _ in range(20)]
    for client in idle:
        client.close()

    assert {answer.status_code for answer in answers} == {201}
    wait_until(lambda: process.num_fds() <= before + 5)


def test_garbage_is_answered_and_survived(central):
    """Bytes that are no HTTP, unknown routes and methods get an error each, and central goes on."""
    for garbage in (b"\x00\xff" * 100 + b"\r\n\r\n", b"GET\r\n\r\n", b"POST /v1/audit/reservations HTTP/9.9\r\n\r\n"):
        with connected(central) as client:
            client.sendall(garbage)
            assert client.recv(64).startswith((b"HTTP/1.1 4", b""))
    with central.client() as client:
        statuses = [
            client.get("/nothing").status_code,
            client.put("/v1/audit/events").status_code,
            client.get("/v1/audit/reservations").status_code,
            client.post("/v1/audit/reservations/x/y").status_code,
            client.get("/healthz").status_code,
        ]

    assert statuses == [404, 405, 405, 404, 200]
