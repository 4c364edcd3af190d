"""Writes an index as blocks by docs/index-format.md: the same content gives the same content key, whoever writes it."""

from __future__ import annotations

import hashlib
from typing import Any

import cbor2

from index_format import FILES, FRAGMENTS, LEVEL_LIMIT

Blocks = dict[bytes, bytes]


def write_index(index: dict[str, Any], page_bytes: int) -> tuple[bytes, Blocks]:
    """Takes an index as the test vectors have it; gives the content key and all blocks."""
    fragments = Tree(FRAGMENTS, [[bytes.fromhex(id_), length] for id_, length in index["fragments"]], page_bytes)
    files = Tree(FILES, index["files"], page_bytes)
    for fragment_level, file_level in candidates(fragments, files):
        root = encode_root(index, fragments.listing(fragment_level), files.listing(file_level))
        if len(root) <= page_bytes:
            key = hashlib.sha256(root).digest()
            return key, {key: root} | fragments.pages_below(fragment_level) | files.pages_below(file_level)
    raise ValueError("fits in no tree")


def candidates(fragments: Tree, files: Tree) -> list[tuple[int, int]]:
    """Pairs of levels in the order in which a writer tries them."""
    fragment_levels = range(1, LEVEL_LIMIT + 1) if fragments.rows[0] else [0]
    file_levels = range(LEVEL_LIMIT + 1) if files.rows[0] else [0]
    return [(0, 0), *((fragment, file) for fragment in fragment_levels for file in file_levels)]


def encode_root(index: dict[str, Any], fragments: list[Any], files: list[Any]) -> bytes:
    renditions = [{int(key): value for key, value in rendition.items()} for rendition in index["renditions"]]
    start = ["imira-index", 1, 0, bytes.fromhex(index["source_sha256"]), index["duration_ms"], renditions]
    return encode_map([*start, fragments, files])


class Tree:
    """The entries of each level, from 0 up, and the pages that hold them."""

    def __init__(self, which: int, leaves: list[Any], page_bytes: int) -> None:
        self.which = which
        self.page_bytes = page_bytes
        self.rows: list[list[Any]] = [leaves]
        self.pages: list[Blocks] = []

    def listing(self, level: int) -> list[Any]:
        self._grow(level)
        return [level, *self._sums(level, self.rows[level]), self.rows[level]]

    def pages_below(self, level: int) -> Blocks:
        return {id_: page for pages in self.pages[:level] for id_, page in pages.items()}

    def _grow(self, level: int) -> None:
        while len(self.rows) <= level:
            self._add_row(len(self.rows) - 1)

    def _add_row(self, level: int) -> None:
        row, pages, rest = [], {}, self.rows[level]
        while rest:
            fitting = self._fitting(level, rest)
            page = self._page(level, rest[:fitting])
            page_id = hashlib.sha256(page).digest()
            pages[page_id] = page
            row.append([page_id, len(page), *self._named(level, rest[:fitting])])
            rest = rest[fitting:]
        self.rows.append(row)
        self.pages.append(pages)

    def _fitting(self, level: int, entries: list[Any]) -> int:
        count = 1
        while count < len(entries) and len(self._page(level, entries[: count + 1])) <= self.page_bytes:
            count += 1
        return count

    def _page(self, level: int, entries: list[Any]) -> bytes:
        return encode_map(["imira-page", 1, self.which, level, entries])

    def _named(self, level: int, entries: list[Any]) -> list[Any]:
        """What an entry says of a page with these entries."""
        first_path = entries[0][0 if level == 0 else 3]
        return [*self._sums(level, entries), *([first_path] if self.which == FILES else [])]

    def _sums(self, level: int, entries: list[Any]) -> list[int]:
        count = len(entries) if level == 0 else sum(entry[2] for entry in entries)
        size = sum(entry[1 if level == 0 else 3] for entry in entries) if self.which == FRAGMENTS else 0
        return [count, size] if self.which == FRAGMENTS else [count]


def encode_map(values: list[Any]) -> bytes:
    return cbor2.dumps(dict(enumerate(values)), canonical=True)
