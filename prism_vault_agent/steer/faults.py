"""What to tell where no agent answers. Loaded only when that happens."""

from prism_vault_agent.errors import AgentUnavailable, Denied, PrismVaultError, ProtocolError, Unavailable
from prism_vault_agent.exec.connection import NotConnected
from prism_vault_agent.exec.faults import LONGEST_PATH


def nobody(path: str) -> AgentUnavailable:
    """Return the error for a place where no agent listens."""
    return AgentUnavailable(
        f"no agent answers on {path}",
        mend="start it with 'prism-vault agent' (or systemctl start prism-vault-agent)",
    )


def unanswered(path: str, error: Exception) -> PrismVaultError:
    """Return the error for a request to the socket ``path`` that had no answer, or one that cannot be understood."""
    cause = error.error if isinstance(error, NotConnected) else error
    if isinstance(cause, PermissionError):
        return Denied(f"you may not use the agent's socket {path}", mend="ask to be made a member of its group")
    if isinstance(cause, BlockingIOError):
        return Unavailable("the agent does not answer", mend="see its log, or restart it")
    absent = isinstance(cause, FileNotFoundError | ConnectionRefusedError)
    if absent or len(path.encode("utf-8", "surrogateescape")) > LONGEST_PATH:
        return nobody(path)
    return ProtocolError(f"what listens on {path} is not an agent of this version", mend="restart the agent")
