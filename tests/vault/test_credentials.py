"""Credential files."""

from __future__ import annotations

import os

import pytest

from prism_vault_agent.errors import ConfigError
from prism_vault_agent.vault import credentials


def write(path, content: bytes = b" hvs.CANARY \n", mode: int = 0o600):
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_credential_of_ours_is_read_without_its_white_space(mode: int, tmp_path) -> None:
    """A file that only its owner may write and others may not read is used."""
    assert credentials.read(write(tmp_path / "id", mode=mode)) == "hvs.CANARY"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602, 0o660, 0o666])
def test_a_credential_that_others_may_read_or_write_is_refused(mode: int, tmp_path) -> None:
    """The error names the file and its mode, says how to mend it, and shows nothing of the credential."""
    path = write(tmp_path / "id", mode=mode)
    with pytest.raises(ConfigError) as refused:
        credentials.read(path)
    assert f"chmod 0600 {path}" in refused.value.line()
    assert f"{mode:04o}" in refused.value.line()
    assert "CANARY" not in refused.value.line()


def test_a_projected_service_account_token_may_be_readable_but_not_writable(tmp_path) -> None:
    """What the kubelet writes with mode 0644 is used; what others may write never is."""
    path = write(tmp_path / "token", mode=0o644)
    assert credentials.read(path, others_may_read=True) == "hvs.CANARY"
    (tmp_path / "token").chmod(0o646)
    with pytest.raises(ConfigError):
        credentials.read(path, others_may_read=True)


def test_a_link_is_followed_and_its_target_checked(tmp_path) -> None:
    """Kubernetes and systemd hand credentials out by links, so the file behind counts."""
    target = write(tmp_path / "target")
    (tmp_path / "link").symlink_to(target)
    assert credentials.read(str(tmp_path / "link")) == "hvs.CANARY"
    os.chmod(target, 0o644)
    with pytest.raises(ConfigError):
        credentials.read(str(tmp_path / "link"))


@pytest.mark.root
def test_a_credential_of_another_user_is_refused(tmp_path) -> None:
    """Whoever owns the file could change it, so it is ours or root's."""
    path = write(tmp_path / "id")
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError) as refused:
        credentials.read(path)
    assert "another user" in refused.value.line()


@pytest.mark.parametrize(
    "content", [b"", b"  \n", b"hvs.CAN\nARY", b"hvs.CAN\0ARY", b"CANARY\xff", b"CANARY" * 20_000], ids=range(6)
)
def test_what_no_credential_looks_like_is_refused(content: bytes, tmp_path) -> None:
    """Empty, several lines, binary and huge files are configuration errors that show nothing."""
    with pytest.raises(ConfigError) as refused:
        credentials.read(write(tmp_path / "id", content))
    assert "CAN" not in refused.value.line()


def test_missing_files_directories_and_pipes_are_refused_without_waiting(tmp_path) -> None:
    """Nothing but a regular file is opened for its content, and a pipe does not block."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "none", tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError) as refused:
            credentials.read(str(path))
        assert str(path) in refused.value.line()
