"""Certificates for tests: an authority of our own, and what it issues, in files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trustme

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Tls:
    """A certificate authority with the server's and a client's certificate in files below ``directory``."""

    directory: Path
    ca: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.ca_file = self.directory / "ca.pem"
        self.ca.cert_pem.write_to_path(self.ca_file)
        self.cert_file, self.key_file = self.issue("server", "localhost", "127.0.0.1")
        self.client_cert_file, self.client_key_file = self.issue("client", "client.prism.test")

    def issue(self, file_stem: str, *identities: str, **options: Any) -> tuple[Path, Path]:
        """Return the certificate file and the key file (0600) of a new certificate for ``identities``."""
        issued = self.ca.issue_cert(*identities, common_name=identities[0], **options)
        cert_file, key_file = self.directory / f"{file_stem}.pem", self.directory / f"{file_stem}.key"
        cert_file.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key_file.touch(mode=0o600)
        key_file.write_bytes(issued.private_key_pem.bytes())
        return cert_file, key_file
