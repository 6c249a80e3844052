"""T16: the socket lets in whom its mode names, and whoever gets in all the same gets nothing from policy."""

from __future__ import annotations

import functools
import json
import os
import stat
from pathlib import Path

import pytest

from tests.agent.asking import ask, exec_request, last_audit_id
from tests.support.as_user import in_child
from tests.support.attackers import STRANGERS_UID
from tests.support.waiting import wait_until


def asked(path: str, request: bytes) -> tuple[int, str]:
    """Return what another user of the host is told: the status, and the body."""
    told = in_child(lambda: ask(path, request), STRANGERS_UID, STRANGERS_UID)
    return told.status, told.body.decode()


def to_render(name: str) -> bytes:
    body = json.dumps({"scopes": [name]}).encode()
    head = f"POST /v1/render HTTP/1.1\r\nHost: prism-vault\r\nX-Prism-Vault: 1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.root
def test_t16_an_open_socket_is_still_refused_by_policy(made):
    """A stranger is refused by the kernel; after ``chmod 666`` by policy, with a row of its own: no value, and no file."""
    name = made.scope("closed")
    path = Path(made.stack.agent.socket)
    path.parent.chmod(0o755)
    path.parent.parent.chmod(0o711)
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
    with pytest.raises(PermissionError):
        asked(str(path), exec_request(name))
    before = stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o666)
    try:
        status, line = asked(str(path), exec_request(name))
        assert status == 403
        status, body = asked(str(path), to_render(name))
        assert status == 403
        for told, audit_id in ((line, last_audit_id(line)), (body, json.loads(body)["audit_id"])):
            assert "matches none of its callers" in told and made.stack.canary not in told
            (row,) = wait_until(functools.partial(made.rows, audit_id), 30)
            assert (row["kind"], row["reason"], row["caller"]["uid"]) == ("denied", "caller", STRANGERS_UID)
    finally:
        path.chmod(before)
    assert made.file(name) is None and name not in os.listdir(made.top)
