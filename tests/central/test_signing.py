"""The key with which central signs: where it may be, who may read it, and that a log keeps its origin."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.central.config import load
from prism_vault_agent.central.signing import read_key, signer, write_key
from prism_vault_agent.errors import CannotCreate, ConfigError
from prism_vault_agent.proof.keys import SigningKey, VerifyingKey
from prism_vault_agent.proof.note import open_checkpoint
from tests.central.host import Host
from tests.support.as_user import NOBODY, in_child
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import httpx2


def keygen(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``prism-vault central keygen``."""
    command = [sys.executable, "-m", "prism_vault_agent", "central", "keygen", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def refusal(central: CentralProcess) -> str:
    """Return what a central that does not start says."""
    with pytest.raises(AssertionError) as told:
        central.start()
    return str(told.value)


def checkpoint(central: CentralProcess) -> httpx2.Response:
    """Append a row and return the checkpoint about it."""
    host = Host(central)
    n = host.send(host.make("reserved")).json()["n"]
    wait_until(lambda: host.client.get(f"/v1/audit/proof/{n}").status_code == 200)
    return host.client.get("/v1/audit/checkpoint")


def test_keygen_writes_a_key_that_only_its_owner_reads(tmp_path):
    """The private key goes to the file, 0600, and the verifying key to stdout; ``--show`` prints the same one again."""
    file = tmp_path / "log.key"
    made, shown = keygen(file, "--name", "audit.example/log"), keygen("--show", file)
    key = VerifyingKey.parse(made.stdout.strip())

    assert (made.returncode, shown.returncode) == (0, 0)
    assert key.name == "audit.example/log"
    assert shown.stdout == made.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_key(file).verifying_key == key
    assert file.read_text().strip() not in made.stdout + made.stderr


def test_keygen_makes_up_names_that_differ(tmp_path):
    """Without ``--name``, no two keys have the same name."""
    names = {VerifyingKey.parse(keygen(tmp_path / str(number)).stdout.strip()).name for number in range(2)}

    assert len(names) == 2


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("there",), 73),
        (("absent/log.key",), 73),
        (("new", "--name", "two words"), 64),
        (("new", "--name", ""), 64),
        (("--show", "absent"), 78),
        (("--show", "wrong"), 78),
        (("--show", "there", "--name", "other"), 64),
        ((), 64),
    ],
)
def test_keygen_refuses_in_one_line(tmp_path, arguments, status, monkeypatch):
    """A file that is there is never written over, and what is wrong has its exit status; no key is repeated."""
    monkeypatch.chdir(tmp_path)
    write_key(Path("there"), SigningKey.generate("log"))
    before = Path("there").read_text()
    Path("wrong").touch(0o600)
    Path("wrong").write_text(before[:-2])
    ended = keygen(*arguments)

    assert ended.returncode == status
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stdout == ""
    assert before[-20:-2] not in ended.stderr
    assert Path("there").read_text() == before
    assert not Path("new").exists()


def test_a_key_that_cannot_be_written_leaves_no_file(tmp_path):
    """Where the disk does not take it, there is no half of a key that the next start would trip over."""

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        import signal  # noqa: PLC0415 - in the child

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        write_key(tmp_path / "log.key", SigningKey.generate("log"))

    with pytest.raises(CannotCreate, match="File too large"):
        in_child(write, None)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    """A key file with any bit for group or others is not used, and the line says what to do."""
    write_key(tmp_path / "log.key", SigningKey.generate("log"))
    (tmp_path / "log.key").chmod(mode)

    with pytest.raises(ConfigError, match=f"has mode {mode:04o}") as refused:
        read_key(tmp_path / "log.key")

    assert refused.value.mend.startswith("chmod")


@pytest.mark.root
def test_a_key_of_another_user_is_refused(tmp_path):
    """A key file belongs to central's user or root."""
    write_key(tmp_path / "log.key", SigningKey.generate("log"))
    os.chown(tmp_path / "log.key", NOBODY, NOBODY)

    with pytest.raises(ConfigError, match="belongs to uid"):
        read_key(tmp_path / "log.key")


@pytest.mark.parametrize("mode", [0o400, 0o440])
def test_a_credential_of_systemd_signs(tmp_path, monkeypatch, mode):
    """``credential`` is a file below $CREDENTIALS_DIRECTORY, 0400 or with the bits that systemd's ACL shows; its key signs."""
    key = SigningKey.generate("log.example/credential")
    (tmp_path / "credentials").mkdir()
    write_key(tmp_path / "credentials" / "log-key", key)
    (tmp_path / "credentials" / "log-key").chmod(mode)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    with CentralProcess(tmp_path, more={"log": {"credential": "log-key"}}) as central:
        note = checkpoint(central).json()["note"]

    assert open_checkpoint(note, key.verifying_key.name, key.verifying_key).size == 1


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda path, patch: patch.delenv("CREDENTIALS_DIRECTORY"), "LoadCredential="),
        (lambda path, patch: path.unlink(), "No such file"),
        (lambda path, patch: path.chmod(0o444), "has mode 0444"),
        (lambda path, patch: path.write_text("PRIVATE+KEY+x"), "not a whole"),
    ],
    ids=["no directory", "no file", "open to all", "no key"],
)
def test_a_credential_that_cannot_be_used_is_told(tmp_path, monkeypatch, prepare, told):
    """A credential that is not there, not private or not whole is no key, and the line says what is wrong with it."""
    file = tmp_path / "log-key"
    write_key(file, SigningKey.generate("log"))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    prepare(file, monkeypatch)
    central = CentralProcess(tmp_path, more={"log": {"credential": "log-key"}})
    central.write_config()

    with pytest.raises(ConfigError) as refused:
        signer(load(central.config_file), None)

    assert told in refused.value.line()


def test_a_log_keeps_its_origin(tmp_path):
    """A key of another name is refused on a log that has checkpoints; another key of the same name goes on."""
    first, renamed, renewed = (tmp_path / name for name in ("first", "renamed", "renewed"))
    write_key(first, SigningKey.generate("log.example/one"))
    write_key(renamed, SigningKey.generate("log.example/two"))
    write_key(renewed, SigningKey.generate("log.example/one"))
    central = CentralProcess(tmp_path, more={"log": {"key_file": str(first)}})
    with central:
        before = checkpoint(central).json()["note"]
    central.set(log={"key_file": str(renamed)})
    line = refusal(central)
    central.set(log={"key_file": str(renewed)})
    with central:
        after = checkpoint(central).json()["note"]

    assert "log.example/one" in line
    assert "log.example/two" in line
    for note, file in ((before, first), (after, renewed)):
        open_checkpoint(note, "log.example/one", read_key(file).verifying_key)


def test_a_key_that_was_lost_is_not_replaced_in_silence(tmp_path):
    """A log with checkpoints whose key file is gone does not start under a key that central made up."""
    central = CentralProcess(tmp_path)
    with central:
        checkpoint(central)
    central.key_file.unlink()
    line = refusal(central)

    assert "no longer in" in line
    assert not central.key_file.exists()


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ({"key_file": "log.key"}, "absolute path"),
        ({"key_file": "/log.key", "credential": "log-key"}, "one of key_file, credential and transit"),
        ({"credential": "../log-key"}, "log.credential"),
        ({"credential": ""}, "log.credential"),
    ],
)
def test_one_key_is_named(tmp_path, log, told):
    """The configuration names one key, by an absolute path or a credential's own name."""
    central = CentralProcess(tmp_path, more={"log": log})
    central.write_config()

    with pytest.raises(ConfigError, match=told):
        load(central.config_file)
