"""The options of ``prism-vault exec``: one table, read here by hand and shown by ``cli/exec.py``."""

from prism_vault_agent.exec import AGENT_UNAVAILABLE, TEMPORARY, USAGE, Failure

DEFAULT_TIMEOUT = 10.0
LONGEST_TIMEOUT = 300.0  # as long as the agent lets one request take

# Option, field of ExecOptions, what its value is called (a switch has none), what --help says.
OPTIONS = (
    ("--scope", "scopes", "SCOPE", "the scope whose secrets the command gets; may be repeated, all or nothing"),
    ("--purpose", "purpose", "PURPOSE", "why; needed where the scope allows several purposes"),
    ("--run-ref", "run_ref", "REF", "the agent run that this is part of; callers of kind agent must tell it"),
    ("--job-id", "job_id", "ID", "the job that this is part of; callers of kind worker must tell it"),
    ("--env-file", "env_files", "FILE", "variables from a .env file; values may be vault:// references; may be repeated"),
    ("--pristine", "pristine", "", "of your own variables, give the command only HOME, PATH and the like"),
    ("--supervise", "supervise", "", "stay until the command ends, and end with it whatever it has started"),
    (
        "--on-rotate",
        "on_rotate",
        "WHAT",
        "when its secrets are rotated: restart (implies --supervise), signal:NAME, terminate or none",
    ),
    ("--restart", "restart", "WHEN", "start the command again: on-failure, always, or no (the default); implies --supervise"),
    ("--restart-limit", "restart_limit", "N/TIME", "how often within a time, before it is left at that: 5/1m (the default)"),
    ("--mask-output", "mask_output", "", "replace the values in what the command prints; implies --supervise"),
    ("--timeout", "timeout", "TIME", "how long it may all take until the command starts: 500ms, 10s (the default), 1m"),
    ("--direct", "direct", "", "without an agent: read the secrets with your own configuration; the audit row says so"),
    ("--dry-run", "dry_run", "", "show which names would be set and from where, without reading a value"),
    ("--socket", "socket", "PATH", "the agent's socket"),
    ("--config", "config", "PATH", "the configuration to use with --direct"),
)
RESTARTS = ("no", "on-failure", "always")
ROTATIONS = ("", "restart", "terminate", "none", *(f"signal:{name}" for name in ("HUP", "INT", "TERM", "USR1", "USR2")))
LISTS = ("scopes", "env_files")
_BY_NAME = {option: (field, bool(value)) for option, field, value, _ in OPTIONS}


class ExecOptions:
    """What the command line asked for. ``timeout`` is seconds; an option that was not given is empty, False or None."""

    __slots__ = (
        "after",
        "config",
        "direct",
        "dry_run",
        "env_files",
        "help",
        "job_id",
        "mask_output",
        "on_rotate",
        "pristine",
        "purpose",
        "quiet",
        "restart",
        "restart_limit",
        "run_ref",
        "scopes",
        "socket",
        "supervise",
        "terms_to",
        "timeout",
        "values_to",
    )

    def __init__(self) -> None:
        """Start from the defaults."""
        self.scopes: list[str] = []
        self.purpose = ""
        self.run_ref = ""
        self.job_id = ""
        self.env_files: list[str] = []
        self.pristine = False
        self.timeout = DEFAULT_TIMEOUT
        self.direct = False
        self.dry_run = False
        self.supervise = False
        self.on_rotate = ""
        self.restart = "no"
        self.restart_limit = (5, 60.0)  # times, seconds
        self.mask_output = False
        self.quiet = False  # what is temporary was said before
        self.after = ""  # the release of the start before
        self.values_to = 0  # a descriptor that takes the values before they are the command's
        self.terms_to = 0  # one that takes the terms of the release, then too
        self.socket = ""
        self.config = ""
        self.help = False

    def unsaid(self, exit_status: int) -> bool:
        """Tell whether a failure with this status is not to be told: it is tried again, and was told the first time."""
        return self.quiet and exit_status in (AGENT_UNAVAILABLE, TEMPORARY)


