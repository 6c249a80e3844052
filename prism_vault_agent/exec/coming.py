"""Being told when an agent comes: by SIGIO, when something comes into the directory of its socket (F_NOTIFY, fcntl(2)).

Not by inotify(7): a user has few of these (128 by default), and the agent itself needs one.
"""

import fcntl
import posix


def watch(path: str) -> int | None:
    """Return a descriptor; until it is closed this process gets SIGIO for what comes into the directory of ``path``.

    Where that is not there it is the next above that is. Return None where the kernel does not tell.
    """
    directory = path
    while directory := directory.rpartition("/")[0]:
        try:
            descriptor = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        try:
            fcntl.fcntl(descriptor, fcntl.F_NOTIFY, fcntl.DN_CREATE | fcntl.DN_RENAME | fcntl.DN_MULTISHOT)
        except OSError:
            posix.close(descriptor)
            return None
        return descriptor
    return None
