"""What is injected into the rendering of files, and into values and names: two rooms of the reference of faults."""

from __future__ import annotations

from typing import Final

# As the other rooms: fault, what must come of it, and the files below tests/.
FILES: Final = {
    35: (
        "any amount of room, from none to enough; no inode left",
        "the old files whole, told before a byte is written",
        "sink/test_generation.py sink/test_room.py sink/test_faults.py",
    ),
    36: (
        "SIGKILL at each system call",
        "old in full, new in full or absent; nothing left after a restart",
        "sink/test_faults.py",
    ),
    37: ("EIO, EINTR, ENOSPC at each system call; short writes", "the same", "sink/test_faults.py sink/test_room.py"),
    38: (
        "a link at the target, dangling or not",
        "replaced, never followed",
        "sink/test_generation.py threats/test_planted.py",
    ),
    39: (
        "another name of somebody's file at the target",
        "replaced; that file is as it was",
        "sink/test_generation.py threats/test_planted.py",
    ),
    40: (
        "a FIFO, a socket, a device at the target",
        "replaced, and nobody waits",
        "sink/test_generation.py threats/test_planted.py",
    ),
    41: ("a directory or a file at the target", "replaced", "sink/test_generation.py threats/test_planted.py"),
    42: (
        "a directory on the way exchanged for a link in a loop",
        "nothing is written where it leads",
        "sink/test_races.py threats/test_planted.py",
    ),
    43: (
        "a directory that others may write, of another owner, on a disk, that may be swapped, read-only, unmounted meanwhile",
        "refused, by its name",
        "sink/test_place.py sink/test_room.py threats/test_directories.py threats/test_swap.py",
    ),
    44: (
        "two agents for one directory, two scopes or files of one name",
        "the second is refused",
        "sink/test_place.py agent/test_files.py config/test_files.py config/test_load.py",
    ),
    45: (
        "a file deleted or edited by somebody",
        "told, recorded, mended by the next render",
        "sink/test_generation.py agent/test_files.py",
    ),
    46: (
        "a umask of 000 or 777",
        "exactly the mode that is asked for",
        "sink/test_generation.py sink/test_races.py threats/test_watched.py",
    ),
    47: (
        "an owner that there is not, or to whom we may not give",
        "refused; never a file of another owner",
        "config/test_files.py sink/test_place.py agent/test_helped.py",
    ),
    48: (
        "a reader that has the file open at a rotation, at a clear",
        "the old content to its end; nothing",
        "sink/test_generation.py threats/test_open_files.py",
    ),
    49: (
        "files that are there when the agent starts",
        "adopted where they are still allowed, else cleared before it serves",
        "sink/test_generation.py agent/test_files.py e2e/test_agent_unit_faults.py",
    ),
    50: ("many files rotated at once", "each whole, each with its rows", "agent/test_files.py agent/test_together.py"),
}
VALUES: Final = {
    51: (
        "quotes, line ends, dollars, backslashes, blanks, marks, any plane, lone surrogates",
        "to the byte in environments, and by every reader of a format, or refused by it",
        "agent/test_values.py dialects/test_contents.py dialects/test_readers.py e2e/test_env_files.py",
    ),
    52: (
        "NUL",
        "refused for an environment before release; to the byte in a file of its own",
        "agent/test_values.py dialects/test_contents.py",
    ),
    53: ("empty values, numbers, booleans, null, lists, objects", "one rule; never None", "agent/test_values.py"),
    54: (
        "the longest variable, the largest environment, and a byte more",
        "carried; refused by its name",
        "agent/test_values.py dialects/test_contents.py",
    ),
    55: ("a file of 1 MiB, and a byte more", "written; refused with the limit", "dialects/test_contents.py agent/test_values.py"),
    56: ("a secret that is a common word", "rows and log as any other's", "agent/test_values.py"),
    57: (
        "names that are none, twice, twins but for case",
        "refused before the reservation",
        "agent/test_values.py config/test_load.py dialects/test_contents.py",
    ),
    58: (
        "names that change how programs run",
        "refused, unless the scope names each",
        "agent/test_values.py config/test_load.py",
    ),
    59: (
        "a configuration that is wrong, too large, nested without end, or that others could write",
        "78, with the line; nothing is started",
        "config/test_sources.py config/test_load.py cli/test_commands.py",
    ),
    60: (
        "a scope that is removed at a reload",
        "its files cleared, its runs ended",
        "agent/test_files.py agent/test_reload.py agent/test_narrowed.py",
    ),
}
