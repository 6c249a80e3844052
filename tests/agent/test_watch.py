"""How often what was given out is looked after: as each scope wants it, within one budget of requests, a folder at a time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.files import Filed, filed
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fault_proxy import Seen

MANY = 30


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack whose agent asks the provider two times a second at most, once a minute unless a scope says otherwise."""
    with filed(poll="60s", vault="poll_requests = 2") as running:
        yield running


def asked(made: Filed, name: str) -> list[Seen]:
    """Return the questions about the metadata of one scope's secret."""
    return [seen for seen in made.stack.to_openbao.seen if seen.path.endswith(f"/metadata/{name}")]


def test_each_scope_has_its_interval(made):
    """A scope with an interval of its own has its changes within that; one without is not asked for meanwhile."""
    quick, slow = made.scope("quick", poll="1s"), made.scope("slow")
    for name in (quick, slow):
        made.render(name)
        made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 2)})
    wait_until(lambda: made.file(quick) == made.whole(quick, 2))
    wait_until(lambda: len(asked(made, quick)) >= 4)
    assert asked(made, slow) == []
    assert made.file(slow) == made.whole(slow, 1)
    told = {each["scope"]: each["next_check"] for each in made.stack.agent.status()["files"]}
    assert told[quick] <= 1
    assert 1 < told[slow] <= 60


def test_status_shows_each_file_as_it_is(made):
    """A scope's line has its files, their generation and age, when they are looked at next, and what somebody did to them."""

    def shown() -> dict[str, str]:
        lines = [re.split("  +", line.strip()) for line in made.command("status").stdout.splitlines()]
        (head,) = [line for line in lines if "NEXT CHECK" in line]
        (cells,) = [line for line in lines if line[:2] == [name, "web.env"]]
        return dict(zip(head, cells, strict=True))

    name = made.scope("shown")
    made.render(name)
    first = shown()
    assert (first["GENERATION"], first["VERSIONS"], first["STATE"]) == ("1", f"secret/{name} 1", "newest")
    assert re.fullmatch(r"\d+ s", first["AGE"]) and re.fullmatch(r"within (\d+ s|1 min)", first["NEXT CHECK"])
    made.stack.openbao.kv_put(f"secret/{name}", {"key": made.value(name, 2)})
    assert made.command("rotate", name).returncode == 0
    wait_until(lambda: made.file(name) == made.whole(name, 2))
    (made.top / name / "web.env").unlink()
    second = shown()
    assert (second["GENERATION"], second["VERSIONS"], second["STATE"]) == ("2", f"secret/{name} 2", "web.env is gone")


def test_looking_has_one_budget(made):
    """All scopes together take no more requests a second than are allowed, and none is left out for it."""
    names = made.scopes(*(f"budget-{number}" for number in range(4)), poll="1s")
    for name in names:
        made.render(name)
    wait_until(lambda: all(len(asked(made, name)) >= 2 for name in names), 60)
    times = sorted(seen.at for name in names for seen in asked(made, name))
    # Two a second: five of them span two seconds at least, less what a busy machine lets stand between question and note.
    assert all(later - first > 1.0 for first, later in zip(times, times[4:], strict=False))
