"""T11: owner and mode are right at every moment at which a rendered file has a name."""

from __future__ import annotations

import stat

import pytest

from tests.support.as_user import prefix
from tests.support.attackers import STRANGER, STRANGERS_UID, WATCHER, beside
from tests.support.soak import count


@pytest.mark.root
@pytest.mark.soak
def test_t11_a_stranger_opens_nothing_of_a_real_agents_renders(made):
    """While rotations are rendered under umask 000, another user who polls, or is told by inotify, opens 0 files."""
    name = made.scope("web")
    stranger = prefix(STRANGERS_UID, STRANGERS_UID)
    with (
        beside(made.top.parent, STRANGER, str(made.top), "web.env", before=stranger) as polled,
        beside(made.top.parent, WATCHER, str(made.top), "web.env", before=stranger) as watched,
    ):
        for number in range(1, count(4, 200) + 1):
            made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, number)})
            made.render(name)
            assert made.file(name) == made.whole(name, number)
    (tried, opened), (events, tried_when_told, opened_when_told) = polled, watched
    assert min(tried, tried_when_told) > 100 and events > 4 and (opened, opened_when_told) == (0, 0)


def test_t11_owner_and_mode_are_as_the_scope_says(made):
    """Under umask 000 a file has the agent's owner and exactly the mode of its scope; nobody else may write a directory."""
    name = made.scope("modes", files=[{"path": "a.env", "format": "systemd"}, {"path": "b", "format": "dir", "mode": "0440"}])
    made.render(name)
    mine = [made.top, made.top / ".lock", made.top / ".staged", made.top / name, *(made.top / name).rglob("*")]
    found = {str(path.relative_to(made.top)): path.lstat() for path in mine}
    assert {each.st_uid for each in found.values()} == {made.stack.agent.user}
    assert {path: oct(stat.S_IMODE(each.st_mode)) for path, each in found.items()} == {
        ".": "0o711", ".lock": "0o600", ".staged": "0o700", name: "0o755", f"{name}/a.env": "0o400", f"{name}/b": "0o755",
        f"{name}/b/KEY": "0o440", f"{name}/.generation": "0o600",
    }  # fmt: skip
