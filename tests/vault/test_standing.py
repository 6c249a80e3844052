"""What metadata says of versions that were given out: one list for a folder where the server has it, single reads else."""

from __future__ import annotations

import pytest

from prism_vault_agent.errors import ProviderUnavailable, TokenExpired
from prism_vault_agent.vault.standing import look
from tests.support.counting_proxy import CountingProxy
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.vault import soon, transport

MOUNTS = {"stood/": 2}
NAMES = ("kept", "newer", "deleted", "destroyed", "erased", "hidden")
LISTING = 'path "stood/detailed-metadata/*" { capabilities = ["list"] }'
READING = 'path "stood/metadata/*" { capabilities = ["read"] }'
CLOSED = 'path "stood/metadata/*" { capabilities = ["deny"] }'
HIDING = 'path "stood/metadata/lan/hidden" { capabilities = ["deny"] }'


@pytest.fixture(scope="module")
def stood(bao):
    """A server with a secret for each thing that can become of one."""
    bao.mount_kv("stood")
    for name in NAMES:
        bao.kv_put(f"stood/lan/{name}", {"v": "1"})
    bao.kv_put("stood/lan/newer", {"v": "2"})
    bao.must("DELETE", "stood/data/lan/deleted")
    bao.must("PUT", "stood/destroy/lan/destroyed", {"versions": [1]})
    bao.must("DELETE", "stood/metadata/lan/erased")
    for number, text in enumerate((f"{LISTING}\n{READING}", READING, f"{LISTING}\n{READING}\n{HIDING}", CLOSED)):
        bao.policy(f"stood-{number}", text)
    return bao


WITHDRAWN = {
    ("stood/lan/deleted", 1): "deleted",
    ("stood/lan/destroyed", 1): "destroyed",
    ("stood/lan/erased", 1): "no_such_path",
}


@pytest.mark.parametrize(
    ("policy", "requests"),
    [
        pytest.param("stood-0", ["LIST detailed-metadata/lan/", "GET metadata/lan/erased"], id="listed"),
        pytest.param(
            "stood-1", ["LIST detailed-metadata/lan/", *(f"GET metadata/lan/{name}" for name in NAMES)], id="not listed"
        ),
    ],
)
def test_a_folder_takes_one_list(stood, policy, requests):
    """The list of a folder tells what single reads tell, in one request; what is missing in it is asked for by itself."""
    with CountingProxy(stood.port) as proxy:
        versions = [(f"stood/lan/{name}", 1) for name in NAMES]
        told = look(transport(proxy.address), stood.token([policy]), versions, MOUNTS, deadline=soon())
        assert told.withdrawn == WITHDRAWN
        assert told.newest == {"stood/lan/kept": 1, "stood/lan/newer": 2, "stood/lan/hidden": 1}
        assert [line.replace("/v1/stood/", "") for line in proxy.lines] == requests
        assert (told.requests, told.failed) == (len(requests), {})
        assert told.unlisted == ([] if policy == "stood-0" else ["stood/lan/"])


def test_what_is_not_listed_is_not_listed_again(stood):
    """A folder that is known not to be listed is asked path by path at once."""
    with CountingProxy(stood.port) as proxy:
        versions = [(f"stood/lan/{name}", 1) for name in NAMES]
        token = stood.token(["stood-1"])
        look(transport(proxy.address), token, versions, MOUNTS, deadline=soon(), unlisted=["stood/lan/"])
        assert not [line for line in proxy.lines if line.startswith("LIST")]


def test_what_may_not_be_read_is_not_withdrawn(stood):
    """A path that our policy hides is neither withdrawn nor failed, whatever a list says."""
    versions = [(f"stood/lan/{name}", 1) for name in NAMES]
    told = look(transport(stood.address), stood.token(["stood-2"]), versions, MOUNTS, deadline=soon())
    assert told.withdrawn == WITHDRAWN
    assert not told.failed


def test_a_dead_token_is_told_from_a_lack_of_policy(stood):
    """Where everything is denied, a dead token raises, and a living one withdraws nothing."""
    versions = [("stood/lan/kept", 1)]
    assert not look(transport(stood.address), stood.token(["stood-3"]), versions, MOUNTS, deadline=soon()).withdrawn
    with pytest.raises(TokenExpired):
        look(transport(stood.address), "s.dead", versions, MOUNTS, deadline=soon())


def test_one_path_that_fails_is_told_alone(stood):
    """A path that the server cannot answer is told with its reason, the only one too; where it answers none, it is away."""
    versions = [(f"stood/lan/{name}", 1) for name in ("kept", "deleted")]
    token = stood.token(["stood-0"])
    bad = Fault("answer", status=500, body=b'{"errors":[]}')
    with FaultProxy(stood.port, lambda seen: bad if seen.path.endswith("/kept") else None) as proxy:
        told = look(transport(proxy.address), token, versions, MOUNTS, deadline=soon())
        assert (list(told.failed), told.withdrawn) == (["stood/lan/kept"], {("stood/lan/deleted", 1): "deleted"})
        told = look(transport(proxy.address), token, versions[:1], MOUNTS, deadline=soon())
        assert (list(told.failed), told.requests) == (["stood/lan/kept"], 2)
    with FaultProxy(stood.port, lambda _: bad) as proxy, pytest.raises(ProviderUnavailable):
        look(transport(proxy.address), token, versions, MOUNTS, deadline=soon())
