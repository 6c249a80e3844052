"""Operators whom central knows by a certificate: ``prism-vault central`` and ``audit`` with --cert-file and --key-file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.central.test_mtls import configured
from tests.support.central import CentralProcess
from tests.support.certificates import Tls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Run


class Certified:
    """A central with ``[mtls]``, and the options of whoever has a certificate for a name."""

    def __init__(self, tls: Tls, central: CentralProcess) -> None:
        self.tls = tls
        self.central = central
        self._made = 0

    def options(self, name: str) -> list[str]:
        """Return the options of a certificate for ``name``."""
        self._made += 1
        cert_file, key_file = self.tls.issue(f"client{self._made}", name)
        return [*self.way, "--cert-file", str(cert_file), "--key-file", str(key_file)]

    @property
    def way(self) -> list[str]:
        """The options that say where central is."""
        return ["--url", self.central.url, "--ca-file", str(self.tls.ca_file)]


@pytest.fixture(scope="module")
def certified(tmp_path_factory) -> Iterator[Certified]:
    tls = Tls(tmp_path_factory.mktemp("pki"))
    more = configured(tls, tls.ca_file)
    directory = tmp_path_factory.mktemp("central")
    with CentralProcess(directory, agents={"server1": ["*"]}, operators={"ops": ["prism"]}, more=more) as central:
        yield Certified(tls, central)


COMMANDS = (("audit", "find"), ("audit", "tail"), ("central", "policy", "list"), ("central", "token", "list"))


@pytest.mark.parametrize("words", COMMANDS)
def test_a_certificate_is_enough(run: Run, certified, words):
    """Commands that read and that order do with a certificate alone."""
    done = run(*words, *certified.options("ops.prism.test"))

    assert (done.returncode, done.stderr) == (0, ""), done


def test_what_is_ordered_is_the_certificates(run: Run, certified):
    """A rotation is on the log as the operator of the certificate, whose files the environment names."""
    options = certified.options("ops.prism.test")
    files = {"PRISM_VAULT_CENTRAL_CERT_FILE": options[5], "PRISM_VAULT_CENTRAL_KEY_FILE": options[7]}
    done = run("central", "rotate", "web", *certified.way, **files)
    assert done.returncode == 0, done
    found = run("audit", "find", "--json", *options)

    assert json.loads(found.stdout)["event"]["order"]["by"] == "ops"


def test_a_token_beside_it_must_be_the_same_operators(run: Run, certified):
    """With a token too, both must be of one operator: 64 where they are not."""
    tokens = {"ops": certified.central.operator_tokens["ops"], "other": certified.central.operator_token}
    ends = {
        name: run("audit", "find", *certified.options("ops.prism.test"), PRISM_VAULT_OPERATOR_TOKEN=token)
        for name, token in tokens.items()
    }

    assert {name: done.returncode for name, done in ends.items()} == {"ops": 0, "other": 64}
    assert "different callers" in ends["other"].stderr


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [("server1.prism.test", 77, "only an operator"), ("nobody.prism.test", 77, "unknown_certificate")],
)
def test_another_certificate_is_refused(run: Run, certified, name, status, told):
    """A host's certificate, and one of nobody, end with 77 and one line that says why."""
    done = run("central", "policy", "list", *certified.options(name))

    assert (done.returncode, done.stdout) == (status, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_wrong_with_the_files_is_told(run: Run, certified, tmp_path):
    """A missing key, a key that others may read, files that are none, and plain http: one line each, and nothing is sent."""
    cert_file, key_file = certified.options("ops.prism.test")[5::2]
    loose, garbage = tmp_path / "loose.key", tmp_path / "garbage.pem"
    loose.write_bytes((certified.tls.directory / key_file).read_bytes())
    loose.chmod(0o644)
    garbage.write_text("no certificate")
    garbage.chmod(0o600)
    both = ["--cert-file", cert_file, "--key-file", key_file]
    cases = [
        ([*certified.way, "--cert-file", cert_file], 64, "a certificate needs its key"),
        ([*certified.way, "--cert-file", cert_file, "--key-file", str(loose)], 78, "can be read by everybody"),
        ([*certified.way, "--cert-file", str(garbage), "--key-file", key_file], 78, "cannot use"),
        ([*certified.way, "--cert-file", cert_file, "--key-file", "/nonexistent"], 78, "No such file"),
        (["--url", certified.central.url, "--ca-file", "/nonexistent", *both], 78, "No such file"),
        (["--url", "http://127.0.0.1:9", *both], 64, "over TLS only"),
    ]
    for options, status, told in cases:
        done = run("audit", "find", *options)
        assert (done.returncode, done.stdout) == (status, ""), done
        assert told in done.stderr, done
        assert done.stderr.count("\n") == 1
