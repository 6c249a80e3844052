"""What ``exec --supervise`` and its lifeline tell each other, over a pair of sockets that keeps messages apart."""

import _socket

# What the supervisor tells: the number of a signal to pass on; to start the command, quietly or aloud, and after which release;
# to end it within its grace; that it runs, and the number of the last change it read; with the same number, that it runs and asks
# whether it should.
GO = b"\xff"
QUIET = b"q"
ALOUD = b"a"
STOP = b"\xfe"
AWAKE = b"\0"
WOKEN = b"\xfd"
# What it is told: the terms of the release, just before the command is one; that the command stopped, with the signal and its
# process id in four bytes; that it was continued, with the number of this change, modulo 256; that its group was sent a signal
# that ends; that it ended, with the status of waitpid(2) in four bytes.
TERMS = b"t"
STOPPED = b"s"
CONTINUED = b"c"
SENT = b"g"
ENDED = b"e"
LONGEST = 128

GRACE = 10.0  # seconds, where nobody has told another


class Terms:
    """What a release says to who supervises: the scope's ``grace`` in seconds, whether to wait for ``orders``, and its ``id``.

    ``ends`` is until when what it gave may be used while no agent says otherwise (CLOCK_BOOTTIME seconds), None without an end.
    """

    __slots__ = ("ends", "grace", "id", "orders")

    def __init__(self, told: bytes) -> None:
        """Read what :func:`terms` wrote."""
        grace, orders, ends, self.id = told.split(b" ", 3)
        self.grace = int(grace) / 1000 if grace else GRACE
        self.orders = orders == b"1"
        self.ends = boottime(ends)


def terms(grace: bytes, orders: bytes, ends: bytes, name: bytes) -> bytes:
    """Return what a command tells: grace and end in milliseconds, ``1`` for orders, the release's id; what is none is empty."""
    return b"%b %b %b %b" % (
        grace if grace.isdigit() and len(grace) < 10 else b"",
        orders if orders == b"1" else b"",
        ends if boottime(ends) is not None else b"",
        name if len(name) < 64 else b"",
    )


def boottime(milliseconds: bytes) -> float | None:
    """Return the seconds of CLOCK_BOOTTIME that are told in milliseconds, None where none are."""
    return int(milliseconds) / 1000 if milliseconds.isdigit() and len(milliseconds) < 16 else None


def tell(channel: _socket.socket, what: bytes) -> None:
    """Tell the other end; where it is gone there is nobody to tell, which reading will show."""
    try:
        channel.send(what, _socket.MSG_NOSIGNAL)
    except OSError:
        return


def hear(channel: _socket.socket) -> bytes:
    """Return what the other end tells next, nothing where it is gone."""
    while True:
        try:
            return channel.recv(LONGEST)
        except ConnectionResetError:
            continue  # said once of an end that left something unread; what it told before comes next
