"""The bounds of a template: an endless or greedy one is ended with its line told, and by the kernel where nothing else would."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# In a process of its own, as in a worker: what is bounded is that process.
RENDER = """
import sys
from prism_vault_agent.dialects.template import rendered
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.worker.bounds import bounded
try:
    with bounded():
        rendered("/x.j2", sys.argv[1], {"TOKEN": "canary-0c11aa"}, 1024 * 1024)
except ConfigError as error:
    print(error.line())
"""
STUCK = """
from prism_vault_agent.worker.bounds import bounded
with bounded():
    while True:
        try:
            while True:
                pass
        except TimeoutError:
            pass
"""


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-I", "-c", code, *words], capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{% for a in range(99999) %}\n{% for b in range(99999) %}{% endfor %}{% endfor %}", "time"),
        ("\n{% set n = namespace(x='x') %}{% for _ in range(64) %}{% set n.x = n.x ~ n.x %}{% endfor %}", "memory"),
        ("\n{{ 'x'|indent(1000000000) }}", "memory"),
        ("\n{% set x = TOKEN|replace('', TOKEN) %}" + "{% set x = x|replace('', x) %}" * 9, "memory"),
    ],
    ids=["loops", "doubling", "indent", "replace"],
)
def test_a_runaway_template_is_ended_and_told(text: str, told: str):
    """What takes more than its share of processor time or memory ends with the template's line, and without a value."""
    assert run(RENDER, text).stdout == f"/x.j2:2: takes too much {told}; correct the template\n"


def test_what_swallows_its_end_is_killed():
    """Code that goes on after its time is up is ended by the kernel."""
    done = run(STUCK)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGXCPU, "", "")


def test_the_bounds_hold_for_the_template_only():
    """Behind it limits, signal and timer are what they were, also when it failed."""
    code = (
        "import resource, signal\n"
        "from prism_vault_agent.worker.bounds import bounded\n"
        "def state(): return [*map(resource.getrlimit, (resource.RLIMIT_AS, resource.RLIMIT_CPU)),"
        " signal.getsignal(signal.SIGPROF), signal.getitimer(signal.ITIMER_PROF)]\n"
        "before = state()\n"
        "for fails in (False, True):\n"
        "    try:\n"
        "        with bounded():\n"
        "            within = state()\n"
        "            1 / (not fails)\n"
        "    except ZeroDivisionError: pass\n"
        "    print(state() == before, [a != b for a, b in zip(within, before)])\n"
    )
    assert run(code).stdout == "True [True, True, True, True]\n" * 2


def test_a_lower_limit_of_the_host_stays():
    """A limit that is lower already is not raised."""
    code = (
        "import resource\n"
        "from prism_vault_agent.worker.bounds import bounded\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (1, 60))\n"
        "with bounded(): print(resource.getrlimit(resource.RLIMIT_CPU))\n"
    )
    assert run(code).stdout == "(1, 60)\n"
