"""``prism-vault dev -- CMD``: one command that starts all, runs it with the secrets, and leaves nothing."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

from tests.dev.started import MOMENTS, Dev, dev, processes_in
from tests.support.waiting import wait_until


@pytest.fixture
def temporary():
    """A directory of this test alone for what is made where no directory is given; its path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="pv-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def env_file(tmp_path):
    path = tmp_path / "example.env"
    path.write_text("""# seed\nexport ALPHA=one\nBETA='two words # and $more'\nGAMMA="line 1\\nline 2"\nEMPTY=\n""")
    return path


def _command(text: str) -> list[str]:
    return ["--", "sh", "-c", text]


def test_the_command_gets_every_variable_of_the_env_file(env_file, tmp_path):
    """The command has the values of the env file in its environment, byte for byte, and dev ends with its status."""
    status, out, errors = dev(
        "--state",
        str(tmp_path / "s"),
        "--env-file",
        str(env_file),
        *_command('printf "%s|" "$ALPHA" "$BETA" "$GAMMA" "$EMPTY"; exit 7'),
    )
    assert (status, out) == (7, "one|two words # and $more|line 1\nline 2||"), errors
    assert not any("two words" in line for line in errors)


def test_nothing_is_left_without_a_state_directory(temporary):
    """Without --state the stack's directory is gone at the end, with every process that worked in it."""
    words = _command('test -n "$DEMO_SECRET" && echo "$PRISM_VAULT_OPERATOR_TOKEN$VAULT_TOKEN"')
    status, out, errors = dev(*words, environ={"TMPDIR": str(temporary)})
    assert (status, out) == (0, "\n"), errors
    assert list(temporary.iterdir()) == []


def test_a_kept_directory_holds_no_credential_afterwards(tmp_path):
    """After the end the state directory has logs and the audit log, and neither socket, env nor credential."""
    state = tmp_path / "s"
    status, _, errors = dev("--state", str(state), *_command("exit 0"))
    assert status == 0, errors
    assert processes_in(state) == []
    files = {str(path.relative_to(state)) for path in state.rglob("*") if not path.is_dir()}
    assert {"central/audit.db", "log/openbao.log", "log/central.log", "log/agent.log"} <= files
    assert not files & {"env", "agent.sock", "openbao/role-id", "openbao/secret-id"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in state.rglob("*"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, 137), (signal.SIGSEGV, 139)])
def test_a_command_that_dies_of_a_signal_gives_128_and_its_number(number, status, tmp_path):
    """A command that signal n ended makes dev end with 128+n."""
    assert dev("--state", str(tmp_path / "s"), *_command(f"kill -{int(number)} $$"))[0] == status


def test_a_signal_to_dev_reaches_the_command(tmp_path):
    """SIGTERM to dev is passed on, the command may take its time over it, and its own status is dev's."""
    with Dev(
        "--state", str(tmp_path / "s"), *_command("trap 'echo told; exit 9' TERM; echo up >&2; while :; do sleep 0.1; done")
    ) as started:
        started.wait_for("up")
        started.process.send_signal(signal.SIGTERM)
        assert started.finish() == (9, "told\n")
    assert processes_in(tmp_path / "s") == []


def test_a_missing_command_is_told_as_a_shell_does(tmp_path):
    """A command that does not exist gives 127, and everything is stopped."""
    status, _, errors = dev("--state", str(tmp_path / "s"), "--", "no-such-command")
    assert status == 127, errors
    assert processes_in(tmp_path / "s") == []


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_it_starts_leaves_nothing(moment, number, tmp_path):
    """A signal at any moment of the start ends dev with 128+n, and no process and no credential is left."""
    state = tmp_path / "s"
    with Dev("--state", str(state), "--", "sleep", "60") as started:
        started.wait_for(moment)
        assert started.interrupt(number) == 128 + number
    assert processes_in(state) == []
    assert not any((state / name).exists() for name in ("env", "agent.sock", "openbao/secret-id"))


@pytest.mark.parametrize("moment", ["starting OpenBao", "the agent answers"])
def test_killing_dev_kills_the_stack_and_the_command(moment, tmp_path):
    """When dev is killed outright the kernel ends OpenBao, central, the agent, its workers and the command."""
    state = tmp_path / "s"
    with Dev("--state", str(state), *_command(f"cd {state}/log && exec sleep 600")) as started:
        started.wait_for(moment)
        started.process.kill()
        started.finish()
    wait_until(lambda: processes_in(state) == [])


def test_a_long_path_has_its_socket_elsewhere(tmp_path, temporary):
    """Where the state directory's path is too long for a socket, a short private directory has it, removed at the end."""
    state = tmp_path / ("long" * 30) / "with spaces"
    words = _command('test -n "$DEMO_SECRET" && echo fine')
    status, out, errors = dev("--state", str(state), *words, environ={"TMPDIR": str(temporary)})
    assert (status, out) == (0, "fine\n"), errors
    assert list(temporary.iterdir()) == []


def test_the_longest_path_is_used_as_it_is(tmp_path):
    """A state directory whose socket has exactly the 107 bytes that a socket's path may have holds it itself."""
    state = tmp_path / ("x" * (107 - len(f"{tmp_path}//agent.sock")))
    status, _, errors = dev("--state", str(state), *_command('test -n "$DEMO_SECRET"'))
    assert status == 0, errors
    assert f"prism-vault dev: the agent answers on {state}/agent.sock" in errors


def test_the_users_own_settings_do_not_reach_the_stack(tmp_path):
    """Variables such as PRISM_VAULT_PURPOSE, VAULT_ADDR and the proxies of the user's shell change nothing."""
    bait = {
        "PRISM_VAULT_PURPOSE": "another",
        "PRISM_VAULT_CONFIG": "/nowhere",
        "PRISM_VAULT_SOCKET": "/nowhere",
        "VAULT_ADDR": "http://127.0.0.1:9",
        "BAO_ADDR": "http://127.0.0.1:9",
        "VAULT_TOKEN": "bait",
        "http_proxy": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "PYTHONPATH": "/nowhere",
    }
    status, out, errors = dev("--state", str(tmp_path / "s"), *_command("echo $http_proxy"), environ=bait)
    assert (status, out) == (0, "http://127.0.0.1:9\n"), errors


def test_the_temporary_directory_is_private(temporary):
    """The fresh directory belongs to the user alone, while it is there."""
    with Dev("--", "sleep", "60", environ={"TMPDIR": str(temporary)}) as started:
        started.wait_for("OpenBao answers")
        (directory,) = temporary.iterdir()
        found = directory.stat()
        assert (found.st_uid, found.st_mode & 0o777) == (os.geteuid(), 0o700)
        assert started.interrupt() == 130
    assert list(temporary.iterdir()) == []
