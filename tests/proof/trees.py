"""A second implementation of the tree, recursive and straight from the definitions of RFC 9162, section 2.1; and a store."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256

from prism_vault_agent.proof.tiles import Range

# The leaves that the tests of Certificate Transparency's reference implementation have used since 2013, and their roots.
CT_LEAVES = [bytes.fromhex(each) for each in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
CT_LEAVES.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


class Defined:
    """A tree of leaves' hashes, computed as RFC 9162 defines it. Slow, and so short that it can be read beside the text."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = leaves
        self.root = cache(self._root)

    def _root(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]), section 2.1.1."""
        if end == start:
            return sha256().digest()
        if end - start == 1:
            return self.leaves[start]
        k = _split(end - start)
        return sha256(b"\x01" + self.root(start, start + k) + self.root(start + k, end)).digest()

    def path(self, m: int, start: int, end: int) -> list[bytes]:
        """PATH(m, D[start:end]), section 2.1.3.1."""
        n = end - start
        if n == 1:
            return []
        k = _split(n)
        if m < k:
            return [*self.path(m, start, start + k), self.root(start + k, end)]
        return [*self.path(m - k, start + k, end), self.root(start, start + k)]

    def subproof(self, m: int, start: int, end: int, *, known: bool) -> list[bytes]:
        """SUBPROOF(m, D[start:end], known), section 2.1.4.1."""
        n = end - start
        if m == n:
            return [] if known else [self.root(start, end)]
        k = _split(n)
        if m <= k:
            return [*self.subproof(m, start, start + k, known=known), self.root(start + k, end)]
        return [*self.subproof(m - k, start + k, end, known=False), self.root(start, start + k)]


def _split(n: int) -> int:
    """Return the largest power of two smaller than ``n``."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


class Stored:
    """What a database keeps of a tree: the hashes of its leaves and of its complete tiles; it counts what is asked for."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.levels = {0: list(leaves)}
        self.asked: list[list[Range]] = []
        for level in (8, 16, 24):
            row = self.levels[level - 8]
            whole = (row[i : i + 256] for i in range(0, len(row) - 255, 256))
            self.levels[level] = [Defined(tile).root(0, 256) for tile in whole]

    def fetch(self, ranges: list[Range]) -> list[list[bytes]]:
        """Answer one request for ranges."""
        self.asked.append(ranges)
        return [self.levels[level][start : start + length] for level, start, length in ranges]


class Uniform:
    """The store and the definition of a tree whose leaves are all the same, which can be of any size without its leaves."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked: list[list[Range]] = []
        self.root = cache(self._root)
        self.levels = [sha256(b"\x00").digest()]
        for level in range(24):
            self.levels.append(sha256(b"\x01" + self.levels[level] * 2).digest())

    def _root(self, leaves: int) -> bytes:
        """MTH of so many leaves."""
        if leaves == 1:
            return self.levels[0]
        k = _split(leaves)
        return sha256(b"\x01" + self.root(k) + self.root(leaves - k)).digest()

    def fetch(self, ranges: list[Range]) -> list[list[bytes]]:
        """Answer one request for ranges, as far as they exist."""
        self.asked.append(ranges)
        return [[self.levels[level]] * max(0, min(length, (self.size >> level) - start)) for level, start, length in ranges]


def numbered(size: int) -> list[bytes]:
    """Return the hashes of ``size`` different leaves."""
    return [sha256(b"\x00%d" % i).digest() for i in range(size)]
