"""What a 403 means. The server says "permission denied" to a dead token and to a living one alike."""

from __future__ import annotations

from prism_vault_agent.errors import Denied, TokenExpired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prism_vault_agent.vault.transport import Transport


def refusal(transport: Transport, token: str, what: str, *, deadline: float, mend: str = "") -> Denied:
    """Return the error for ``what``, which was answered with 403: :class:`TokenExpired`, or ``Denied(provider_policy)``.

    Asks the server about the token, once (one use of it, where uses are counted). A living token whose policies deny even
    that question gets "1 error occurred" for it, where a dead one gets "permission denied" alone. Raises as ``request``.
    """
    answer = transport.request("GET", "auth/token/lookup-self", token=token, deadline=deadline)
    errors = (answer.data or {}).get("errors")
    if answer.ok or any("1 error occurred" in str(each) for each in (errors if isinstance(errors, list) else [])):
        mend = mend or "grant it in a policy of the role that the agent logs in with"
        return Denied(f"{transport.address} denies {what} to our token", mend=mend, reason="provider_policy")
    return TokenExpired(f"our token for {transport.address} is expired, revoked or used up", mend="log in again")
