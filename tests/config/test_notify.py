"""Who is told of changed files, in the configuration: one noun for each consumer, or refused with file, line and key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.config.load import load
from prism_vault_agent.config.plain import from_plain, to_plain
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.scope import Notify, ScopeName
from tests.config.written import BASE, ENV, ENVIRON, SCOPE, write

if TYPE_CHECKING:
    from pathlib import Path

BOUND = BASE + SCOPE + ENV + 'KEY = "vault://secret/web#key"\n'


def files(*notifies: str) -> str:
    """Return a configuration with a file for each ``notify``."""
    entries = [f'[[scopes.web.files]]\npath = "f{n}"\nformat = "json"\nnotify = {each}\n' for n, each in enumerate(notifies)]
    return BOUND + "".join(entries)


def told(directory: Path, *notifies: str) -> tuple[Notify, ...]:
    """Return the consumers of such a configuration, which plain JSON keeps."""
    settings = load(write(directory, files(*notifies)), ENVIRON)
    assert from_plain(json.loads(json.dumps(to_plain(settings)))) == settings
    return settings.scopes[ScopeName("web")].notify


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('{ unit = "web.service" }', Notify("unit", ("web.service",), "reload-or-restart", ("f0",))),
        ('{ unit = "w@a-\\\\x2d.service", action = "reload" }', Notify("unit", ("w@a-\\x2d.service",), "reload", ("f0",))),
        ('{ pid_file = "/run/web.pid", signal = "HUP" }', Notify("pid_file", ("/run/web.pid",), "HUP", ("f0",))),
        (
            '{ container = "web_1", action = "restart" }',
            Notify("container", ("web_1",), "restart", ("f0",), engine_socket="/run/docker.sock"),
        ),
        (
            '{ container = "web", signal = "USR1", engine_socket = "/run/podman/podman.sock" }',
            Notify("container", ("web",), "USR1", ("f0",), engine_socket="/run/podman/podman.sock"),
        ),
        ('{ command = ["/bin/tell", "it is", "new"] }', Notify("command", ("/bin/tell", "it is", "new"), "", ("f0",))),
        (
            (
                '{ unit = "web.service", splay = "5m", min_interval = "1m", max_per_hour = 3, timeout = "90s", '
                'window = ["Mon..Fri 02:00-04:00", "00:00-24:00"] }'
            ),
            Notify(
                *("unit", ("web.service",), "reload-or-restart", ("f0",)),
                splay=300, min_interval=60, max_per_hour=3, timeout=90, windows=("Mon..Fri 02:00-04:00", "00:00-24:00"),
            ),
        ),
    ],
)  # fmt: skip
def test_a_consumer_is_in_the_settings(tmp_path: Path, written: str, expected: Notify):
    """Each kind of consumer is what is written, with its limits in seconds and a default for each that is not."""
    assert told(tmp_path, written) == (expected,)


def test_two_files_with_the_same_consumer_have_one(tmp_path: Path):
    """Files that name the same consumer are told of together; one that does something else with it is another."""
    same, other = '{ unit = "web.service" }', '{ unit = "web.service", action = "restart" }'
    both, alone = told(tmp_path, same, other, same)
    assert (both.files, alone.files) == (("f0", "f2"), ("f1",))


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("{}", "scopes.web.files[0].notify: names nobody; set exactly one of unit, pid_file, container, command"),
        ('{ unit = "web.service", command = ["/x"] }', "notify: names unit and command"),
        ('{ unit = "web.service", signal = "HUP" }', "notify.signal: is not for a unit"),
        ('{ unit = "web" }', "notify.unit: is not the name of a unit"),
        ('{ unit = "-web.service" }', "notify.unit: is not the name of a unit"),
        ('{ unit = "a b.service" }', "notify.unit: is not the name of a unit"),
        ('{ unit = "web.service", action = "stop" }', "notify.action: has an unknown value"),
        ('{ pid_file = "/run/web.pid" }', "notify: says no signal"),
        ('{ pid_file = "run/web.pid", signal = "HUP" }', "notify.pid_file: is not an absolute path"),
        ('{ pid_file = "/run/web.pid", signal = "KILL" }', "notify.signal: has an unknown value"),
        ('{ pid_file = "/run/web.pid", signal = "HUP", action = "restart" }', "notify.action: is not for a pid_file"),
        ('{ container = "web" }', "notify: needs either a signal or an action"),
        ('{ container = "web", signal = "HUP", action = "restart" }', "notify: needs either a signal or an action"),
        ('{ container = "web", action = "reload" }', "notify.action: is not what an engine can do"),
        ('{ container = "../web", signal = "HUP" }', "notify.container: is not the name or id"),
        ("{ command = [] }", "notify.command: is empty"),
        ('{ command = "/bin/true" }', "notify.command: has the wrong type"),
        ('{ command = ["true"] }', "notify.command: does not begin with an absolute path"),
        ('{ command = ["/x"], signal = "HUP" }', "notify.signal: is not for a command"),
        ('{ command = ["/x"], engine_socket = "/run/docker.sock" }', "notify.engine_socket: is not for a command"),
        ('{ unit = "web.service", timeout = "0s" }', "notify.timeout: leaves no time at all"),
        ('{ unit = "web.service", splay = "2h" }', "notify.splay: is longer than an hour"),
        ('{ unit = "web.service", max_per_hour = 0 }', "notify.max_per_hour: is out of range"),
        ('{ unit = "web.service", when = "now" }', "notify.when: is not a known key"),
        *(
            (f'{{ unit = "web.service", window = ["{window}"] }}', "notify.window[0]: is not a window")
            for window in (
                *("", "02:00", "2:00-4:00", "02:00-02:00", "24:00-02:00", "02:00-25:00", "02:60-04:00"),
                *("Monday 02:00-04:00", "Mon 02:00-04:00 UTC", "Mon-Fri 02:00-04:00", "Mon.. 02:00-04:00", ", 02:00-04:00"),
            )
        ),
    ],
)
def test_a_wrong_consumer_is_refused(tmp_path: Path, written: str, what: str):
    """What is unknown, missing or contradictory is refused with the line that it is on and the key."""
    config = write(tmp_path, files(written))
    line = next(number for number, text in enumerate(files(written).splitlines(), 1) if text.startswith("notify"))
    with pytest.raises(ConfigError) as caught:
        load(config, ENVIRON)
    assert caught.value.line().startswith(f"{config}:{line}: scopes.web.files[0].notify")
    assert what in caught.value.line()


def test_a_consumer_has_one_set_of_limits(tmp_path: Path):
    """Two files that name the same consumer with different limits are refused: which of them should hold?"""
    with pytest.raises(ConfigError, match=r"files\[1\].notify: tells whom another file of this scope tells, with other limits"):
        told(tmp_path, '{ unit = "web.service" }', '{ unit = "web.service", splay = "1m" }')
