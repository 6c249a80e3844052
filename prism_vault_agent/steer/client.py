"""Run one of these verbs without the command line proper, where its words need no explanation and nothing fails."""

import posix
import sys

from prism_vault_agent.steer import arguments, verbs


def main(words: list[str]) -> int | None:
    """Return the exit status of the command line ``words``, whose first is the verb; None where they must be explained."""
    asked = arguments.parse(words[0], words[1:])
    if asked is None:
        return None
    try:
        status: int = getattr(verbs, words[0])(asked, posix.environ)
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 - told in one line, as the command line proper does
        from prism_vault_agent.cli.main import failed  # noqa: PLC0415 - only a failure pays for it

        return failed(error, words)
    return status
