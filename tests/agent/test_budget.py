"""One budget for all looks at the provider, at versions and at leases alike."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.agent.budget import Budget
from prism_vault_agent.agent.leases.child import Child, portions
from prism_vault_agent.model import Lease
from tests.audit.nouns import reservation
from tests.support.agent import POLICY
from tests.support.files import filed
from tests.support.leased import LEASES
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.fault_proxy import Seen

RATE = 4


def test_two_who_look_wait_for_each_other():
    """Whoever asks, so many requests take so much time together; what was not used is there for the next."""

    async def look() -> tuple[float, float]:
        budget = Budget(lambda: 20)
        began = time.monotonic()
        await asyncio.gather(budget.take(6), budget.take(6), budget.take(1))
        together = time.monotonic() - began
        budget.unused(1000)
        await budget.take(1)
        return together, time.monotonic() - began - together

    together, after = asyncio.run(look())
    assert together >= 0.6 and after < together


@pytest.mark.parametrize("most", [1, 3, 4, 100])
def test_a_portion_is_no_larger_than_the_budget_of_a_second(most):
    """Child tokens are looked at in portions that the budget allows, each of them once and in order; one alone may be larger."""
    children = [_child(number % 4) for number in range(20)]
    found = list(portions(children, most))
    assert [child for portion in found for child in portion] == children
    assert all(len(portion) == 1 or sum(1 + len(child.lease_ids) for child in portion) <= most for portion in found)


def _child(leases: int) -> Child:
    made = tuple(Lease("a/b", lease_id=f"a/b/{number}", seconds=60) for number in range(leases))
    return Child("accessor", "parent", reservation(), 60, "boot", made)


def test_leases_and_versions_are_looked_at_within_one_budget():
    """With more leases and more versions than the budget allows a second, both are looked at, and together not more often."""
    with filed(poll="1s", vault=f"poll_requests = {RATE}") as made:
        openbao, agent = made.stack.openbao, made.stack.agent
        openbao.must("POST", "sys/mounts/ssh", {"type": "ssh"})
        openbao.must("POST", "ssh/config/ca", {"generate_signing_key": True, "key_type": "ed25519"})
        openbao.must("POST", "ssh/roles/web", {"key_type": "ca", "allow_user_certificates": True, "allowed_users": "*"})
        openbao.policy("prism-vault", POLICY + LEASES + 'path "ssh/sign/*" { capabilities = ["update"] }\n')
        names = [f"both{number}" for number in range(5)]
        for name in names:
            openbao.kv_put(f"secret/{name}", {"key": "v"})
            env = {"KEY": f"vault://secret/{name}#key", "SSH": "vault://ssh/sign/web#private_key"}
            table = {"ssh/sign/web": {"principals": ["deploy"]}}
            agent.scope(name, env, files=[{"path": "d", "format": "dir"}], ssh=table)
        made.reload()
        wait_until(lambda: set(names) <= {scope["name"] for scope in agent.status()["scopes"]})
        made.render(*names)
        after = time.monotonic()

        def looks(what: str) -> list[Seen]:
            return [seen for seen in made.stack.to_openbao.seen if seen.at > after and what in seen.path]

        wait_until(lambda: len(looks("/metadata")) >= 8 and len(looks("/lookup-accessor")) >= 8, 90)
        times = sorted(seen.at for what in ("metadata", "/lookup-accessor") for seen in looks(what))
        # Between the first and the last of these are two portions at least; less what a busy machine lets stand on the way.
        assert all(later - first > 1.0 for first, later in zip(times, times[3 * RATE :], strict=False))
