"""Values that are kept encrypted and decrypted by a key of transit at each release, end to end with a real engine."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.asking import pid_of
from tests.support.agent import POLICY
from tests.support.files import Filed, filed
from tests.support.memory import copies
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

# What docs/leases.md says that the agent's role needs.
TRANSIT = """
path "transit/decrypt/*" { capabilities = ["update"] }
path "transit/keys/*" { capabilities = ["read"] }
"""
BINARY = bytes(range(1, 256))


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack with a transit engine; each test has a key, a secret and a scope of its own in it."""
    with filed() as running:
        running.stack.openbao.must("POST", "sys/mounts/transit", {"type": "transit"})
        running.stack.openbao.policy("prism-vault", POLICY + TRANSIT)
        yield running


def plain(made: Filed, name: str, number: int = 1) -> str:
    """Return what a scope's ciphertext says."""
    return f"{made.stack.canary}-{name}-{number}"


def b64(value: bytes | str) -> str:
    """Return base64 of something, as the engine wants it."""
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def encrypted(made: Filed, key: str, value: bytes | str, **more: str) -> str:
    """Return a ciphertext; the key is made where there is none."""
    return str(made.stack.openbao.must("POST", f"transit/encrypt/{key}", {"plaintext": b64(value), **more})["data"]["ciphertext"])


def scope(made: Filed, name: str, entry: dict[str, str] | None = None, **more: Any) -> str:
    """Make a scope whose VALUE is decrypted, as an ``entry`` says; else of what stands in a secret of its name."""
    if entry is None:
        made.stack.openbao.kv_put(f"secret/{name}", {"enc": encrypted(made, name, plain(made, name))})
        entry = {"ciphertext": f"vault://secret/{name}#enc"}
    path = f"transit/decrypt/{name}"
    made.stack.agent.scope(
        name,
        {"VALUE": f"vault://{path}#value"},
        **{"transit": {path: {"value": entry}}, "files": [{"path": "v.json", "format": "json"}], **more},
    )
    made.reload()
    wait_until(lambda: name in [each["name"] for each in made.stack.agent.status()["scopes"]])
    return name


def rendered(made: Filed, name: str) -> str | None:
    """Return the value in a scope's file; None where there is none."""
    try:
        return str(json.loads((made.top / name / "v.json").read_text())["VALUE"])
    except FileNotFoundError:
        return None


def key(made: Filed, name: str, **settings: Any) -> None:
    """Change the settings of a key."""
    made.stack.openbao.must("POST", f"transit/keys/{name}/config", settings)


def test_a_value_is_decrypted_for_each_release(made):
    """A run and a file get the value; the rows name the key and where the ciphertext is kept, each with its version."""
    name = scope(made, "both")
    done = made.stack.agent.exec("--scope", name, "--", "/bin/sh", "-c", 'printf %s "$VALUE"')
    assert (done.returncode, done.stdout) == (0, plain(made, name)), (done, made.stack.agent.log[-2000:])
    made.render(name)
    assert rendered(made, name) == plain(made, name)
    reserved, success = made.rows(made.told(name)["id"])
    assert reserved["bindings"] == [
        {"name": "VALUE", "reference": "vault://transit/decrypt/both#value"},
        {"name": "VALUE", "reference": "vault://secret/both#enc"},
    ]
    assert [(lease["path"], lease["version"], lease["seconds"]) for lease in success["leases"]] == [
        ("secret/both", 1, 0),
        ("transit/decrypt/both", 1, 0),
    ]
    assert made.stack.agent.status()["leases"] == {"held": 0, "revoking": 0, "last_error": ""}


def test_direct_mode_decrypts_too(made):
    """Nothing is leased, so nobody needs to stay: ``exec --direct`` gives the value as the agent does."""
    name = scope(made, "direct")
    done = made.stack.direct("--", "/bin/sh", "-c", 'printf %s "$VALUE"', scope=name)
    assert (done.returncode, done.stdout) == (0, plain(made, name)), done


@pytest.mark.parametrize("derived", [True, False], ids=["context", "associated data"])
def test_context_and_associated_data_are_given_to_the_key(made, derived):
    """A ciphertext of the configuration's own is decrypted with its context or associated data, and with no other."""
    name = "derived" if derived else "associated"
    word = "context" if derived else "associated_data"
    made.stack.openbao.must("POST", f"transit/keys/{name}", {"derived": derived})
    text = encrypted(made, name, plain(made, name), **{word: b64("web")})
    made.render(scope(made, name, {"ciphertext": text, word: b64("web")}))
    assert rendered(made, name) == plain(made, name)
    scope(made, name, {"ciphertext": text, word: b64("other")})
    line = wait_until(lambda: made.command("render", name).returncode == 78 and made.refused(78, "render", name))
    assert f"vault://transit/decrypt/{name}#value cannot be decrypted with this key" in line


def test_what_is_no_text_is_a_file_byte_for_byte(made):
    """Bytes that are no UTF-8 are written to a file of their own and given to a process as they are; JSON cannot carry them."""
    name = "bytes"
    text = encrypted(made, name, BINARY)
    scope(made, name, {"ciphertext": text}, files=[{"path": "d", "format": "dir", "mode": "0400"}])
    made.render(name)
    path = made.top / name / "d" / "VALUE"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (BINARY, 0o400)
    done = made.stack.agent.exec("--scope", name, "--", "/bin/sh", "-c", 'printf %s "$VALUE" | base64 -w0')
    assert (done.returncode, base64.b64decode(done.stdout)) == (0, BINARY)
    scope(made, "json", {"ciphertext": encrypted(made, "json", BINARY)})
    assert "VALUE holds bytes that are no UTF-8, which a file of format json" in made.refused(78, "render", "json")


