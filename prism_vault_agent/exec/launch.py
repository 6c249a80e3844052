"""What is known of a command before any secret is asked for, and becoming it once the secrets are there."""

import _signal  # type: ignore[import-not-found]  # typeshed describes `signal`, which costs an import of `enum`
import posix
import resource
import sys

from prism_vault_agent.exec import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from prism_vault_agent.exec.arguments import ExecOptions

DEFAULT_PATH = b"/bin:/usr/bin"  # what execvp(3) searches where PATH is not set
_PIECE = 65_536
_REGULAR = 0o100000
_KIND = 0o170000


class Launch:
    """A command that can be started, with what it gets besides secrets. Both are empty where there is none."""

    __slots__ = ("argv", "kept", "path", "pristine", "terms_to", "values_to")

    def __init__(self, options: "ExecOptions", command: list[str], own: dict[bytes, bytes]) -> None:
        """Read the env files and find the command. Raises ``Failure``: 78, 126 or 127."""
        told: dict[bytes, bytes] = {}
        if options.env_files:
            from prism_vault_agent.exec import envfile  # noqa: PLC0415 - only who uses it pays for it

            for path in options.env_files:
                told.update(envfile.read(path))
        self.kept = environment.Kept(own, told)
        self.pristine = options.pristine
        self.terms_to = options.terms_to
        self.values_to = options.values_to
        self.argv = [encoded(word) for word in command]
        self.path = find(self.argv[0], own.get(b"PATH", DEFAULT_PATH)) if self.argv else b""

    def sizes(self) -> list[tuple[bytes, bytes]]:
        """Return what the agent needs to tell whether the kernel can carry the whole, as fields of a request."""
        counted = (
            (b"argv_bytes", environment.kernel_bytes([*self.argv, self.path])),
            (b"env_bytes", environment.kernel_bytes(environment.as_strings(self.kept.all))),
            (b"pristine_env_bytes", environment.kernel_bytes(environment.as_strings(self.kept.pristine))),
            (b"stack_limit", max(resource.getrlimit(resource.RLIMIT_STACK)[0], 0)),
        )
        return [(name, b"%d" % number) for name, number in counted]

    def become(
        self, released: list[tuple[bytes, bytes]], *, pristine: bool, collision: bytes, terms: tuple[bytes, ...] = ()
    ) -> "NoReturn":
        """Replace this process by the command; its supervisor is told the ``terms`` of the release.

        These are grace, orders, end and name (``channel.terms``). Raises ``Failure``: 78 for a collision or too much, 126, 127.
        """
        kept = self.kept.pristine if pristine or self.pristine else self.kept.all
        variables = environment.compose(kept, released, collision)
        no_core()
        if self.values_to:
            from prism_vault_agent.exec import wire  # noqa: PLC0415 - without a mask it is the caller's only

            block = wire.encode_block(released)
            with open(self.values_to, "wb", closefd=False) as masker:
                masker.write(len(block).to_bytes(4, sys.byteorder) + block)
        if self.terms_to:
            from prism_vault_agent.exec import channel  # noqa: PLC0415 - without a supervisor nobody is told

            posix.write(self.terms_to, channel.terms(*terms))
        # The interpreter ignores these two for itself and does not tell what it found: every other program starts with
        # the default, and so does a child of `subprocess` (restore_signals).
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
            _signal.signal(number, _signal.SIG_DFL)
        try:
            posix.execve(self.path, self.argv, variables)
        except OSError as error:
            from prism_vault_agent.exec import faults  # noqa: PLC0415 - only a failure pays for it

            raise faults.not_started(self.path, self.argv, variables, error) from None


def own_variables() -> dict[bytes, bytes]:
    """Return the variables that this process was started with.

    Read from the kernel: by now the interpreter may have put LC_CTYPE into its own copy (PEP 538).
    """
    try:
        descriptor = posix.open("/proc/self/environ", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return {name: value for name, value in posix.environ.items() if name}
    parts = [posix.read(descriptor, _PIECE)]
    while len(parts[-1]) == _PIECE:
        parts.append(posix.read(descriptor, _PIECE))
    posix.close(descriptor)
    return environment.read_block(b"".join(parts))


def encoded(word: str) -> bytes:
    """Return the bytes that the interpreter read ``word`` from."""
    return word.encode(sys.getfilesystemencoding(), "surrogateescape")


def no_core() -> None:
    """Let no memory of this process or of the command reach a core file or a core handler.

    One byte, not 0: the kernel starts a core handler that it pipes to at 0, but not at 1.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except (OSError, ValueError):
        return  # the hard limit is 0 and not ours to raise: no file, but a handler that is piped to would be started


def find(name: bytes, search: bytes) -> bytes:
    """Return the file to run, looked for as execvp(3) does, in the caller's own PATH. Raises ``Failure`` 127 or 126."""
    if b"/" in name:
        candidates = [name]
    else:
        candidates = [b"%b/%b" % (directory or b".", name) for directory in search.split(b":")] if name else []
    for path in candidates:
        try:
            mode = posix.stat(path).st_mode
        except OSError:
            continue
        if mode & _KIND == _REGULAR and posix.access(path, posix.X_OK, effective_ids=True):
            return path
    from prism_vault_agent.exec import faults  # noqa: PLC0415 - only a failure pays for it

    raise faults.no_command(name, candidates)
