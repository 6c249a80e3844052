"""The command ``prism-vault``: ``exec`` and the verbs of ``steer`` go to their thin clients, the rest to the command line proper.

Started by the launcher, by ``python -m prism_vault_agent``, or as a file by an isolated interpreter that knows no
site-packages; the last lines are for that.
"""

import _signal  # type: ignore[import-not-found]  # typeshed describes `signal`, which costs an import of `enum`
import sys


def main(words: list[str]) -> int:
    """Run the command that ``words`` ask for and return the exit status; ``exec`` becomes its command instead."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # as in the launcher
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    if words[:1] == ["exec"]:
        from prism_vault_agent.exec import client  # noqa: PLC0415 - each branch pays for its own imports

        status = client.main(words[1:])
        if status is not None:
            return status
    from prism_vault_agent.steer import VERBS  # noqa: PLC0415 - as above

    if words and words[0] in VERBS:
        from prism_vault_agent.steer import client as steering  # noqa: PLC0415 - as above

        status = steering.main(words)
        if status is not None:
            return status
    from prism_vault_agent.cli.main import main as command_line  # noqa: PLC0415 - as above

    return command_line(words)


if __name__ == "__main__":
    if not any(path and __file__.startswith(f"{path}/prism_vault_agent/") for path in sys.path):
        sys.path.append(__file__.rpartition("/prism_vault_agent/")[0])
    sys.exit(main(sys.argv[1:]))
