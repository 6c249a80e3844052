"""Reading secrets from a real OpenBao."""

from __future__ import annotations

import pytest

from prism_vault_agent.errors import ConfigError, ProtocolError, SecretNotFound
from prism_vault_agent.model import Lease
from prism_vault_agent.vault import reading
from tests.support.openbao import OpenBao
from tests.support.vault import all_keys, bind, read, soon, transport
from tests.support.waiting import wait_until


def missing(bao: OpenBao, token: str, **references: str) -> SecretNotFound:
    with pytest.raises(SecretNotFound) as failed:
        read(bao, token, bind(**references))
    assert failed.value.exit_status == 66
    assert all(f"vault://{text}".split("#")[0].split("?")[0] in failed.value.line() for text in references.values())
    return failed.value


def test_bindings_of_several_paths_are_read_in_their_order(bao: OpenBao, token: str) -> None:
    """Each name gets its key's value; the leases say which versions were read; the values are never shown."""
    bao.kv_put("secret/order/a", {"one": "CANARY-1", "two": "CANARY-2"})
    bao.kv_put("secret/order/b", {"one": "old"})
    bao.kv_put("secret/order/b", {"one": "CANARY-3"})
    found = read(bao, token, bind(B="secret/order/b#one", TWO="secret/order/a#two", ONE="secret/order/a#one"))
    assert list(found.values.items()) == [("B", "CANARY-3"), ("TWO", "CANARY-2"), ("ONE", "CANARY-1")]
    assert [(lease.path, lease.version) for lease in found.leases] == [("secret/order/b", 2), ("secret/order/a", 1)]
    assert "CANARY" not in repr(found)


STORED = (
    '{"INT": 8200, "BIG": 123456789012345678901234567890, "PRICE": 1.10, "HUGE": 1e300, "YES": true, "NO": false,'
    ' "NOTHING": null, "LIST": [1.50, "<a>", {"é": null}], "TEXT": "a\\u0000b\\n\\"\\u2028é", "EMPTY": ""}'
)
DELIVERED = {
    "INT": "8200",
    "BIG": "123456789012345678901234567890",
    "PRICE": "1.10",
    "HUGE": "1e300",
    "YES": "true",
    "NO": "false",
    "NOTHING": "null",
    "LIST": '[1.50,"<a>",{"é":null}]',
    "TEXT": 'a\0b\n"\u2028é',
    "EMPTY": "",
}


def test_every_type_is_delivered_by_the_documented_rule(bao: OpenBao) -> None:
    """What is stored as a number, boolean, null, list or object comes as its JSON text, digits as they were written."""
    bao.mount_kv("typed", version=1)
    bao.must("POST", "typed/types", STORED)
    assert read(bao, bao.root_token, all_keys("typed/types")).values == DELIVERED


def test_numbers_come_in_the_digits_that_the_server_answers(bao: OpenBao, token: str) -> None:
    """KV v2 keeps a number as a 64-bit float, and what it answers is delivered as it stands; the rest as in KV v1."""
    bao.must("POST", "secret/data/types", f'{{"data": {STORED}}}')
    kept = {"BIG": "1.2345678901234568e+29", "PRICE": "1.1", "HUGE": "1e+300", "LIST": '[1.5,"<a>",{"é":null}]'}
    assert read(bao, token, all_keys("secret/types")).values == DELIVERED | kept


@pytest.mark.parametrize("value", ["x" * 1_048_576, "é<" * 349_525], ids=["letters", "two bytes and an escape"])
def test_a_value_of_one_mebibyte_is_read(value: str, bao: OpenBao, token: str) -> None:
    """A value of 1 MiB passes, also where the server writes it with escapes."""
    bao.kv_put("secret/large", {"k": value})
    assert read(bao, token, bind(K="secret/large#k")).values == {"K": value}


def test_a_secret_larger_than_an_answer_may_be_is_refused(bao: OpenBao, token: str) -> None:
    """A secret beyond 6.5 MiB is a protocol error that says the limit."""
    bao.kv_put("secret/too-large", {"k": "<" * 800_000, "l": "<" * 800_000})
    with pytest.raises(ProtocolError) as refused:
        read(bao, token, bind(K="secret/too-large#k"))
    assert "6815744 bytes" in refused.value.line()