def test_a_rewrapped_ciphertext_is_a_rotation(made):
    """A newer version of the secret that keeps the ciphertext is a new generation, decrypted by the newer key."""
    name = scope(made, "rewrapped")
    made.render(name)
    openbao = made.stack.openbao
    openbao.must("POST", f"transit/keys/{name}/rotate")
    openbao.kv_put(f"secret/{name}", {"enc": encrypted(made, name, plain(made, name, 2))})
    wait_until(lambda: rendered(made, name) == plain(made, name, 2), 30)
    leases = made.rows(made.told(name)["id"])[1]["leases"]
    assert [(lease["path"], lease["version"]) for lease in leases] == [
        (f"secret/{name}", 2),
        (f"transit/decrypt/{name}", 2),
    ]


def test_the_next_agent_takes_a_decrypted_file_over_and_looks_after_it(made):
    """After a restart the generation is the same one, and it is cleared when its key decrypts it no more."""
    name = scope(made, "taken")
    made.render(name)
    before = made.told(name)["id"]
    made.stack.agent.stop()
    made.stack.agent.start()
    assert (made.told(name)["id"], made.told(name)["stale"]) == (before, False)
    made.stack.openbao.must("POST", f"transit/keys/{name}/rotate")
    key(made, name, min_decryption_version=2)
    assert made.ended(before) == "secret_deleted"


def test_a_version_that_decrypts_no_more_is_withdrawn(made):
    """When ``min_decryption_version`` leaves a value behind its file is cleared, its run ended, and nobody gets it any more."""
    name = scope(made, "old", grace="1s")
    made.render(name)
    audit_id = made.told(name)["id"]
    child = made.stack.agent.spawn("--scope", name, "--", "/bin/sleep", "600")
    try:
        wait_until(lambda: [run for run in made.stack.agent.status()["runs"] if run["pid"] == child.pid], 30)
        made.stack.openbao.must("POST", f"transit/keys/{name}/rotate")
        key(made, name, min_decryption_version=2)
        assert made.ended(audit_id) == "secret_deleted"
        assert child.wait(30) and rendered(made, name) is None
    finally:
        child.kill()
        child.communicate()
    line = made.refused(66, "render", name)
    assert "takes version 1 of the key, which decrypts no more (min_decryption_version)" in line


def test_a_key_that_is_deleted_takes_its_values_along(made):
    """Without the key its file is cleared at the next look, and nothing is rendered."""
    name = scope(made, "gone")
    made.render(name)
    audit_id = made.told(name)["id"]
    key(made, name, deletion_allowed=True)
    made.stack.openbao.must("DELETE", f"transit/keys/{name}")
    assert made.ended(audit_id) == "secret_no_such_path"
    assert rendered(made, name) is None
    assert "there is no such key of transit" in made.refused(66, "render", name)


def test_a_ciphertext_that_is_deleted_takes_its_value_along(made):
    """Where the secret that keeps the ciphertext is deleted the decrypted value is cleared, though the key is still there."""
    name = scope(made, "nocipher")
    made.render(name)
    audit_id = made.told(name)["id"]
    made.stack.openbao.must("DELETE", f"secret/data/{name}")
    assert made.ended(audit_id) == "secret_deleted"
    assert rendered(made, name) is None


def test_a_revocation_of_either_reference_means_the_value(made):
    """``revoke`` by the reference of the ciphertext's place clears what was decrypted of it."""
    name = scope(made, "revoked")
    made.render(name)
    audit_id = made.told(name)["id"]
    done = made.command("revoke", f"vault://secret/{name}#enc")
    assert done.returncode == 0, done
    assert made.ended(audit_id) == "revoked"
    assert rendered(made, name) is None


def test_what_is_stored_and_is_no_ciphertext_is_told(made):
    """A secret that holds a plain value where a ciphertext should be ends the render, with the reference and not the value."""
    made.stack.openbao.kv_put("secret/plaintext", {"enc": made.stack.canary})
    scope(made, "plaintext", {"ciphertext": "vault://secret/plaintext#enc"})
    assert "vault://secret/plaintext#enc is not a ciphertext of transit" in made.refused(78, "render", "plaintext")


def test_without_the_right_to_decrypt_it_is_told_which_to_grant(made):
    """A policy that lets read the ciphertext and not decrypt it gives nothing, and the error names the path."""
    name = scope(made, "forbidden")
    made.stack.openbao.policy("prism-vault", POLICY)
    try:
        line = made.refused(77, "render", name)
        assert "grant update on it" in line and f"vault://transit/decrypt/{name}" in line
    finally:
        made.stack.openbao.policy("prism-vault", POLICY + TRANSIT)


@pytest.mark.root  # the agent is not dumpable: its memory is root's to see
def test_g4_no_decrypted_value_leaves_the_worker(made):
    """What was decrypted is neither in the agent's memory nor in its log, its state, its status or a row."""
    name = scope(made, "nowhere")
    made.render(name)
    agent, value = made.stack.agent, plain(made, name)
    places = [agent.log, json.dumps(agent.status()), *(event["body"] for event in made.stack.central.events())]
    places += [path.read_text(errors="replace") for path in (agent.directory / "state").rglob("*") if path.is_file()]
    assert [place for place in places if value in place] == []
    assert copies(pid_of(agent), value) == 0
