"""A Debian with systemd as its first process, in a container of systemd-nspawn(1) that is thrown away with its writes.

Its root is one of ``roots.py``, which a container sees below an overlay in memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from tests.support.processes import start_tied
from tests.support.roots import HERE, NEWER, PYTHONS, SUITE, packages, root
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

CLONE_NEWNET = 0x4000_0000
CGROUPS = Path("/sys/fs/cgroup")
INSTALLED = "/opt/prism-vault"


class Booted:
    """Boots, runs commands inside, and is gone without a trace at the end.

    ``binds`` are directories of ours that it sees, read-only, by the paths at which it does. prism-vault is in
    :data:`INSTALLED`, from the environment that runs the tests. Of the network it has a loopback of its own, or
    with ``our_network`` what we have, servers of the tests among it. ``more`` are packages beside :data:`PACKAGES`.

    ``suite`` is which Debian. :data:`NEWER` has a cgroup v2 hierarchy of its own, whatever the host has, and the packages of
    ``requirements/agent.txt`` for its own Python.
    """

    def __init__(
        self,
        directory: Path,
        binds: Mapping[str, Path] | None = None,
        *,
        our_network: bool = False,
        more: tuple[str, ...] = (),
        suite: str = SUITE,
    ) -> None:
        assert sys.version_info[:2] == PYTHONS[SUITE], f"the tests of units run on the Python of {SUITE}"
        self.log = directory / "boot.log"
        self._directory = directory
        self._binds = {**(binds or {})}
        self._network = [] if our_network else ["--private-network"]
        self._more = more
        self._suite = suite
        self._python = ".".join(map(str, PYTHONS[suite]))
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._name = f"pv-{os.getpid()}-{id(self):x}"
        # A container that is started in the host's own groups has them in common with every other one.
        hierarchies = [each for each in (CGROUPS / "systemd", CGROUPS / "unified") if each.is_dir()] or [CGROUPS]
        self._groups = [each / self._name for each in hierarchies]

    def __enter__(self) -> Self:
        binds = {f"{INSTALLED}-packages": packages(self._suite), f"{INSTALLED}-ours": packages(SUITE), **self._binds}
        nspawn = shutil.which("systemd-nspawn")
        assert nspawn is not None, "systemd-nspawn is needed: apt-get install systemd-container"
        command = [nspawn, f"--directory={root(self._more, self._suite)}", "--volatile=overlay", "--boot", *self._network]
        command += ["--register=no", "--keep-unit", "--link-journal=no", "--console=read-only", "--resolv-conf=off"]
        command += [f"--machine={self._name}", *(f"--bind-ro={ours}:{there}" for there, ours in binds.items())]
        # Without that capability its systemd goes on without what PrivateNetwork= says.
        command += ["--capability=CAP_NET_ADMIN"] if self._suite == NEWER else []
        for group in self._groups:
            group.mkdir()
        joined = " && ".join(f"echo $$ > {group}/cgroup.procs" for group in self._groups)
        command = ["/bin/sh", "-c", f'{joined} && exec "$@"', "sh", *command]
        unified = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"} if self._suite == NEWER else {}
        self._process = start_tied(command, directory=self._directory, log=self.log, more=unified)
        try:
            wait_until(self._boots, 60)
            self._install()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()

    def path(self, path: str) -> Path:
        """Return where a file of the container is for us; links in it that are absolute lead elsewhere."""
        return Path(f"/proc/{self._leader}/root{path}")

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command as root in the container; with ``check``, fail the test where its exit status is not 0."""
        done = subprocess.run(
            ["nsenter", "--target", str(self._leader), "--all", "--wd=/", "--", *command],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "cat"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert not check or done.returncode == 0, (command, done, self.run("journalctl", "-n", "50", check=False).stdout)
        return done

    def connection(self, port: int) -> socket.socket:
        """Return a connection to a port of the container's loopback: a socket stays in the network that it was made in."""
        with open(f"/proc/{self._leader}/ns/net", "rb") as theirs, open("/proc/thread-self/ns/net", "rb") as ours:
            _enter(theirs.fileno())
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=30)
            finally:
                _enter(ours.fileno())

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def journal(self, unit: str) -> str:
        """Return what a unit has printed, all of it: the journal may not have taken the last lines yet."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--unit", unit, "--output=cat", "--no-pager").stdout

    def _boots(self) -> bool:
        """Tell whether it is up."""
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        if not self._leader:
            with contextlib.suppress(psutil.NoSuchProcess):  # what prepares the container is a child too, and ends
                inside = [each.pid for each in psutil.Process(self._process.pid).children() if each.name() == "systemd"]
                self._leader = inside[0] if inside else 0
            return False
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")

    def _install(self) -> None:
        """Put prism-vault where the units look for it."""
        self.run("python3", "-m", "venv", "--without-pip", INSTALLED)
        packages = f"{INSTALLED}/lib/python{self._python}/site-packages"
        self.run("rmdir", packages)
        self.run("ln", "-s", f"{INSTALLED}-packages", packages)
        if self._suite != SUITE:  # ours, compiled by its own Python
            self.run("rm", packages)
            self.run("cp", "-rs", f"{INSTALLED}-packages", packages)
            self.run("cp", "-r", f"{INSTALLED}-ours/prism_vault_agent", packages)
            self.run("python3", "-m", "compileall", "-q", f"{packages}/prism_vault_agent")
        launcher = self.path(f"{INSTALLED}/bin/prism-vault")
        first, _, rest = (HERE / "launcher/prism-vault").read_text().partition("\n")
        assert first == "#!python"
        launcher.write_text(f"#!{INSTALLED}/bin/python -ISE\n{rest}")
        launcher.chmod(0o755)

    def _end(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        wait_until(lambda: all(_without(group) for group in self._groups), 30)


def _without(group: Path) -> bool:
    """Remove a group of processes with all below it; tell whether it is gone, which it is not while any of them lives."""
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
    return not group.exists()


def _enter(network: int) -> None:
    """Make this thread's network the one of a descriptor (setns(2))."""
    if ctypes.CDLL(None, use_errno=True).setns(network, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