def test_pinned_versions(bao: OpenBao, token: str) -> None:
    """A pinned version is read whatever is newer; the same path may be read in two versions."""
    for text in ("first", "second", "third"):
        bao.kv_put("secret/pinned", {"k": text})
    found = read(bao, token, bind(A="secret/pinned#k?version=1", B="secret/pinned#k", C="secret/pinned#k?version=2"))
    assert found.values == {"A": "first", "B": "third", "C": "second"}
    assert [lease.version for lease in found.leases] == [1, 3, 2]


def test_what_is_not_there_is_told_apart(bao: OpenBao, token: str) -> None:
    """Missing path, key and version, deleted and destroyed are five reasons, each naming the reference (F9)."""
    for _ in range(3):
        bao.kv_put("secret/gone", {"k": "CANARY"})
    assert missing(bao, token, A="secret/no/such#k").reason == "no_such_path"
    assert missing(bao, token, A="secret/gone#other").reason == "no_such_key"
    assert missing(bao, token, A="secret/gone#k?version=9").reason == "no_such_version"
    assert missing(bao, token, A="secret/no/such#k?version=9").reason == "no_such_path"
    bao.must("POST", "secret/delete/gone", {"versions": [3, 2]})
    assert missing(bao, token, A="secret/gone#k").reason == "deleted"
    assert missing(bao, token, A="secret/gone#k?version=2").reason == "deleted"
    assert missing(bao, token, A="secret/gone#k?version=9").reason == "no_such_version"
    bao.must("POST", "secret/destroy/gone", {"versions": [3]})
    assert missing(bao, token, A="secret/gone#k").reason == "destroyed"
    assert read(bao, token, bind(A="secret/gone#k?version=1")).values == {"A": "CANARY"}
    bao.must("DELETE", "secret/metadata/gone")
    assert missing(bao, token, A="secret/gone#k").reason == "no_such_path"


def test_a_version_that_will_be_deleted_is_alive_until_then(bao: OpenBao, token: str) -> None:
    """A deletion_time in the future is no deletion: the value is read, and its lease says how long it lasts."""
    bao.must("POST", "secret/metadata/mortal", {"delete_version_after": "1h"})
    bao.kv_put("secret/mortal", {"k": "alive"})
    found = read(bao, token, bind(A="secret/mortal#k"))
    assert found.values == {"A": "alive"}
    assert 3590 <= found.leases[0].seconds <= 3600


def test_a_version_whose_time_has_come_is_deleted(bao: OpenBao, token: str) -> None:
    """Once the deletion_time has passed, the version is deleted."""
    bao.must("POST", "secret/metadata/dead", {"delete_version_after": "1s"})
    bao.kv_put("secret/dead", {"k": "CANARY"})
    wait_until(lambda: bao.request("GET", "secret/data/dead")[0] == 404)
    assert missing(bao, token, A="secret/dead#k").reason == "deleted"


def test_kv_version_1(bao: OpenBao) -> None:
    """A KV v1 mount is recognised; it has no versions to pin; keys called data and metadata are keys."""
    bao.mount_kv("plain", version=1)
    bao.must("POST", "plain/app/db", {"k": "v1", "data": "d", "metadata": "m", "n": 1.5})
    found = read(bao, bao.root_token, bind(K="plain/app/db#k", D="plain/app/db#data", N="plain/app/db#n"))
    assert found.values == {"K": "v1", "D": "d", "N": "1.5"}
    assert found.leases == (Lease("plain/app/db"),)
    assert missing(bao, bao.root_token, A="plain/app/none#k").reason == "no_such_path"
    assert missing(bao, bao.root_token, A="plain/app/db#none").reason == "no_such_key"
    with pytest.raises(ConfigError) as refused:
        read(bao, bao.root_token, bind(K="plain/app/db#k?version=1"))
    assert "version 1" in refused.value.line()


