"""Files that are rendered anew: each scope by itself, and once more where its secret was rotated while that was under way."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fault_proxy import Fault
from tests.support.files import SYSTEMD, Filed, filed
from tests.support.signalled import order
from tests.support.stack import is_read
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.fault_proxy import Seen


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack whose agent looks for new versions every minute, unless it is told of a rotation."""
    with filed(poll="60s") as running:
        yield running


def rotate(made: Filed, scope: str, number: int) -> None:
    """Write a new value, and have central tell all hosts."""
    made.stack.openbao.kv_put(f"secret/{scope}", {"key": made.value(scope, number)})
    order(made.stack.central, "rotations", reference=f"vault://secret/{scope}#key")


def reads(made: Filed, scope: str) -> Callable[[Seen], bool]:
    """Return what tells a read of a scope's secret."""
    return lambda seen: is_read(seen) and seen.path.startswith(f"/v1/secret/data/{scope}")


def is_look(seen: Seen) -> bool:
    """Tell whether the provider is asked for versions."""
    return "metadata/" in seen.path


@contextlib.contextmanager
def held(made: Filed, scope: str) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Hold back what the provider answers to reads of a scope's secret, at the end no more.

    The first event tells that there is such an answer, the second lets it go.
    """
    there, go = threading.Event(), threading.Event()
    mine = reads(made, scope)

    def late(answer: bytes) -> bytes:
        there.set()
        go.wait()
        return answer

    try:
        with made.stack.to_openbao.failing(lambda seen: Fault("answer", forwarded=True, change=late) if mine(seen) else None):
            yield there, go
    finally:
        go.set()


def test_a_scope_that_takes_long_holds_up_no_other(made):
    """While the provider lets one scope wait for its secret, what is rotated later is rendered all the same."""
    slow, quick = made.scope("slow"), made.scope("quick")
    made.render(slow, quick)
    with held(made, slow) as (there, go):
        rotate(made, slow, 2)
        wait_until(there.is_set)
        for number in (2, 3):
            rotate(made, quick, number)
            wait_until(lambda: made.file(quick) == made.whole(quick, number))  # noqa: B023 - of this turn
        assert made.file(slow) == made.whole(slow, 1)
        go.set()
        wait_until(lambda: made.file(slow) == made.whole(slow, 2))


def test_a_rotation_while_the_one_before_is_under_way_is_not_lost(made):
    """What was read before a newer version is noticed is released, and rendered once more at once, not at the next poll."""
    scope = made.scope("twice")
    made.render(scope)
    number = made.told(scope)["generation"]
    with held(made, scope) as (there, go):
        rotate(made, scope, 2)
        wait_until(there.is_set)
        looks = made.stack.to_openbao.count(is_look)
        rotate(made, scope, 3)
        wait_until(lambda: made.stack.to_openbao.count(is_look) > looks)
        go.set()
        wait_until(lambda: made.file(scope) == made.whole(scope, 3))
    assert made.told(scope)["generation"] == number + 2
    assert made.residue() == []


def test_an_order_while_a_render_is_under_way_is_not_lost(made):
    """What was read before somebody orders a rotation is rendered once more, though no version of it is newer."""
    scope = made.scope("ordered")
    made.render(scope)
    number = made.told(scope)["generation"]
    with held(made, scope) as (there, go):
        rotate(made, scope, 2)
        wait_until(there.is_set)
        assert made.command("rotate", scope).returncode == 0
        go.set()
        wait_until(lambda: made.told(scope)["generation"] == number + 2)
    assert made.file(scope) == made.whole(scope, 2)
    assert made.residue() == []


def redefined(made: Filed, scope: str, go: threading.Event, **more: Any) -> None:
    """Have the agent read another definition of a scope, and only then let the provider answer."""
    applied = made.stack.agent.log.count("config.applied")
    made.stack.agent.scope(scope, **{"files": [SYSTEMD], **more})
    made.reload()
    wait_until(lambda: made.stack.agent.log.count("config.applied") > applied)
    go.set()


def test_files_whose_scope_is_defined_otherwise_meanwhile_are_rendered_once_more(made):
    """A reload while files are rendered anew counts for what comes of that, which is by the older definition."""
    scope = made.scope("otherwise")
    made.render(scope)
    with held(made, scope) as (there, go):
        rotate(made, scope, 2)
        wait_until(there.is_set)
        reference = f"vault://secret/{scope}#key"
        redefined(made, scope, go, env={"KEY": reference, "AGAIN": reference})
        wait_until(lambda: "AGAIN=" in (made.file(scope) or ""))


def test_files_that_a_reload_would_not_give_any_more_are_cleared(made):
    """A scope that is for others by the time its first render is done leaves no file."""
    scope = made.scope("narrowed")
    with held(made, scope) as (there, go), ThreadPoolExecutor() as pool:
        rendering = pool.submit(made.command, "render", scope)
        wait_until(there.is_set)
        others = [{"kind": "service", "user": "nobody"}]
        redefined(made, scope, go, env={"KEY": f"vault://secret/{scope}#key"}, callers=others)
        rendering.result()
        wait_until(lambda: made.told(scope) is None)
    assert (made.file(scope), made.residue()) == (None, [])
