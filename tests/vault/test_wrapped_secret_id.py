"""A secret-id that is delivered wrapped: whose it is, and that nobody else has read it (F17)."""

from __future__ import annotations

from pathlib import Path

from prism_vault_agent.config.settings import AuthSettings
from tests.support.logins import approle, log_in, refusal
from tests.support.openbao import OpenBao


def wrapped_secret_id(bao: OpenBao, role: str, *, wrapped_by: str = "") -> AuthSettings:
    """Return an approle whose secret-id file holds a wrapping token."""
    role_id, _ = bao.approle(role, [])
    path = f"auth/approle/role/{role}/secret-id"
    wrapped = bao.must("POST", path, {}, headers={"X-Vault-Wrap-TTL": "60s"})["wrap_info"]["token"]
    return approle(role_id, bao.credential(f"{role}.wrapped", wrapped), secret_id_wrapped_by=wrapped_by or path)


def test_a_wrapped_secret_id_is_checked_unwrapped_and_used(bao: OpenBao) -> None:
    """A wrapping token made at the expected path gives the secret-id for the login."""
    assert log_in(bao, wrapped_secret_id(bao, "wrapped")).accessor


def test_a_secret_id_wrapped_elsewhere_is_refused_and_stays_wrapped(bao: OpenBao) -> None:
    """A wrapping token made at another path may have been swapped: it is not unwrapped, and the error says so."""
    auth = wrapped_secret_id(bao, "swapped", wrapped_by="auth/approle/role/other/secret-id")
    error = refusal(bao, auth)
    assert error.reason == "wrong_wrapping"
    assert "auth/approle/role/other/secret-id" in error.line()
    token = Path(auth.secret_id_file).read_text()
    assert bao.must("POST", "sys/wrapping/unwrap", token=token)["data"]["secret_id"]


def test_a_secret_id_that_was_unwrapped_before_is_an_interception(bao: OpenBao) -> None:
    """Where somebody else has unwrapped it, the error says that it was read and what to do (F17)."""
    auth = wrapped_secret_id(bao, "stolen")
    bao.must("POST", "sys/wrapping/unwrap", token=Path(auth.secret_id_file).read_text())
    error = refusal(bao, auth)
    assert error.reason == "interception"
    assert "someone else has read it" in error.line()


def test_a_second_unwrap_of_the_same_secret_id_is_an_interception(bao: OpenBao) -> None:
    """The same wrapped secret-id logs in once."""
    auth = wrapped_secret_id(bao, "twice")
    log_in(bao, auth)
    assert refusal(bao, auth).reason == "interception"
