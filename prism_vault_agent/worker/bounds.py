"""What a template may use of the machine: so much of a processor's time and of memory, in a worker that ends with it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SECONDS: Final = 2.0
AGAIN: Final = 0.1
MEMORY: Final = 128 * 1024 * 1024
# Beyond this nothing that Python does is waited for: the kernel ends the worker.
GRACE_SECONDS: Final = 3


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Have what is done within raise ``TimeoutError`` after 2 s of processor time, ``MemoryError`` beyond 128 MiB more.

    Processor time and not the clock's: a busy machine changes no outcome. An error that Python swallows comes again after a
    tenth of a second; where not even that ends it, SIGXCPU ends the process, 3 s later (setrlimit(2), setitimer(2)).
    """
    spent = sum(os.times()[:2])
    with open("/proc/self/statm", "rb") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    before = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU)}
    _lower(resource.RLIMIT_AS, mapped + MEMORY)
    _lower(resource.RLIMIT_CPU, int(spent + SECONDS) + GRACE_SECONDS)
    earlier = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, earlier)
        for kind, limits in before.items():
            resource.setrlimit(kind, limits)


def _lower(kind: int, most: int) -> None:
    soft, hard = resource.getrlimit(kind)
    if soft == resource.RLIM_INFINITY or soft > most:
        resource.setrlimit(kind, (most, hard))


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError
