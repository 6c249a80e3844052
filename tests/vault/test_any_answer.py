"""Whatever JSON the provider answers, to whatever we ask."""

from __future__ import annotations

import json
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from prism_vault_agent.config.settings import AuthSettings
from prism_vault_agent.errors import PrismVaultError
from prism_vault_agent.vault import login, reading, session
from tests.support.fake_server import FakeServer, always, answer
from tests.support.vault import bind, soon, transport


def status_of(ask: Callable[[], object]) -> int:
    """Return 0, or the exit status of the typed error."""
    try:
        ask()
    except PrismVaultError as error:
        return error.exit_status
    return 0


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["data", "metadata", "auth", "version", "errors", "path", "type", "options", "k"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=10,
    ),
    st.sampled_from([200, 204, 400, 403, 404]),
)
def test_any_json_answer_is_read_or_refused_with_a_typed_error(tree: object, status: int) -> None:
    """No JSON answer to any of our questions ends in anything but a result or a typed error."""
    with FakeServer(always(answer(json.dumps(tree).encode() if status != 204 else b"", f"{status} Whatever"))) as server:
        client = transport(server.address)
        for ask in (
            lambda: reading.read(client, "t", bind(A="secret/a#k"), deadline=soon(), mounts={"secret/": 2}),
            lambda: reading.read(client, "t", bind(A="secret/a#k"), deadline=soon(), mounts={"secret/": 1}),
            lambda: reading.read(client, "t", bind(A="secret/a#k"), deadline=soon()),
            lambda: login.log_in(client, AuthSettings("cert", "cert"), soon()),
            lambda: login.identity_token(client, "t", "role", soon()),
            lambda: session.renew(client, "t", soon()),
            lambda: session.lookup(client, "t", soon()),
        ):
            assert status_of(ask) != 70
        client.close()
