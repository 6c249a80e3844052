"""Queries a database all the time as the user that its file has; with another file, by another connection, and none fails.

The file is looked at before each query. The new connection is there before the old one is closed: the old user lives on for the
scope's ``grace``. Once a second it prints how many queries there were, how many failed, and by how many users.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any, Final

import psycopg

FILE: Final = Path("/run/prism-vault/files/shop/shop.json")
CA: Final = Path("/tmp/ca.crt")  # noqa: S108 - a tmpfs of this container's own
INTERVAL: Final = 0.01


def identity(found: os.stat_result) -> tuple[int, int]:
    """Return what is another for another file."""
    return found.st_dev, found.st_ino


def read() -> tuple[tuple[int, int], dict[str, str]]:
    """Return the file's identity, and what is in it; one that is emptied under our hands has a successor already."""
    while True:
        with FILE.open(encoding="utf-8") as opened:
            text = opened.read()
            if text:
                return identity(os.fstat(opened.fileno())), dict(json.loads(text))


def connect(user: str, password: str) -> psycopg.Connection[Any]:
    """Return a new connection, each query of which is a transaction."""
    where = f"host=database dbname=shop sslmode=verify-full sslrootcert={CA} connect_timeout=5"
    return psycopg.connect(where, user=user, password=password, autocommit=True)


class Shop:
    """A connection, and which file it is of."""

    def __init__(self) -> None:
        self.file: tuple[int, int] | None = None
        self.key = b""
        self.connection: psycopg.Connection[Any] | None = None
        self.users: set[str] = set()

    def follow(self) -> psycopg.Connection[Any]:
        """Return a connection of the user that the file has now. Raises ``OSError`` where there is none."""
        if self.connection is None or identity(FILE.stat()) != self.file:
            file, given = read()
            CA.write_text(given["DB_CA"])
            old, self.connection = self.connection, connect(given["DB_USER"], given["DB_PASSWORD"])
            self.file, self.key = file, given["SEAL_KEY"].encode()
            self.users.add(given["DB_USER"])
            if old is not None:
                old.close()
        return self.connection

    def query(self) -> None:
        """Write an order and read it again, by whoever we are now; it is sealed with the key of the other backend."""
        connection = self.follow()
        seal = hmac.digest(self.key, os.urandom(16), hashlib.sha256)
        row = connection.execute("INSERT INTO orders (seal) VALUES (%s) RETURNING id", [seal]).fetchone()
        assert row is not None
        assert connection.execute("SELECT seal FROM orders WHERE id = %s", row).fetchone() == (seal,)


def main() -> None:
    """Query until SIGTERM."""
    stop, shop = threading.Event(), Shop()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    done, failed, second = 0, 0, 0
    while not stop.wait(INTERVAL):
        try:
            shop.query()
            done += 1
        except (psycopg.Error, OSError) as error:
            failed += 1
            print(f"failed: {type(error).__name__}", flush=True)
        if (now := int(os.times().elapsed)) != second:
            second = now
            print(f"queries {done} failed {failed} users {len(shop.users)}", flush=True)


if __name__ == "__main__":
    main()
