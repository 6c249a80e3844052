"""A real OpenSSH server of the test's own on a free port of loopback: whom it lets in is an engine's authority's word alone."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

from tests.support.processes import free_port, start_tied
from tests.support.waiting import wait_until

PRIVILEGE_SEPARATION = Path("/run/sshd")  # a server of root's wants it there; its unit makes it
CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {host_key}
{host_certificate}
TrustedUserCAKeys {directory}/authority
AuthorizedPrincipalsFile {directory}/principals
AuthorizedKeysFile none
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
LogLevel VERBOSE
PidFile none
UsePAM no
"""


class SshServer:
    """A server that lets whoever bears a certificate of ``authority`` for ``principal`` log in as the user who runs the tests.

    It shows a key of its own, or a directory with a ``PRIVATE_KEY`` and its certificate ``SIGNED_KEY``.
    """

    def __init__(self, directory: Path, authority: str, principal: str = "deploy", *, host: Path | None = None) -> None:
        directory.mkdir()
        self._log, self._known = directory / "log", directory / "known"
        self._port = free_port()
        key = host / "PRIVATE_KEY" if host else directory / "host_key"
        certificate = f"HostCertificate {host / 'SIGNED_KEY'}" if host else ""
        if host is None:
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
            self._known.write_text(f"host {key.with_suffix('.pub').read_text()}")
        else:
            self._known.write_text(f"@cert-authority * {authority}\n")
        (directory / "authority").write_text(f"{authority}\n")
        (directory / "principals").write_text(f"{principal}\n")
        (directory / "config").write_text(
            CONFIG.format(port=self._port, host_key=key, host_certificate=certificate, directory=directory)
        )
        self._directory = directory

    def __enter__(self) -> Self:
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        binary = shutil.which("sshd")
        assert binary, "OpenSSH's server is needed: apt-get install openssh-server"
        words = [binary, "-D", "-e", "-f", str(self._directory / "config")]
        self._process = start_tied(words, directory=self._directory, log=self._log)
        wait_until(lambda: "listening on" in self.log or self._process.poll() is not None)
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def log(self) -> str:
        """What the server has logged."""
        return self._log.read_text()

    def lets_in(self, key: Path, certificate: Path, *, host: str = "host") -> bool:
        """Tell whether somebody with these two files gets a command run there, by a server that proves to be ``host``."""
        options = {
            "CertificateFile": certificate,
            "HostKeyAlias": host,
            "UserKnownHostsFile": self._known,
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "BatchMode": "yes",
        }
        words = ["ssh", "-F", "none", "-p", f"{self._port}", "-i", f"{key}"]
        words += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        to = f"{getpass.getuser()}@127.0.0.1"
        done = subprocess.run([*words, to, "echo in"], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode in (0, 255), (done, self.log)
        return done.stdout == "in\n"
