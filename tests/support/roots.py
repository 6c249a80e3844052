"""The roots of Debians in which the tests boot machines, and what prism-vault needs for their Pythons.

They take minutes to make, are made once, and kept outside of the repository: below ``PRISM_VAULT_TEST_CACHE``, else
``/var/cache/prism-vault-tests``. ``python -m tests.support.roots`` makes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SUITE = "bookworm"
# A newer one, for what must hold on its systemd too: 257, which boots with cgroup v2 alone.
NEWER = "trixie"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "ca-certificates")
POLKIT = ("libpam-systemd", "polkitd")  # for who tests it; not in every root, since it brings logind
PYTHONS = {SUITE: (3, 11), NEWER: (3, 13)}  # SUITE's runs the packages of our environment
HERE = Path(__file__).parents[2]


def cache() -> Path:
    """Return the directory of what takes long to make, which is there."""
    directory = Path(os.environ.get("PRISM_VAULT_TEST_CACHE", "/var/cache/prism-vault-tests"))
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    return directory


def root(more: tuple[str, ...] = (), suite: str = SUITE) -> Path:
    """Return the root of a Debian with :data:`PACKAGES` and ``more``, built where there is none, in minutes, by the network."""
    packages = (*PACKAGES, *more)
    which = hashlib.sha256("\n".join((suite, *packages)).encode()).hexdigest()[:8]
    finished = cache() / f"{suite}-{which}"
    with _alone(suite):
        if not finished.exists():
            building = finished.with_suffix(".building")
            shutil.rmtree(building, ignore_errors=True)
            included = f"--include={','.join(packages)}"
            command = ["debootstrap", "--variant=minbase", included, suite, str(building), MIRROR]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:]}"
            shutil.rmtree(building / "var/cache/apt")
            building.rename(finished)
    return finished


def packages(suite: str) -> Path:
    """Return a directory of what prism-vault needs, for the Python of a Debian; that of :data:`SUITE` has prism-vault too."""
    if suite == SUITE:
        return Path(sys.prefix) / "lib/python{}.{}/site-packages".format(*PYTHONS[SUITE])
    locked = HERE / "requirements/agent.txt"
    finished = cache() / f"packages-{suite}-{hashlib.sha256(locked.read_bytes()).hexdigest()[:8]}"
    image = root(suite=suite)
    with _alone(suite):
        if not finished.exists():
            building = Path(tempfile.mkdtemp(prefix="packages-", dir=cache()))
            options = ["--quiet", "--require-hashes", "--only-binary=:all:", f"--requirement={locked}", f"--target={building}"]
            version = "--python-version={}.{}".format(*PYTHONS[suite])
            subprocess.run([sys.executable, "-m", "pip", "install", *options, version], check=True, cwd=HERE)
            building.chmod(0o755)
            # Compiled by the Python that runs them, in a container that is thrown away.
            inside = ["systemd-nspawn", "--quiet", f"--machine=pv-{os.getpid()}", "--register=no", "--keep-unit"]
            inside += [f"--directory={image}", "--volatile=overlay", f"--bind={building}:/srv"]
            subprocess.run([*inside, "python3", "-m", "compileall", "-q", "/srv"], check=True, stdout=subprocess.DEVNULL)
            building.rename(finished)
    return finished


@contextlib.contextmanager
def _alone(suite: str) -> Iterator[None]:
    """Have nobody else make what takes long of a Debian meanwhile."""
    with (cache() / f"lock-{suite}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    with ThreadPoolExecutor() as meanwhile:
        newer = meanwhile.submit(packages, NEWER)
        print(root(), root(POLKIT), newer.result())
