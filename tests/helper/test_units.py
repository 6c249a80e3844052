"""Units by a real helper: those that a notify of root's configuration names, each apart, so that nobody waits for a restart."""

from __future__ import annotations

import os
import signal

import pytest

from prism_vault_agent.errors import CannotCreate, Denied
from prism_vault_agent.helper import units
from prism_vault_agent.helper.wire import Said, Verb, unit_of
from tests.support.helper import packet
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.namespaces]


@pytest.mark.parametrize(("unit", "how"), [("ssh.service", "restart"), ("prism-vault-nowhere.service", "reload")])
def test_another_unit_or_action_is_refused(helper, unit, how):
    """What no scope's notify names is refused before systemd is asked, whatever the numbers."""
    assert helper.raw(packet(Verb.UNIT, *unit_of(unit, how)))[1].startswith("no scope names that unit with that action")
    assert helper.raw(packet(Verb.UNIT, 0, 0))[0] is Said.REFUSED


def test_what_systemd_says_is_told(helper):
    """A unit that is named is asked for; where that fails the agent gets what systemctl said, in one line, and the log has it."""
    with pytest.raises(CannotCreate) as error:
        helper.asked(lambda asking: asking.tell("prism-vault-nowhere.service", "restart"))
    assert error.value.message.startswith("the helper refused: ") and "notify" not in error.value.message
    wait_until(lambda: helper.told("helper.failed"))
    failed = helper.told("helper.failed")[-1]
    assert (failed["verb"], failed["unit"], failed["how"]) == ("unit", "prism-vault-nowhere.service", "restart")
    assert failed["why"] and failed["why"] in error.value.message


def test_as_many_as_there_may_be_are_told_apart():
    """Each has a process of its own; one too many is refused, and when one has ended there is room again."""
    apart = units.Apart()
    reading, writing = os.pipe()

    def work() -> None:
        os.close(writing)
        os.read(reading, 1)  # until the test closes its end

    for _ in range(units.MOST):
        apart.start(work)
    with pytest.raises(Denied, match="4 units are being told already"):
        apart.start(work)
    assert apart.busy()
    os.kill(next(iter(apart._running)), signal.SIGKILL)
    wait_until(lambda: apart.busy() and len(apart._running) == units.MOST - 1)
    apart.start(work)
    os.close(writing)
    wait_until(lambda: not apart.busy())
    os.close(reading)
