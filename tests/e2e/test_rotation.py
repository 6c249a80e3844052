"""compose/rotation on a real engine: a program's user and password of PostgreSQL are replaced under it, and no query fails."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.composed import Example
from tests.support.images import OPENBAO, POSTGRES
from tests.support.soak import count
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.engine import Engine

# How long a user of the database lives, in seconds: another takes its place before.
LIFE = 20
ROUNDS = count(2, 20)
TOLD = re.compile(r"queries (\d+) failed (\d+) users (\d+)")


class Rotation(Example):
    """The example as it ships, beside the stack."""

    def __init__(self, engine: Engine, sources: Path) -> None:
        super().__init__(engine, sources, "stack")
        self.environment = {"OPENBAO": OPENBAO, "POSTGRES": POSTGRES, "LIFE": f"{LIFE}s"}
        self.beside = ("rotation",)

    def told(self) -> tuple[int, int, int]:
        """Return how many queries the program says that it made, how many failed, and by how many users they were."""
        found = TOLD.findall(self.logs("shop"))
        queries, failed, users = map(int, found[-1] if found else (0, 0, 0))
        return queries, failed, users

    def has_used(self, users: int) -> None:
        """Wait until the program has been so many users."""
        wait_until(lambda: self.told()[2] >= users, 4 * LIFE)

    def database(self, statement: str) -> list[int]:
        """Return the numbers of a row that its administrator reads in the database."""
        words = ("psql", "--username=postgres", "--dbname=shop", "--tuples-only", "--no-align", "--field-separator= ")
        return [int(each) for each in self.compose("exec", "-T", "database", *words, "--command", statement).stdout.split()]


@pytest.fixture(scope="module")
def up(servers) -> Iterator[Rotation]:
    """Return the example up, with a program that queries."""
    example = Rotation(*servers)
    example.up()
    yield example
    example.down()


def test_a_password_rotates_under_a_program_without_a_failed_query(up):
    """By five users of the database, one after the other, the program queries all the time, and each query is answered.

    A user is replaced because its life ends, and because the other secret of its file, in KV, has a new version.
    """
    wait_until(lambda: up.told()[0] > 0, 60)
    for done in range(ROUNDS):
        up.compose("run", "--rm", "-T", "--no-deps", "setup-vault", "rotate")
        up.has_used(2 * done + 3)
    queries, failed, users = up.told()
    written, by = up.database("SELECT count(*), count(DISTINCT by_user) FROM orders")
    (left,) = up.database("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'")

    assert (failed, users > 2 * ROUNDS, queries > 500) == (0, True, True), up.logs("shop")[-2000:]
    assert (written >= queries, by >= users) == (True, True)
    assert left <= 3, "who is replaced is no user any more"
    assert not [line for line in up.logs("database").splitlines() if "authentication failed" in line or "ERROR" in line]
