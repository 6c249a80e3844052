"""What every room's tests share.

Property tests are not timed, because the machine may be busy with the other workers. Tests that a machine cannot run (they
act as another user, or use a tool that is not there) are left out, and the first lines of the run say so; in CI that is an
error, because there nothing may be missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

settings.register_profile("busy", deadline=None)
settings.load_profile("busy")

# A shell starts what runs in the background with both of these ignored, and so would everything be that the tests start.
for number, action in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, action)

# A group of its own, whose leader has its parent in another one, is never orphaned. Else, where CI has no terminal, the kernel
# hangs up all of it when a supervised command of one worker ends while something of another is stopped (setpgid(2), exit(2)).
if "PYTEST_XDIST_WORKER" in os.environ:
    os.setpgid(0, 0)

TOOLS: Final = (
    "cc",
    "strace",
    "setpriv",
    "ssh-keygen",
    "sshd",
    "rabbitmq-server",
    "systemd-analyze",
    "node",
    "systemd-nspawn",
    "debootstrap",
    "dockerd",
)
# Whole systems in containers: `make e2e` installs what they need, and sets this.
collect_ignore: Final = [] if os.environ.get("PRISM_VAULT_E2E") == "1" else ["e2e"]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what tests that have failed started and left: CI refuses what is left by one that passes."""
    for child in psutil.Process().children(recursive=True) if session.testsfailed and "PYTEST_XDIST_WORKER" in os.environ else ():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


@pytest.fixture(autouse=True)
def stays_in_its_group() -> Iterator[None]:
    """Fail a test for which an agent has put this process into a control group: other tests would be in it, and end with it."""
    before = Path("/proc/self/cgroup").read_text(encoding="utf-8")
    yield
    assert Path("/proc/self/cgroup").read_text(encoding="utf-8") == before, "a test asks an agent itself: let a child do that"


def lacking() -> dict[str, str]:
    """Return what this machine lacks, by marker argument, and how to mend it."""
    found = {tool: f"{tool} is not installed" for tool in TOOLS if shutil.which(tool) is None}
    if shutil.which("initdb") is None and not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        found["initdb"] = "PostgreSQL's server is not installed"
    if os.geteuid() != 0:
        found["root"] = "not root"
    if not may_make_namespaces():
        found["namespaces"] = "this root may not make namespaces"
    return found


def may_make_namespaces() -> bool:
    """Tell whether we hold CAP_SYS_ADMIN (bit 21 of the effective set, capabilities(7))."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> 21 & 1)


def pytest_report_header() -> list[str]:
    """Say first what will be left out."""
    systems = [f"not among these: tests/{each}, which `make {each}` runs" for each in collect_ignore]
    return [*systems, *(f"left out: the tests marked {what}, because: {why}" for what, why in lacking().items())]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot be run here; in CI, refuse to."""
    missing = lacking()
    out = [item for item in items if needs(item) & missing.keys()]
    if out and os.environ.get("CI") == "true":
        raise pytest.UsageError(f"CI must run every test: {'; '.join(missing.values())}")
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


def needs(item: pytest.Item) -> set[str]:
    """Return what a test needs of the machine."""
    tools = {str(mark.args[0]) for mark in item.iter_markers("tool")}
    if isinstance(item, pytest.Function) and asks_for_postgresql(item):
        tools.add("initdb")
    return tools | {marker for marker in ("root", "namespaces") if item.get_closest_marker(marker)}


def asks_for_postgresql(item: pytest.Function) -> bool:
    """Tell whether a test has ``postgresql`` for a parameter, or a fixture that is a server of it."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    fixtures = [definitions[-1].func for definitions in item._fixtureinfo.name2fixturedefs.values()]
    return any(parameter == "postgresql" for parameter in parameters) or any(
        "PostgresServer" in str(fixture.__annotations__.get("return", "")) for fixture in fixtures
    )
