"""The command lines of these verbs that need no explanation; any other is left to the command line proper."""

_ALWAYS = {"--json": ("json", False), "--socket": ("socket", True)}
_RUN = {"--run-ref": ("run_ref", True)}
_ANY = 1 << 20

# Of each verb its options (field, and whether it takes a value), the field of its other words, how few of them and how many.
_TAKES = {
    "render": ({**_ALWAYS, **_RUN, "--purpose": ("purpose", True), "--job-id": ("job_id", True)}, "scopes", 1, _ANY),
    "clear": ({**_ALWAYS, "--all": ("all", False)}, "scopes", 0, _ANY),
    "rotate": (_ALWAYS, "what", 1, _ANY),
    "revoke": ({**_ALWAYS, **_RUN}, "what", 0, 1),
}


class Asked:
    """What a command line asked for: the fields of all verbs, at their defaults where a verb has no such option."""

    def __init__(self) -> None:
        """Start from the defaults."""
        self.scopes: list[str] = []
        self.what: list[str] | str | None = None
        self.all = False
        self.json = False
        self.purpose: str | None = None
        self.run_ref: str | None = None
        self.job_id: str | None = None
        self.socket: str | None = None


def parse(verb: str, words: list[str]) -> Asked | None:
    """Return what the ``words`` that follow a verb ask for, or None for what must be explained, or may be meant otherwise."""
    options, field, least, most = _TAKES[verb]
    asked, left, optioned = Asked(), list(reversed(words)), False
    others: list[str] = []
    while left:
        word = left.pop()
        if word[:1] != "-":
            # argparse takes these together only, and behind an option only where there must be one.
            if others or (optioned and not least):
                return None
            others = [word]
            while left and left[-1][:1] != "-":
                others.append(left.pop())
            continue
        optioned = True
        option, equals, value = word.partition("=")
        name, takes_value = options.get(option, ("", False))
        if takes_value and not equals and left and left[-1][:1] != "-":
            equals, value = "=", left.pop()
        if not name or takes_value != bool(equals):
            return None
        setattr(asked, name, value if takes_value else True)
    if not least <= len(others) <= most:
        return None
    if most > 1:
        setattr(asked, field, others)
    elif others:
        setattr(asked, field, others[0])
    return asked