def parse(words: list[str]) -> tuple[ExecOptions, list[str]]:
    """Return the options and the command that follow the word ``exec``. Raises ``Failure`` (64).

    The command starts behind ``--``, or at the first word that is no option.
    """
    options = ExecOptions()
    left = list(reversed(words))
    while left and left[-1].startswith("-") and left[-1] != "-":
        word = left.pop()
        if word == "--":
            break
        if word in ("-h", "--help"):
            options.help = True
            return options, []
        option, given, value = word.partition("=")
        field, takes_value = _BY_NAME.get(option, ("", False))
        if not field:
            # Only what looks like an option is repeated: the word may be a secret that was put in the wrong place.
            told = f" {option}" if option.isascii() and option.replace("-", "").isalpha() else " of that name"
            raise Failure(USAGE, f"exec has no option{told}; see prism-vault exec --help")
        if takes_value and not given:
            value = left.pop() if left else ""
        if bool(value) != takes_value or (given and not takes_value):
            rule = "needs a value" if takes_value else "takes no value"
            raise Failure(USAGE, f"{option} {rule}; see prism-vault exec --help")
        store(options, field, value)
    return check(options), left[::-1]


def store(options: ExecOptions, field: str, value: str) -> None:
    """Put ``value`` where it belongs; a switch has an empty one. Raises ``Failure`` (64) for a time that is none."""
    if field in LISTS:
        getattr(options, field).append(value)
    elif field == "timeout":
        options.timeout = seconds(value)
    elif field == "restart_limit":
        options.restart_limit = limit(value)
    else:
        setattr(options, field, value or True)


def check(options: ExecOptions) -> ExecOptions:
    """Return the options, or raise ``Failure`` (64) where two of them contradict each other."""
    if options.config and not options.direct:
        raise Failure(USAGE, "--config belongs to --direct; with an agent, name its --socket")
    if options.socket and options.direct:
        raise Failure(USAGE, "--socket and --direct exclude each other; --direct asks no agent")
    if options.restart not in RESTARTS:
        raise Failure(USAGE, f"--restart takes one of {', '.join(RESTARTS)}")
    if options.on_rotate not in ROTATIONS:
        raise Failure(USAGE, f"--on-rotate takes one of {', '.join(ROTATIONS[1:])}")
    if options.on_rotate and options.direct:
        raise Failure(USAGE, "--on-rotate and --direct exclude each other; without an agent nobody tells of a rotation")
    options.supervise |= options.mask_output or options.restart != "no" or options.on_rotate == "restart"
    return options


def limit(text: str) -> tuple[int, float]:
    """Return how often within how many seconds ``5/1m`` says. Raises ``Failure`` (64)."""
    most, slash, within = text.partition("/")
    if not slash or not (most.isascii() and most.isdigit() and len(most) < 6):
        raise Failure(USAGE, "--restart-limit takes a number and a time, such as 5/1m")
    return int(most), seconds(within, "--restart-limit")


def seconds(text: str, option: str = "--timeout") -> float:
    """Return the seconds that ``500ms``, ``10s``, ``10`` or ``1m`` says. Raises ``Failure`` (64)."""
    number, factor = text, 1.0
    for unit, in_seconds in (("ms", 0.001), ("s", 1.0), ("m", 60.0)):
        if text.endswith(unit):
            number, factor = text[: -len(unit)], in_seconds
            break
    if number.isascii() and number.replace(".", "", 1).isdigit() and 0 < float(number) * factor <= LONGEST_TIMEOUT:
        return float(number) * factor
    raise Failure(USAGE, f"{option} takes a time of up to 5m, such as 500ms, 10s or 1m")


def fill(options: ExecOptions, environment: dict[bytes, bytes]) -> None:
    """Take from ``PRISM_VAULT_PURPOSE``, ``_RUN_REF``, ``_JOB_ID`` and ``_SOCKET`` what is not said."""
    for field in ("purpose", "run_ref", "job_id", "socket"):
        if not getattr(options, field):
            told = environment.get(b"PRISM_VAULT_" + field.upper().encode(), b"")
            setattr(options, field, told.decode("utf-8", "surrogateescape"))


def complete(options: ExecOptions, command: list[str], own: dict[bytes, bytes]) -> None:
    """Fill ``options`` from the caller's ``own`` variables and project file. Raises ``Failure``: 64 or 78."""
    if not command and not options.dry_run:
        raise Failure(USAGE, "no command is given; write it behind --, as in: prism-vault exec --scope web -- env")
    fill(options, own)
    if not options.scopes:
        from prism_vault_agent.exec import project  # noqa: PLC0415 - only who uses it pays for it

        options.scopes = project.scopes(own)
