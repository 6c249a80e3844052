"""Is a copy of the log whole? What ``prism-vault audit verify`` looks at, from the copy alone, and its newest signature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prism_vault_agent.central.verification.databases import open_database
from prism_vault_agent.central.verification.verify import verify
from prism_vault_agent.errors import ConfigError, IntegrityError
from prism_vault_agent.proof.note import open_checkpoint

if TYPE_CHECKING:
    from prism_vault_agent.central.backup import Say
    from prism_vault_agent.proof.keys import VerifyingKey

MEND: Final = "keep it as it is, and compare it with an older backup and with the agents' heads"


def check(database: str, key: VerifyingKey | None, say: Say) -> int:
    """Return how many events a copy has. Raises :class:`IntegrityError` naming the first bad index where it is not whole.

    ``key`` verifies the newest checkpoint, as older ones may be signed by a key before it; without one, as before the first
    checkpoint, no signature is looked at. A copy from before there were leaves has none.
    """
    try:
        with open_database(database, unproved=True) as log:
            if not log.is_sound():
                raise IntegrityError("the file is damaged", mend=MEND)
            verdict = verify(log, progress=lambda rows: say(f"checking: {rows} events"))
            newest = log.newest()
    except ConfigError as error:
        raise IntegrityError(f"the copy cannot be read: {error.message}", mend=MEND) from None
    if verdict.fault is not None:
        raise IntegrityError(f"the log is not whole: first bad index {verdict.fault.n}: {verdict.fault.what}", mend=MEND)
    if key is not None and newest is not None:
        open_checkpoint(newest.note, key.name, key)
    return verdict.rows
