"""The reference of the agent's metrics, from the code that counts them."""

from __future__ import annotations

from typing import Final

from docs_tools.markdown import GENERATED, table
from prism_vault_agent.agent.metrics import BOUNDS, DESCRIBED, PREFIX

_INTRODUCTION: Final = """\
`prism-vault status --metrics`, or `GET /metrics` at the agent's socket, has them in the text format of Prometheus, for
whoever may connect to the socket. They are sums: no label names a scope, a path, a run, a user or a project, and each
label has only the values that stand here. [Operate](../operate.md#figures-and-alarms) has how they get to Prometheus.
"""
_ALARMS: Final = (
    ("ready == 0", "nothing is released on this host"),
    ('files{state="failed"} > 0', "a rotation was noticed and cannot be rendered; `status` says why"),
    ('consumers{state="failed"} > 0', "a service goes on with an old value, since it could not be told of the new one"),
    ("unconfirmed > 0", "the provider is away, and what `stale_ok` bounds is about to be taken back"),
    ("signals_connected == 0", "the kill switch does not reach this host at once, only when it is back"),
    ("log_refused == 1", "central's log is not the one that this host knows"),
    ("runs_failed > 0", "a process goes on with an old value, since it could not be restarted or signalled"),
    ('histogram_quantile(0.99, rate(rotation_seconds_bucket{stage="released"}[1h])) > 5', "rotations take long"),
    ("records_waiting > 100", "central does not take what this host has to tell"),
    ("config_refused == 1", "the configuration was changed, and is wrong"),
    ('leases{state="revoking"} > 0 for an hour', "the provider does not end what nobody holds any more"),
    ("logged_in == 0", "the provider refuses this host, or is away"),
)


def page() -> str:
    """Return the page."""
    rows = [
        (
            f"`{PREFIX}_{each.name}`",
            each.kind,
            "; ".join(f"`{name}`: {', '.join(values)}" for name, values in each.labels),
            each.told,
        )
        for each in DESCRIBED
    ]
    alarms = [(f"`{alarm}`", because) for alarm, because in _ALARMS]
    bounds = ", ".join(f"{bound:g}" for bound in BOUNDS)
    return (
        f"{GENERATED}# Metrics of the agent\n\n{_INTRODUCTION}\n{table(('name', 'kind', 'labels', 'what'), rows)}\n"
        f"A histogram has `_bucket` (at most {bounds} seconds), `_sum` and `_count`.\n\n"
        f"What to alarm on (each name begins with `{PREFIX}_`):\n\n{table(('alarm', 'because'), alarms)}"
    )
