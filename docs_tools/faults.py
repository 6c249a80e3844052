"""The reference of faults that are injected, and of the tests that do it, to which ``tests/docs_tools`` holds it."""

from __future__ import annotations

from typing import Final

from docs_tools.faults_of_files import FILES, VALUES
from docs_tools.markdown import GENERATED, table

_INTRODUCTION: Final = """\
Each fault of these rooms, what must come of it, and where that is shown against real servers and processes (a fake only
where a real one cannot be made to have the fault). `pytest PATH` runs it; a test whose docstring names a fault is listed here.
"""

# Fault, what must come of it, and the files below tests/.
PROVIDER: Final = {
    8: (
        "token expired, revoked or used up meanwhile",
        "one login anew, one more attempt, else denied",
        "agent/test_session.py vault/test_refusals.py agent/test_lease_faults.py agent/test_lease_logins.py",
    ),
    9: (
        "no such secret, version deleted or destroyed",
        "denied; what is out there goes within a poll",
        "vault/test_reading.py agent/test_withdrawn.py beside/test_beside.py",
    ),
    10: (
        "answers that are none: shape, size, bombs, twice the same key",
        "refused, with bounded memory",
        "vault/test_wrong_answers.py vault/test_transport_faults.py agent/test_provider_answers.py agent/test_lease_faults.py",
    ),
    11: ("TLS by a stranger, for another name, ended, too old", "refused before a token is sent", "vault/test_tls.py"),
    12: (
        "a redirect to another host",
        "never followed with a token",
        "vault/test_wrong_answers.py vault/test_transport_faults.py",
    ),
    13: (
        "a lease shorter than the render, without an end, absurd",
        "never used beyond its end",
        "vault/test_fields.py vault/test_leased.py agent/test_lease_life.py agent/test_lease_faults.py",
    ),
    14: (
        "a lease or child token revoked at the server",
        "noticed within a poll, taken back",
        "agent/test_withdrawn.py agent/test_leases.py",
    ),
    15: (
        "a lease that cannot be renewed any more",
        "replaced before two thirds of its life, or ended",
        "agent/test_lease_life.py agent/test_certificates.py agent/test_stale.py",
    ),
    16: ("an older version after a newer one", "never back", "agent/test_withdrawn.py"),
    17: ("a wrapped secret id that somebody else has unwrapped", "refused, and told", "vault/test_wrapped_secret_id.py"),
    18: (
        "the server restarts between login and read, or another node leads",
        "asked once more; one reservation",
        (
            "vault/test_transport_faults.py vault/test_reading_many.py agent/test_provider_restarts.py "
            "agent/test_provider_failover.py"
        ),
    ),
}
PROCESS: Final = {
    63: ("every exit status, death by every signal", "the caller sees the same", "supervise/test_ends.py"),
    64: ("every signal to the supervisor, stops and continuations", "the command gets each once", "supervise/test_signals.py"),
    65: ("Ctrl-C, Ctrl-Z, job control, the window's size on a terminal", "as if run directly", "supervise/test_terminal.py"),
    66: (
        "a command that ignores SIGTERM",
        "SIGKILL after its grace",
        "agent/test_ending.py agent/test_runs.py beside/test_beside.py",
    ),
    67: (
        "daemons, double forks, sessions of their own, trees of 400",
        "all ended",
        "supervise/test_tree.py agent/test_ended_whole.py",
    ),
    68: (
        "SIGKILL to the supervisor, to the lifeline, to both",
        "nothing of the tree is left",
        "supervise/test_killed.py agent/test_guards.py beside/test_beside.py",
    ),
    69: (
        "SIGKILL to the agent while commands run",
        "they go on; the next agent has them; a supervised one ends with its lease if there is none by then",
        "agent/test_adoption.py agent/test_lease_restarts.py supervise/test_out_of_time.py beside/test_beside.py",
    ),
    70: ("1,000 orphans", "no zombie", "supervise/test_tree.py"),
    71: ("the thread that started a command ends", "the command lives on", "agent/test_child_faults.py"),
    72: (
        "no such command, not executable, too many arguments, no further process",
        "127, 126, 78, 75; never a value in the line",
        "supervise/test_ends.py supervise/test_shortage.py exec/test_budget.py exec/test_become.py",
    ),
    73: ("much output, closed standard descriptors", "nothing copied, nothing different", "supervise/test_handed_over.py"),
    74: (
        "rotations while a command starts, several in a second",
        "the newest in the end, each version at most once",
        "agent/test_restarted.py agent/test_rotation.py",
    ),
    75: (
        "a command that ends at once, again and again",
        "pauses that grow, given up with a status",
        "supervise/test_restart.py supervise/test_restarting.py",
    ),
    76: (
        "signals blocked or ignored, limits, niceness, directory, umask, locale",
        "handed over unchanged",
        "supervise/test_handed_over.py",
    ),
    77: ("a command that dumps core", "no handler is started", "agent/test_exec_environment.py"),
    78: (
        "no control group of its own, no right to one",
        "another way, and doctor says which",
        "agent/test_ended_whole.py cli/test_host.py",
    ),
    79: (
        "a program that becomes another user",
        "ended by the agent where the supervisor may not",
        "agent/test_ended_whole.py agent/test_guards.py",
    ),
    80: (
        "a signal while the secrets are fetched",
        "no command, the signal's status, a row: failure below a supervisor, else denied",
        "agent/test_child_faults.py supervise/test_signals.py",
    ),
}
HOST: Final = {
    95: (
        "the wall clock steps by a second, a day, ten years, either way",
        "nothing ends early or late; rows have both clocks and central's",
        "agent/test_clocks.py",
    ),
    96: ("the host sleeps for an hour", "what ended in its sleep goes before anything is given", "agent/test_clocks.py"),
    97: (
        "a machine is cloned while it runs",
        "who comes second is refused, says so, releases nothing; after a restart of either, the one that started last releases",
        "agent/test_host_faults.py central/test_chain.py",
    ),
    98: (
        "two agents with the credential of one host",
        "the second releases nothing and says so until the first is gone; a restart is never refused; see below",
        "agent/test_host_faults.py central/test_names.py",
    ),
    99: ("the agent is ended for its memory", "as 69", "agent/test_host_faults.py"),
    100: (
        "no /proc, no memory for files that cannot be swapped, no rights, no entropy, kernels that lack something",
        "refused, or told by doctor",
        "cli/test_host.py agent/test_hardening.py sink/test_place.py",
    ),
    101: ("a host that can hibernate", "doctor warns", "cli/test_host.py"),
    102: (
        "the host goes down in the middle of a render",
        "abandoned in time; no file",
        "agent/test_host_faults.py agent/test_adoption.py",
    ),
}
ROOMS: Final = {
    "The provider": PROVIDER,
    "Files": FILES,
    "Values and names": VALUES,
    "The process": PROCESS,
    "Time and host": HOST,
}
_STORAGE: Final = """\
Two more of a host: a full disk of the agent's state (`agent/test_full_disk.py`), and one that has no descriptor left
(`agent/test_exhaustion.py`).

F98: central knows a host by its credential, and tells those who share one apart by the installation of their agent, which is
its state directory ([ADR 0080](../adr/0080-one-installation-of-a-name.md)). Who copies both on purpose is not told apart; then
the one that started last releases. Agents that name no installation are taken as one.
"""


def page() -> str:
    """Return the page."""
    rooms = []
    for room, faults in ROOMS.items():
        rows = [
            (f"F{number}", what, outcome, ", ".join(f"`{file}`" for file in files.split()))
            for number, (what, outcome, files) in faults.items()
        ]
        rooms.append(f"## {room}\n\n{table(('fault', 'what', 'must', 'tests/'), rows)}")
    return f"{GENERATED}# Faults and their tests\n\n{_INTRODUCTION}\n" + "\n".join(rooms) + f"\n{_STORAGE}"
