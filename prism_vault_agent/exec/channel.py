"""What ``exec --supervise`` and its lifeline tell each other, over a pair of sockets that keeps messages apart."""

import _socket

# What the supervisor tells: the number of a signal to pass on; to begin; that it runs, and the number of the last change it read.
GO = b"\xff"
AWAKE = b"\0"
# What it is told: that the command stopped, with the signal and its process id in four bytes; that it was continued, with the
# number of this change, modulo 256; that it ended, with the status of waitpid(2) in four bytes.
STOPPED = b"s"
CONTINUED = b"c"
ENDED = b"e"
LONGEST = 8


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
