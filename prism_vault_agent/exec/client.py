"""Ask the agent for the secrets of a scope, then become the command. Without an agent nothing runs."""

import posix
import time

from prism_vault_agent.exec import (
    PROTOCOL,
    STANDARD_ERROR,
    STANDARD_OUTPUT,
    TEMPORARY,
    Failure,
    Malformed,
    arguments,
    connection,
    defect,
    report,
    wire,
    write,
)
from prism_vault_agent.exec.launch import Launch, encoded, no_core, own_variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from prism_vault_agent.exec.arguments import ExecOptions

_OK = 200


def main(words: list[str]) -> int | None:
    """Become the command that ``words`` ask for; they follow the word ``exec``.

    Returns only where no command runs: the exit status, after one line of why on standard error, or None where the
    command line proper is asked for (``--help``, ``--direct``).
    """
    started = time.monotonic()
    try:
        options, command = arguments.parse(words)
    except Failure as failure:
        return report(failure, [])
    return None if options.help or options.direct else start(options, lambda begun: run(options, command, begun), started)


def start(options: "ExecOptions", become: "Callable[[float], int]", started: float) -> int:
    """Have ``become`` turn this process into the command, or with ``--supervise`` one below; return the exit status.

    It is told when the timeout began: ``started``, or when the supervisor started that process.
    """
    if options.dry_run or not options.supervise:
        return become(started)
    from prism_vault_agent.exec import supervise  # noqa: PLC0415 - only who uses it pays for it

    try:
        return supervise.run(options, become)
    except OSError as error:
        from prism_vault_agent.exec import faults  # noqa: PLC0415 - only a failure pays for it

        return report(faults.no_more(error), [])


def run(options: "ExecOptions", command: list[str], started: float) -> int:
    """Become ``command``, or return the exit status after the line of why; ``started`` is when the timeout began."""
    try:
        own = own_variables()
        arguments.complete(options, command, own)
        launch = Launch(options, command, own)
        paths = connection.sockets(options.socket, own, posix.geteuid())
        return _exchange(options, launch, paths, started + options.timeout)
    except Failure as failure:
        return failure.exit_status if options.unsaid(failure.exit_status) else report(failure, options.scopes)
    except Exception as error:  # noqa: BLE001 - a defect of ours is told in one line too, and without what it holds
        return defect(error, options.scopes)


def _exchange(options: "ExecOptions", launch: Launch, paths: list[str], deadline: float) -> int:
    """Ask, and become the command or tell what the agent said."""
    no_core()
    fields = [(b"scope", encoded(scope)) for scope in options.scopes]
    told = (
        (b"purpose", options.purpose),
        (b"run_ref", options.run_ref),
        (b"job_id", options.job_id),
        (b"supervised", "1" if options.supervise else ""),
        (b"on_rotate", options.on_rotate),
        (b"after", options.after),
    )
    fields += [(name, encoded(text)) for name, text in told if text]
    fields += launch.sizes()
    fields += [(b"pristine", b"%d" % options.pristine), (b"dry_run", b"%d" % options.dry_run)]
    fields += [(b"ref", b"%b=%b" % reference) for reference in launch.kept.references]
    status, headers, body = ask(paths, fields, deadline)
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip()
    if status != _OK:
        exit_status = headers.get(b"x-prism-vault-exit", b"")
        if not exit_status.isdigit() or not 0 < int(exit_status) < 256:
            raise _misunderstood(f"it is an error ({status}) without an exit status")
        if not options.unsaid(int(exit_status)):
            write(STANDARD_ERROR, b"prism-vault: " + _one_line(body) + b"\n")
        return int(exit_status)
    if options.dry_run and kind == wire.TEXT_TYPE:
        write(STANDARD_OUTPUT, body)
        return 0
    if options.dry_run or kind != wire.ENVIRONMENT_TYPE:
        raise _misunderstood("it is not what was asked for")
    return _become(launch, headers, body)


def _become(launch: Launch, headers: dict[bytes, bytes], body: bytes) -> "NoReturn":
    """Become the command with what the agent released."""
    pristine = headers.get(b"x-prism-vault-pristine")
    collision = headers.get(b"x-prism-vault-collision", b"")
    if pristine not in (b"0", b"1") or collision not in (b"error", b"scope", b"caller"):
        raise _misunderstood("it does not say how to combine the environments")
    try:
        released = wire.decode_block(body)
    except Malformed as error:
        raise _misunderstood(f"in its environment {error}") from None
    terms = tuple(headers.get(b"x-prism-vault-" + name, b"") for name in (b"grace-ms", b"orders", b"ends-ms", b"audit-id"))
    if headers.get(b"x-prism-vault-adopt") == b"1":
        from prism_vault_agent.exec import kernel  # noqa: PLC0415 - only where nothing else keeps the command's daemons together

        kernel.adopt_orphans()
    launch.become(released, pristine=pristine == b"1", collision=collision, terms=terms)


def ask(paths: list[str], fields: list[tuple[bytes, bytes]], deadline: float) -> tuple[int, dict[bytes, bytes], bytes]:
    """Return status, headers and body of the agent's answer; ``deadline`` is on the clock of ``time.monotonic``.

    Raises ``Failure``: 69 where no agent listens, 77 where its socket is closed to us, 75 when the time is over, 76 for an
    answer that is none.
    """

    def request() -> bytes:
        remaining = max(int((deadline - time.monotonic()) * 1000), 1)
        return wire.encode_request([(b"timeout_ms", b"%d" % remaining), *fields])

    try:
        return connection.exchange(paths, request, deadline)
    except connection.NotConnected as none:
        from prism_vault_agent.exec import faults  # noqa: PLC0415 - only a failure pays for it

        raise faults.not_connected(none.paths, none.error) from None
    except BlockingIOError:
        line = "the agent did not answer in time; try again, or give a longer --timeout"
        raise Failure(TEMPORARY, line) from None
    except Malformed as error:
        raise _misunderstood(str(error)) from None


def _misunderstood(why: str) -> Failure:
    """Return what to tell about an answer that breaks the wire format."""
    return Failure(PROTOCOL, f"the agent's answer cannot be understood: {why}; try again, and see the agent's log")


def _one_line(body: bytes) -> bytes:
    """Return the first line of ``body``, fit for a terminal."""
    line = body[:4096].split(b"\n", 1)[0].decode("utf-8", "replace")
    return "".join([mark if mark.isprintable() else "?" for mark in line]).encode()
