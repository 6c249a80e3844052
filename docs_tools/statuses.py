"""The reference of exit statuses, from the error tree."""

from __future__ import annotations

from docs_tools.markdown import GENERATED, table
from prism_vault_agent import errors
from prism_vault_agent.cli.main import BROKEN_PIPE, INTERRUPTED

_OTHER = (
    ("126", "", "`exec`: the command cannot be executed"),
    ("127", "", "`exec`: there is no such command"),
    (str(INTERRUPTED), "", "Ctrl-C"),
    (str(BROKEN_PIPE), "", "the reader of our output left; nothing is told"),
)


def page() -> str:
    """Return the page."""
    classes = sorted(errors.every_class().values(), key=lambda kind: (kind.exit_status, kind.__name__))
    rows = [
        (str(kind.exit_status), f"`{kind.reason}`", _meaning(kind))
        for kind in classes
        # Subclasses elsewhere have these statuses too; that a token expired never reaches a caller.
        if kind.__module__ == errors.__name__ and kind is not errors.TokenExpired
    ]
    return (
        f"{GENERATED}# Exit statuses\n\n"
        "Every failure prints one line on standard error: what failed, for which scope, what to do next, and the audit id "
        "where there is one. The exit status says what a program should do: "
        f"**{errors.Unavailable.exit_status} is the only one worth a retry**. The numbers are those of `sysexits.h`, so that a "
        "systemd unit can name them in `RestartPreventExitStatus=`. The reason is the word that audit rows and logs use.\n\n"
        "A command that `exec` became has its own exit status; those below are from before it ran.\n\n"
        f"{table(('status', 'reason', 'meaning'), rows)}\n"
        "Those of other origin:\n\n"
        f"{table(('status', 'reason', 'meaning'), _OTHER)}"
    )


def _meaning(kind: type[errors.PrismVaultError]) -> str:
    if kind is errors.PrismVaultError:
        return "A defect of ours; please report it."
    return (kind.__doc__ or "").partition("\n")[0]
