"""What is done at a revocation with processes: as the scope says, files gone in any case, and an emergency goes before it."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.rotating import LISTENER, Held, noted
from tests.support.files import Filed, filed
from tests.support.signalled import evidence, order
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

# Asks for nothing at SIGHUP and ends in its own way.
TIDY = "import signal, sys; signal.signal(signal.SIGHUP, lambda *_: sys.exit(7)); print('up', flush=True); signal.pause()"


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack of this file's own; each test has a scope of its own in it."""
    with filed(poll="250ms") as running:
        wait_until(lambda: running.stack.agent.status()["signals"]["connected"], 30)
        yield running


@contextlib.contextmanager
def held(made: Filed, name: str, script: str) -> Iterator[Held]:
    """Render a scope, and run a command with it."""
    made.render(name)
    running = Held(made, name, script=script)
    try:
        yield running
    finally:
        running.end()


def test_a_signal_comes_first_and_the_end_by_the_grace(made):
    """``signal:NAME``: the process ends in its own way; one that does not is ended by its grace's end. Files are gone at once."""
    name = made.scope("asked", on_revoke="signal:HUP", grace="1s")
    with held(made, name, TIDY) as tidy, Held(made, name, script=LISTENER).process as deaf:
        assert made.command("revoke", name).returncode == 0
        assert made.file(name) is None
        assert (tidy.process.wait(30), deaf.wait(30)) == (7, -signal.SIGKILL)
        assert deaf.stdout is not None and deaf.stdout.readline() == "SIGHUP\n"


def test_a_process_that_is_left_is_told_loudly_and_an_emergency_ends_it(made):
    """``clear``: the file is gone, the process stays; status, log and central's evidence say so, once. An emergency ends it."""
    name = made.scope("left", on_revoke="clear")
    with held(made, name, LISTENER) as running:
        audit_id = running.told["id"]
        made.stack.openbao.must("DELETE", f"secret/data/{name}")
        wait_until(lambda: made.file(name) is None, 30)
        wait_until(lambda: noted(made, "run_left", audit_id), 30)
        assert running.lives() and running.told["left"] == "secret_deleted"
        assert "LEFT with what was taken back: secret_deleted (on_revoke = clear)" in made.command("status").stdout
        assert '"level": "critical", "event": "revoke.left"' in made.stack.agent.log
        done = made.command("revoke", name)
        assert "it keeps what was taken back" in done.stdout + done.stderr, done
        number = order(made.stack.central, "revocations", scope=name, reason="leaked")
        wait_until(lambda: [each for each in evidence(made.stack.central, number)["hosts"] if each["failed"]], 30)
        assert running.lives()
        order(made.stack.central, "revocations", everything=True, emergency=True, reason="leaked")
        assert running.process.wait(30) == -signal.SIGKILL
    assert len(noted(made, "run_left", audit_id)) == 1


def test_what_is_ended_by_a_rotation_is_not_left(made):
    """``terminate`` at a rotation ends the process whatever the scope says about revocations."""
    name = made.scope("both", on_revoke="clear", on_rotate="terminate", rotate_limits={"min_interval": "0s"})
    with held(made, name, LISTENER) as running:
        made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 2)})
        assert running.process.wait(30) == -signal.SIGTERM


def test_one_variable_says_its_own(made):
    """The word of a variable is done where its own secret is taken back, and the strongest where everything is."""
    name = "single"
    made.stack.openbao.kv_put("secret/soft", {"key": "1"})
    made.stack.openbao.kv_put(f"secret/{name}", {"key": "1"})
    env = {"KEY": f"vault://secret/{name}#key", "SOFT": "vault://secret/soft#key"}
    more: dict[str, Any] = {"keys": {"SOFT": {"on_revoke": "clear"}}, "files": [{"path": "f", "format": "json"}]}
    made.stack.agent.scope(name, env, **more)
    made.reload()
    wait_until(lambda: name in [each["name"] for each in made.stack.agent.status()["scopes"]])
    with held(made, name, LISTENER) as running:
        made.stack.openbao.must("DELETE", "secret/data/soft")
        wait_until(lambda: running.told["left"], 30)
        made.stack.openbao.must("DELETE", f"secret/data/{name}")
        assert running.process.wait(30) == -signal.SIGTERM
