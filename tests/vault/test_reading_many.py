"""Reading many secrets at once, and again: how often the real OpenBao is asked."""

from __future__ import annotations

import time

import pytest

from prism_vault_agent.config.settings import TlsFiles
from prism_vault_agent.errors import ProviderUnavailable, SecretNotFound
from prism_vault_agent.vault import reading
from tests.support.counting_proxy import CountingProxy
from tests.support.openbao import OpenBao
from tests.support.vault import bind, read, soon, transport


def test_n_paths_are_n_requests_and_one_for_the_mount(bao: OpenBao, token: str) -> None:
    """Keys of one path share a request, and a mount is looked up once; a later reading does not look it up again."""
    for number in range(5):
        bao.kv_put(f"secret/count/{number}", {"a": "1", "b": "2"})
    bindings = bind(**{f"{key}{number}": f"secret/count/{number}#{key}" for number in range(5) for key in "ab"})
    with CountingProxy(bao.port) as proxy:
        found = reading.read(transport(proxy.address), token, bindings, deadline=soon())
        assert len(found.values) == 10
        assert len(proxy.lines) == len(set(proxy.lines)) == 6
        reading.read(transport(proxy.address), token, bindings, deadline=soon(), mounts=found.mounts)
        assert len(proxy.lines) == 11


def test_a_mount_that_has_changed_since_is_found_out(bao: OpenBao) -> None:
    """A mount remembered as version 1 that is version 2 now, or the reverse, costs a look-up and no error."""
    bao.mount_kv("changed-1", version=1)
    bao.mount_kv("changed-2", version=2)
    bao.must("POST", "changed-1/a", {"k": "one"})
    bao.must("POST", "changed-2/data/a", {"data": {"k": "two"}})
    bindings = bind(A="changed-1/a#k", B="changed-2/a#k?version=1")
    found = read(bao, bao.root_token, bindings, mounts={"changed-1/": 2, "changed-2/": 1})
    assert found.values == {"A": "one", "B": "two"}
    assert found.mounts == {"changed-1/": 1, "changed-2/": 2}


def test_a_thousand_paths_take_no_more_than_sixteen_connections(bao: OpenBao, token: str) -> None:
    """A thousand paths are a thousand and one requests over at most sixteen connections."""
    for number in range(1000):
        bao.kv_put(f"secret/many/{number}", {"k": f"value-{number}"})
    bindings = bind(**{f"V{number}": f"secret/many/{number}#k" for number in range(1000)})
    with CountingProxy(bao.port) as proxy:
        found = reading.read(transport(proxy.address), token, bindings, deadline=soon(60))
    assert found.values == {f"V{number}": f"value-{number}" for number in range(1000)}
    assert [lease.path for lease in found.leases] == [f"secret/many/{number}" for number in range(1000)]
    assert len(proxy.lines) == 1001
    assert 1 < proxy.connections <= 16
    started = time.monotonic()
    read(bao, token, bindings)
    assert time.monotonic() - started < 5  # far above what tests/bench measures; a change of order shows


def test_one_missing_path_among_many_stops_the_rest(bao: OpenBao, token: str) -> None:
    """All or nothing: the missing one is named, and the reading ends early."""
    for number in range(100):
        bao.kv_put(f"secret/partly/{number}", {"k": "v"})
    bindings = bind(**{f"V{number}": f"secret/partly/{number or 'none'}#k" for number in range(100)})
    with CountingProxy(bao.port) as proxy, pytest.raises(SecretNotFound) as failed:
        reading.read(transport(proxy.address), token, bindings, deadline=soon())
    assert "vault://secret/partly/none" in failed.value.line()
    assert len(proxy.lines) < 101


def test_a_lost_connection_among_many_is_repaired(bao: OpenBao, token: str) -> None:
    """A connection that ends between login and reading costs nothing but a new one (F18)."""
    bao.kv_put("secret/repaired", {"k": "v"})
    with CountingProxy(bao.port) as proxy:
        client = transport(proxy.address)
        assert reading.read(client, token, bind(K="secret/repaired#k"), deadline=soon()).values == {"K": "v"}
        proxy.cut()
        assert reading.read(client, token, bind(K="secret/repaired#k"), deadline=soon()).values == {"K": "v"}


def test_sealed_and_restarted(tls_bao: OpenBao) -> None:
    """A sealed server is told as sealed; after a restart and unsealing the same transport reads on."""
    assert tls_bao.tls
    tls_bao.kv_put("secret/sealed", {"k": "v"})
    client = transport(tls_bao.address, tls=TlsFiles(ca_file=str(tls_bao.tls.ca_file)))
    assert reading.read(client, tls_bao.root_token, bind(K="secret/sealed#k"), deadline=soon()).values == {"K": "v"}
    tls_bao.seal()
    with pytest.raises(ProviderUnavailable) as sealed:
        reading.read(client, tls_bao.root_token, bind(K="secret/sealed#k"), deadline=soon(3))
    assert sealed.value.reason == "sealed"
    tls_bao.restart()
    assert reading.read(client, tls_bao.root_token, bind(K="secret/sealed#k"), deadline=soon()).values == {"K": "v"}


def test_several_releases_are_read_with_one_request_a_path(bao: OpenBao, token: str) -> None:
    """What several want of the same paths is asked for once; each gets its own values and leases, or its own error."""
    for name in ("one", "two"):
        bao.kv_put(f"secret/each/{name}", {"a": f"{name}-a", "b": f"{name}-b"})
    wanted = [
        (bind(A="secret/each/one#a"), frozenset[str]()),
        (bind(A="secret/each/one#a", B="secret/each/two#b"), frozenset[str]()),
        (bind(A="secret/each/two#missing"), frozenset[str]()),
    ]
    with CountingProxy(bao.port) as proxy:
        first, second, third = reading.read_each(transport(proxy.address), token, wanted, deadline=soon(), mounts={})
        assert len(proxy.lines) == 3  # and one for the mount
    assert isinstance(first, reading.Reading) and isinstance(second, reading.Reading)
    assert (first.values, [lease.path for lease in first.leases]) == ({"A": "one-a"}, ["secret/each/one"])
    assert second.values == {"A": "one-a", "B": "two-b"}
    assert [lease.path for lease in second.leases] == ["secret/each/one", "secret/each/two"]
    assert isinstance(third, SecretNotFound) and third.reason == "no_such_key"


def test_a_path_that_cannot_be_read_is_nobodys_answer(bao: OpenBao, token: str) -> None:
    """Where a path of one release is missing none is answered: each is to be read by itself."""
    bao.kv_put("secret/each/there", {"a": "1"})
    wanted = [(bind(A="secret/each/there#a"), frozenset[str]()), (bind(A="secret/each/gone#a"), frozenset[str]())]
    with pytest.raises(SecretNotFound):
        reading.read_each(transport(bao.address), token, wanted, deadline=soon(), mounts={})
