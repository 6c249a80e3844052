"""Containers of a real Docker engine are told by signal or restart, found by name and by id, and not started when stopped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.errors import Unavailable
from prism_vault_agent.notify import container
from prism_vault_agent.notify.occasion import Occasion
from prism_vault_agent.scope import Notify
from tests.support.engine import BASE
from tests.support.files import SYSTEMD, filed
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engine import Engine

SERVICE = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGTERM])
print("up", flush=True)
while signal.sigwait([signal.SIGHUP, signal.SIGTERM]) == signal.SIGHUP:
    print("HUP", flush=True)
"""


@pytest.fixture(autouse=True)
def left(engine: Engine) -> Iterator[None]:
    """No container is left of a test."""
    yield
    engine.docker("rm", "--force", *engine.left()["containers"])


def up(engine: Engine, name: str) -> str:
    """Start a container that prints a line for each start and each SIGHUP; return its id."""
    done = engine.docker("run", "--detach", "--name", name, "--network=none", BASE, "python3", "-Ic", SERVICE)
    wait_until(lambda: printed(engine, name) == ["up"])
    return done.stdout.strip()


def printed(engine: Engine, name: str) -> list[str]:
    """Return the lines that a container has printed."""
    return engine.docker("logs", name).stdout.split()


def tell(engine: Engine, name: str, how: str) -> str:
    """Tell a container; return why there was nobody."""
    notify = Notify("container", (name,), how, ("f",), engine_socket=f"{engine._run}/docker.sock")
    return asyncio.run(container.tell(notify, Occasion("web", 1, "/run/files/web")))


def test_it_is_signalled_by_name_and_by_id(engine):
    """A container is found by its exact name, among names that contain it, and by the beginning of its id."""
    for name in ("a.web", "a-web", "a.web2"):
        up(engine, name)
    long = engine.inspect("a.web")["Id"]
    assert tell(engine, "a.web", "HUP") == ""
    wait_until(lambda: printed(engine, "a.web") == ["up", "HUP"])
    assert tell(engine, long[:12], "HUP") == ""
    wait_until(lambda: printed(engine, "a.web") == ["up", "HUP", "HUP"])
    assert printed(engine, "a-web") == printed(engine, "a.web2") == ["up"]


def test_it_is_restarted(engine):
    """``restart`` starts the container's program anew, and is done when it is told as done."""
    up(engine, "restarted")
    before = engine.inspect("restarted")["State"]["Pid"]
    assert tell(engine, "restarted", "restart") == ""
    assert engine.inspect("restarted")["State"]["Pid"] != before
    wait_until(lambda: printed(engine, "restarted") == ["up", "up"])


@pytest.mark.parametrize("how", ["HUP", "restart"])
def test_what_is_stopped_stays_stopped(engine, how):
    """A container that somebody stopped is nobody to tell, and one that there is not is a failure."""
    name = f"stopped-{how}"
    up(engine, name)
    engine.docker("stop", name)
    assert tell(engine, name, how) == "it does not run"
    assert engine.inspect(name)["State"]["Running"] is False
    with pytest.raises(Unavailable, match="no such container"):
        tell(engine, f"no-{name}", how)


def test_a_rotation_reaches_a_container(engine):
    """A real agent tells a container of a rotation at OpenBao, once, and not of the first render."""
    up(engine, "consumer")
    notify = {"container": "consumer", "signal": "HUP", "engine_socket": f"{engine._run}/docker.sock"}
    with filed() as made:
        name = made.scope("told", files=[{**SYSTEMD, "notify": notify}])
        made.render(name)
        made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 2)})
        wait_until(lambda: printed(engine, "consumer") == ["up", "HUP"])
        assert made.file(name) == made.whole(name, 2)
        wait_until(lambda: [each["due"] for each in (made.told(name) or {})["consumers"]] == [False])
