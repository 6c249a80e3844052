"""The thin client of the commands that steer this host's agent: ``render``, ``clear``, ``rotate`` and ``revoke``.

As ``exec`` it loads only itself, what it shares with ``exec``, and modules of the interpreter that are written in C (see
``docs/adr/0070-thin-commands.md``). Usage, ``--help`` and every failure are told by the command line proper.
"""

VERBS = ("render", "clear", "rotate", "revoke")
