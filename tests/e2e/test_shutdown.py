"""A host that is shut down: its agent gives its token back, by a relay that ends after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.agent_unit import AGENT, AgentUnit
from tests.support.booted import Booted
from tests.support.central import CentralProcess
from tests.support.openbao import OpenBao
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


def logins(openbao: OpenBao) -> int:
    """Return how many tokens there are that somebody logged in with."""
    found = [
        openbao.request("POST", "auth/token/lookup-accessor", {"accessor": each})
        for each in openbao.must("LIST", "auth/token/accessors")["data"]["keys"]
    ]
    return sum(status == 200 and answer["data"]["path"] == "auth/approle/login" for status, answer in found)


def test_the_token_is_given_back(tmp_path: Path):
    """An agent that is ready has a token; once its host is off the server has none of it."""
    for name in ("openbao", "central", "booted"):
        (tmp_path / name).mkdir()
    with OpenBao(tmp_path / "openbao") as openbao, CentralProcess(tmp_path / "central") as central:
        with Booted(tmp_path / "booted", our_network=True) as booted:
            unit = AgentUnit(booted, openbao, central)
            unit.systemctl("start", AGENT)
            wait_until(lambda: unit.status()["ready"])
            assert logins(openbao) > 0
        assert logins(openbao) == 0, (tmp_path / "booted/boot.log").read_text()[-3000:]
