"""systemd-coredump for a booted container: its files and nothing more.

Installed by its package it would make itself the core handler of the whole host, since ``core_pattern`` is in no namespace.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

from tests.support.roots import cache, root

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.booted import Booted

PACKAGE: Final = "systemd-coredump"
PROGRAM: Final = "/usr/lib/systemd/systemd-coredump"
# What the kernel tells of a dump (core(5)); behind the first word what systemd-coredump 252 takes, the PID in its own namespace.
WORDS: Final = "%P %p %u %g %s %t %c %h"
# Hands the dumps of one container to its own systemd-coredump; notes the others, and reads them to their end.
FORWARD: Final = """\
#!/bin/sh
pid=$1
shift
[ "$(readlink /proc/$pid/ns/pid)" = "$(readlink /proc/LEADER/ns/pid)" ] || exec cat > /dev/null
echo "$1" >> {directory}/noted
exec nsenter --target LEADER --all -- PROGRAM "$@"
"""


def unpacked() -> Path:
    """Return a directory with the package's files, fetched now where there is none."""
    which = root()
    finished = cache() / f"{PACKAGE}-{which.name}"
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            building = finished.with_suffix(".building")
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir()
            inside = f"cd /mnt && apt-get download -q {PACKAGE} && dpkg --extract {PACKAGE}_*.deb . && rm {PACKAGE}_*.deb"
            apart = f'mount --bind "$1" "$2/mnt" && exec chroot "$2" /bin/sh -c "{inside}"'
            command = ["unshare", "--mount", "--", "/bin/sh", "-c", apart, "sh", str(building), str(which)]
            path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
            done = subprocess.run(command, env=path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done
            building.rename(finished)
    return finished


def put_into(booted: Booted) -> str:
    """Have a container take core dumps into its journal; return the script that hands it its own (see ``core_pattern``)."""
    source = unpacked()
    for part in ("lib/systemd", "usr/lib/sysusers.d"):
        shutil.copytree(source / part, booted.path(f"/usr/{part.removeprefix('usr/')}"), dirs_exist_ok=True)
    booted.run("systemd-sysusers")
    booted.run("systemctl", "daemon-reload")
    booted.run("systemctl", "start", "systemd-coredump.socket")
    return FORWARD.replace("LEADER", str(booted._leader)).replace("PROGRAM", PROGRAM)