def test_a_mount_of_several_parts_and_a_path_below_a_namespace(bao: OpenBao) -> None:
    """The mount is what the server says it is, however many parts it has and whatever namespace comes before it."""
    bao.mount_kv("team/kv")
    bao.must("POST", "team/kv/data/a/b", {"data": {"k": "deep"}})
    assert read(bao, bao.root_token, bind(K="team/kv/a/b#k")).values == {"K": "deep"}
    bao.must("POST", "sys/namespaces/team-b", {})
    bao.mount_kv("kv", namespace="team-b")
    bao.must("POST", "kv/data/a", {"data": {"k": "inner"}}, namespace="team-b")
    found = read(bao, bao.root_token, bind(K="team-b/kv/a#k"))
    assert (found.values, found.mounts) == ({"K": "inner"}, {"team-b/kv/": 2})
    through = transport(bao.address, namespace="team-b")
    assert reading.read(through, bao.root_token, bind(K="kv/a#k"), deadline=soon()).values == {"K": "inner"}


def test_a_mount_that_holds_no_secrets_is_refused_by_its_name(bao: OpenBao) -> None:
    """A mount of the server's own is a configuration error that says what it is."""
    with pytest.raises(ConfigError, match="the mount cubbyhole/ is of type cubbyhole") as refused:
        read(bao, bao.root_token, bind(K="cubbyhole/a#k"))
    assert refused.value.reason == "unsupported_mount"


def test_an_engine_that_may_give_leases_is_refused_where_nobody_would_give_them_back(bao: OpenBao) -> None:
    """Without a child token to read with, as in ``exec --direct``, nothing but KV is read, and nothing is asked for."""
    bao.must("POST", "sys/mounts/keys", {"type": "transit"})
    with pytest.raises(ConfigError, match=r"not of a KV mount.*nobody would give back its lease"):
        read(bao, bao.root_token, bind(K="keys/export/a#k"))


def test_all_keys_of_a_path_become_names(bao: OpenBao, token: str) -> None:
    """Without a key, the secret's own keys are the names."""
    bao.kv_put("secret/all", {"DB_HOST": "h", "db_port": 5432})
    assert read(bao, token, all_keys("secret/all")).values == {"DB_HOST": "h", "db_port": "5432"}


@pytest.mark.parametrize("key", ["A B", "1A", "", "LD_PRELOAD", "PATH", "BASH_FUNC_x%%", "é", "A=B", "A\nB"])
def test_a_key_that_cannot_be_a_name_is_refused_by_its_name(key: str, bao: OpenBao, token: str) -> None:
    """A bad or dangerous key is named, escaped, without its value; nothing of the path is delivered."""
    bao.kv_put("secret/bad-names", {"GOOD": "CANARY", key: "CANARY"})
    with pytest.raises(ConfigError) as refused:
        read(bao, token, all_keys("secret/bad-names"))
    assert "secret/bad-names" in refused.value.line()
    assert "CANARY" not in refused.value.line()
    assert "\n" not in refused.value.line()


def test_a_dangerous_key_is_a_name_where_the_scope_allows_it(bao: OpenBao, token: str) -> None:
    """A scope that allows the name gets it."""
    bao.kv_put("secret/allowed", {"PATH": "/opt/bin"})
    allowed = read(bao, token, all_keys("secret/allowed"), allow_names=frozenset({"PATH"}))
    assert allowed.values == {"PATH": "/opt/bin"}


def test_one_name_with_two_values_is_refused(bao: OpenBao, token: str) -> None:
    """A name that two references give differently is an error; the same value twice is none."""
    bao.kv_put("secret/twice/a", {"K": "CANARY-1", "SAME": "s"})
    bao.kv_put("secret/twice/b", {"K": "CANARY-2", "SAME": "s"})
    with pytest.raises(ConfigError) as refused:
        read(bao, token, all_keys("secret/twice/a") + all_keys("secret/twice/b"))
    assert refused.value.line().startswith("K has two")
    assert "CANARY" not in refused.value.line()
    assert read(bao, token, bind(SAME="secret/twice/a#SAME") + bind(SAME="secret/twice/b#SAME")).values == {"SAME": "s"}
