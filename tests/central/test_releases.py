"""What a revocation finds to be still out there, in a log that is looked at piece by piece."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.audit.target import Target
from prism_vault_agent.central.log import releases
from prism_vault_agent.central.log.orders import Order, place
from prism_vault_agent.central.log.releases import Revocations
from tests.central.own_log import OwnLog, operator

if TYPE_CHECKING:
    from tests.central.own_log import Databases


@pytest.mark.parametrize("most", [1, 2, 3, 20_000])
def test_every_release_is_found_however_few_are_looked_at_once(databases: Databases, monkeypatch: pytest.MonkeyPatch, most: int):
    """What was not taken back before is left, once each, and nothing that came after the revocation."""
    monkeypatch.setattr(releases, "MOST_LOOKED_AT", most)
    with OwnLog(databases.new()) as log:
        left = []
        for number in range(7):
            reservation = log.render()
            if number % 2:
                assert log.send(log.make("cleared", reservation)).appended
            else:
                left.append(reservation)
        log.render(ending="")
        order = Order(new_id(), "revocation", "ops", Target(frozenset({"*"})), emergency=False, reason="")
        placed: Any = log.store.run([partial(place, order=order)])[0]
        log.render()
        found: Any = Revocations(log.readers, lambda _signal: []).evidence(operator("*"), placed.signal)

    assert [(host["host"], host["left"]) for host in found["hosts"]] == [("server1", 4)]
    assert sorted(each["audit_id"].removeprefix("pva_") for each in found["hosts"][0]["releases"]) == sorted(left)
