"""``exec --mask-output``: the process that all output of the command goes through, and the only other one that has the values.

The command hands it the values just before it is the command. Where the output is a terminal the command gets one of its own,
in front of the real one; elsewhere a pipe. What it reads, and its signals, are untouched.
"""

import _signal  # type: ignore[import-not-found]  # as in launch.py
import posix
import select
import sys
import termios

from prism_vault_agent.exec import INTERNAL, Failure, defect, kernel, report, shown, wire, write
from prism_vault_agent.exec.launch import no_core
from prism_vault_agent.exec.masking import Mask, Stream
from prism_vault_agent.exec.outputs import PIECE, Output, outputs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_QUIET = 50  # milliseconds without output after which a short beginning of a form is shown
_TICK = 200  # milliseconds between two looks at the terminal's size and mode
_INPUT_FLAGS, _LOCAL_FLAGS, _CHARACTERS = 0, 3, 6  # places in what tcgetattr returns, see termios(3)
_LAST = 0.05  # seconds for what is left to be written once the supervisor was killed
_LENGTH = 4  # bytes of the length before what the command is given


class Masker:
    """The process, seen from the one that starts it. ``values`` is where the command hands over what it was given."""

    __slots__ = ("outputs", "pid", "values")

    def __init__(self, closed: list[int]) -> None:
        """Start it; the caller had ``closed`` these of the standard descriptors."""
        self.outputs = outputs(closed)
        reading, self.values = posix.pipe()
        supervisor = posix.getpid()
        self.pid = posix.fork()
        if self.pid == 0:
            _end_with(supervisor)
            posix.close(self.values)
            for output in self.outputs:
                posix.close(output.writing)
            _mask(reading, self.outputs)
        posix.close(reading)
        for output in self.outputs:
            posix.close(output.reading)

    def take_output(self) -> None:
        """Write to the process from now on, where standard output and error were; for the child that becomes the command."""
        for output in self.outputs:
            for place in output.places:
                posix.dup2(output.writing, place)

    def status(self) -> int:
        """Return how it ended, as waitpid(2) has it, once everything is written; 0 where it was ended with everything else."""
        try:
            return posix.waitpid(self.pid, 0)[1]
        except ChildProcessError:
            return 0


def _end_with(supervisor: int) -> None:
    """End soon after the supervisor, its child, also where we are stopped, or wait for who reads what we write.

    The kernel continues us then; whoever does so while the supervisor lives changes nothing.
    """

    def continued(*_: object) -> None:
        if posix.getppid() != supervisor:
            _signal.signal(_signal.SIGALRM, _signal.SIG_DFL)
            _signal.setitimer(_signal.ITIMER_REAL, _LAST)
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGALRM})

    _signal.signal(_signal.SIGCONT, continued)
    kernel.be_continued_at_end_of_parent()
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGCONT})
    continued()


def _mask(values: int, streams: list[Output]) -> "NoReturn":
    """Be the process: read the values, then pass on what is written until nobody can write any more."""
    status = INTERNAL
    try:
        no_core()
        kernel.close_memory()
        _Passing(values, streams).run()
        status = 0
    except Exception as error:  # noqa: BLE001 - as in client.py: told in one line, without what it holds
        defect(error, [])
    finally:
        kernel.exit_now(status)


class _Passing:
    """The loop. ``real`` is the mode of each real terminal as it was, ``mirrored`` what the command has made of it.

    ``given`` is what the last two starts of the command were given: a daemon of the first may still print that.
    """

    def __init__(self, values: int, streams: list[Output]) -> None:
        self.values = values
        self.given: list[list[bytes]] = []
        self.short: set[bytes] = set()
        self.poll, self._newly = select.poll(), select.poll()
        self._newly.register(values, select.POLLIN)
        self.streams = {output.reading: (output, Stream(Mask([]))) for output in streams}
        self.terminals = [output for output in streams if output.terminal]
        self.real = [termios.tcgetattr(output.places[0]) for output in self.terminals]
        self.mirrored = [termios.tcgetattr(output.reading) for output in self.terminals]
        for reading in (values, *self.streams):
            self.poll.register(reading, select.POLLIN)
        self._take_values()

    def _look_for_values(self) -> None:
        if self._newly.poll(0):
            self._take_values()

    def _take_values(self) -> None:
        """Read what the command is given now, and mask it from now on; nothing where it is not started any more."""
        size = _exactly(self.values, _LENGTH)
        if not size:
            self.poll.unregister(self.values)
            self._newly.unregister(self.values)
            return
        named = wire.decode_block(_exactly(self.values, int.from_bytes(size, sys.byteorder)))
        self.given = [*self.given[-1:], [value for _, value in named]]
        mask = Mask([value for values in self.given for value in values])
        for _, stream in self.streams.values():
            stream.mask = mask
        short = {name for name, value in named if value and not Mask([value]).forms} - self.short
        if short:
            self.short |= short
            told = ", ".join(shown(name) for name, _ in named if name in short)
            report(Failure(0, f"too short to be masked in the output: {told}"), [])

    def run(self) -> None:
        """Pass on until the last output has ended; leave the terminal as it was."""
        try:
            while self.streams:
                self._step()
        finally:
            for output, mode, mirrored in zip(self.terminals, self.real, self.mirrored, strict=True):
                if _input_of(mirrored) != _input_of(mode):
                    termios.tcsetattr(output.places[0], termios.TCSANOW, mode)

    def _step(self) -> None:
        holding = any(stream.held for _, stream in self.streams.values())
        came = self.poll.poll(_QUIET if holding else _TICK if self.terminals else None)
        self._mirror()
        for reading, _ in came:
            if reading == self.values:
                continue  # as below
            output, stream = self.streams[reading]
            try:
                piece = posix.read(reading, PIECE)
            except OSError:
                piece = b""  # EIO: nobody has the command's terminal open any more, pty(7)
            self._look_for_values()  # who printed this was given them before
            written = write(output.places[0], stream.feed(piece) if piece else stream.rest(end=True))
            if not piece or not written:
                self.poll.unregister(reading)
                del self.streams[reading]
                posix.close(reading)  # and who writes on is told as without us
        self._look_for_values()
        if not came:
            for output, stream in self.streams.values():
                write(output.places[0], stream.rest(end=False))

    def _mirror(self) -> None:
        """Make of the real terminals what the command has made of its own, and the other way where the size has changed."""
        for at, output in enumerate(self.terminals):
            if output.reading not in self.streams:
                continue
            try:
                mode = termios.tcgetattr(output.reading)
                if _input_of(mode) != _input_of(self.mirrored[at]):
                    self.mirrored[at] = mode
                    real = termios.tcgetattr(output.places[0])
                    for place in (_INPUT_FLAGS, _LOCAL_FLAGS, _CHARACTERS):
                        real[place] = mode[place]
                    termios.tcsetattr(output.places[0], termios.TCSANOW, real)
                if output.resize():
                    posix.killpg(posix.tcgetpgrp(output.places[0]), _signal.SIGWINCH)
            except (OSError, termios.error):
                continue  # it hung up


def _exactly(descriptor: int, size: int) -> bytes:
    """Return so many bytes, nothing where there are no more."""
    read = b""
    while len(read) < size:
        piece = posix.read(descriptor, size - len(read))
        if not piece:
            return b""
        read += piece
    return read


def _input_of(mode: list[object]) -> tuple[object, ...]:
    return mode[_INPUT_FLAGS], mode[_LOCAL_FLAGS], mode[_CHARACTERS]
