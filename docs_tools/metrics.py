"""The reference of central's metrics, from the code that counts them."""

from __future__ import annotations

from typing import Final

from docs_tools.markdown import GENERATED, table
from prism_vault_agent.central.http.codes import AUTHENTICATION
from prism_vault_agent.central.metrics import PREFIX, Metrics

_INTRODUCTION: Final = """\
`GET /metrics` has them in the text format of Prometheus: for a credential of an operator with the scope `metrics:read`, and for
any process of the same machine (not through a proxy: a request that says for whom it is forwarded needs the credential). Each
replica counts for itself; what is about the log as a whole (leaves, checkpoint) is the same from every replica.

No label names a host, a project, a scope, a run or a caller. A histogram has `_bucket`, `_sum` and `_count`. The usual
`process_*` (memory, processor time, descriptors, start) are there too where `/proc/stat` can be read, which `ProcSubset=pid` of
the unit forbids: systemd's own accounting has them.
"""
# Every way in which a credential does not hold; none at all is a scanner.
_REFUSED: Final = f'code=~"{"|".join(code for code in AUTHENTICATION if code != "no_credential")}|two_credentials"'
_ALARMS: Final = (
    ("ready == 0", "agents release nothing while `storage` fails; proofs are late while `checkpoint` is"),
    ("checkpoint_lag_seconds > 5", "rows are durable, and nobody can prove them yet"),
    ("rate(transactions_failed_total[5m]) > 0", "the disk or the database refuses"),
    ("rate(reservations_abandoned_total[15m]) > 0", "agents end, or lose central, between decision and release"),
    ("rate(receipts_missed_total[5m]) > 0", "the signing key cannot be used"),
    (f"rate(problems_total{{{_REFUSED}}}[5m]) > 0.1", "guessed or ended credentials"),
    ("certificate_end_timestamp_seconds - time() < 604800", "the certificate was not renewed"),
)


def page() -> str:
    """Return the page."""
    rows = [
        (f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), each.told)
        for each in Metrics("sqlite").described
    ]
    alarms = [(f"`{alarm}`", because) for alarm, because in _ALARMS]
    return (
        f"{GENERATED}# Metrics of central\n\n{_INTRODUCTION}\n{table(('name', 'kind', 'labels', 'what'), rows)}\n"
        f"What to alarm on (each name begins with `{PREFIX}_`):\n\n{table(('alarm', 'because'), alarms)}"
    )
