"""``doctor`` tells which right the agent's role lacks at the provider, with the line of the policy that grants it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.files import Filed, filed
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDED = {
    "secret/data/rights": "read",
    "kv1/rights": "read",
    "database/creds/rights": "read",
    "database/static-creds/rights": "read",
    "pki/issue/rights": "update",
    "ssh/sign/rights": "update",
    "transit/decrypt/rights": "update",
    "secret/data/kept": "read",
    "auth/token/create": "update",
    "auth/token/lookup-accessor": "update",
    "auth/token/renew-accessor": "update",
    "auth/token/revoke-accessor": "update",
}
BETTER = {
    "secret/metadata/rights": "read",
    "secret/metadata/kept": "read",
    "transit/keys/rights": "read",
    "database/static-roles/rights": "read",
}
# Of the default policy of a server.
DEFAULT = {"sys/leases/lookup": "update", "sys/leases/renew": "update"}
NAME = "the agent's role may do what the scopes take"


def policy(rights: dict[str, str]) -> str:
    """Return the policy that grants these and nothing else."""
    return "".join(f'path "{path}" {{ capabilities = ["{each}"] }}\n' for path, each in rights.items())


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack with an engine of each kind, and one scope that takes something of each."""
    with filed() as running:
        openbao, agent = running.stack.openbao, running.stack.agent
        openbao.mount_kv("kv1", version=1)
        for kind in ("database", "pki", "ssh", "transit"):
            openbao.must("POST", f"sys/mounts/{kind}", {"type": kind})
        openbao.policy("prism-vault", policy(NEEDED | BETTER))
        env = {
            "A": "vault://secret/rights#a", "B": "vault://kv1/rights#b", "C": "vault://database/creds/rights#username",
            "D": "vault://pki/issue/rights#certificate", "E": "vault://ssh/sign/rights#signed_key",
            "F": "vault://transit/decrypt/rights#f", "G": "vault://database/static-creds/rights#password",
        }  # fmt: skip
        tables: dict[str, Any] = {
            "certificates": {"pki/issue/rights": {"common_name": "a.lan"}},
            "ssh": {"ssh/sign/rights": {"principals": ["a"]}},
            "transit": {"transit/decrypt/rights": {"f": {"ciphertext": "vault://secret/kept#f"}}},
        }
        (agent.directory / "scopes.d" / "web.toml").unlink()
        agent.scope("rights", env, **tables)
        running.reload()
        wait_until(lambda: [scope["name"] for scope in agent.status()["scopes"]] == ["rights"])
        yield running


def doctor(made: Filed) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return how doctor ends, and what it says of the role's rights."""
    done = made.command("doctor", "--config", str(made.stack.agent.config), "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    return done.returncode, {name: check for name, check in checks.items() if name.startswith("the agent's role")}


def test_what_docs_say_is_enough(made):
    """With the rights that the documents name, and the default policy of the server, nothing is missing."""
    status, checks = doctor(made)
    assert status == 0 and list(checks) == [NAME]
    assert (checks[NAME]["state"], checks[NAME]["why"]) == ("holds", f"{len(NEEDED | BETTER | DEFAULT)} rights")


TOKENS = tuple(path for path in NEEDED if path.startswith("auth/"))
ENGINES = tuple(path for path in NEEDED if path not in TOKENS)


@pytest.mark.parametrize("without", [TOKENS, ENGINES, tuple(BETTER)], ids=["tokens", "engines", "looks"])
def test_each_missing_right_is_told_with_the_line_that_grants_it(made, without):
    """Doctor names each right that is missing, and no other, with its line; it ends with 78 where nothing works without one."""
    rights = NEEDED | BETTER
    made.stack.openbao.policy("prism-vault", policy({path: rights[path] for path in rights if path not in without}))
    try:
        status, checks = doctor(made)
    finally:
        made.stack.openbao.policy("prism-vault", policy(rights))
    lines = {f'add to its policy: path "{path}" {{ capabilities = ["{rights[path]}"] }}' for path in without}
    if without is ENGINES:  # without any right on a mount the server does not tell what it is, so only that it is to be read
        lines = {line.replace('"update"', '"read"') if "transit" not in line else line for line in lines}
    assert {check["mend"] for check in checks.values()} == lines
    assert all(check["state"] == "does not hold" for check in checks.values())
    assert {check["needed"] for check in checks.values()} == {without[0] in NEEDED}
    assert status == (78 if without[0] in NEEDED else 0)


def test_the_server_is_asked_and_nothing_is_tried(made):
    """What doctor wants to know costs no secret read, no token and no lease."""
    openbao = made.stack.to_openbao
    before = len(openbao.seen)
    doctor(made)
    asked = {seen.path.partition("?")[0].removeprefix("/v1/") for seen in openbao.seen[before:]}
    assert "sys/capabilities-self" in asked
    assert {path for path in asked if not path.startswith(("sys/", "secret/metadata", "auth/token/lookup"))} == set()


def test_without_an_agent_it_is_not_known(made):
    """Who has no agent to ask is told so, and nothing is guessed."""
    made.stack.agent.stop()
    try:
        _, checks = doctor(made)
        assert (checks[NAME]["state"], checks[NAME]["mend"]) == ("unknown", "start it")
    finally:
        made.stack.agent.start()
