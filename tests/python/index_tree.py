"""Whole indexes by docs/index-format.md: the walk over all pages, and byte ranges by the few pages they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from index_format import FRAGMENTS, File, Fragment, Listing, PageEntry, Root, decode_page, decode_root, refuse

# Gives the bytes of the block that an id names.
Fetch = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Index:
    root: Root
    fragments: list[Fragment]
    files: list[File]


@dataclass(frozen=True)
class Part:
    """Bytes of one fragment: `offset` and `length` within it."""

    order: int
    id: bytes
    offset: int
    length: int


def read_index(content_key: bytes, fetch: Fetch) -> Index:
    """Everything below a content key, with every check of the document."""
    root = decode_root(content_key, fetch(content_key))
    pages: set[bytes] = set()
    fragments = walk(root.fragments, fetch, pages)
    check_each_once([fragment.id for fragment in fragments])
    files = read_files(root.files, fetch, pages)
    check_runs(fragments, files)
    return Index(root, fragments, files)


def walk(listing: Listing, fetch: Fetch, seen: set[bytes]) -> list[Any]:
    """The entries of level 0 from left to right."""
    return list(walk_entries(listing.which, listing.level, listing.entries, fetch, seen))


def walk_entries(which: int, level: int, entries: list[Any], fetch: Fetch, seen: set[bytes]) -> Iterator[Any]:
    if level == 0:
        yield from entries
        return
    for page in entries:
        if page.id in seen:
            refuse("twice", f"page {page.id.hex()}")
        seen.add(page.id)
        below = decode_page(which, level - 1, page, fetch(page.id))
        if which != FRAGMENTS:
            check_first_path(page, below[0])
        yield from walk_entries(which, level - 1, below, fetch, seen)


def check_first_path(page: PageEntry, first: File | PageEntry) -> None:
    path = first.path if isinstance(first, File) else first.first_path
    if path != page.first_path:
        refuse("order", f"the page begins with {path!r}, not with {page.first_path!r}")


def read_files(listing: Listing, fetch: Fetch, pages: set[bytes]) -> list[File]:
    files = walk(listing, fetch, pages)
    for one, next_one in zip(files, files[1:]):
        if one.path.encode() >= next_one.path.encode():
            refuse("order", f"{next_one.path!r} after {one.path!r}")
    return files


def check_each_once(ids: list[bytes]) -> None:
    if len(set(ids)) != len(ids):
        refuse("twice", "a fragment")


def check_runs(fragments: list[Fragment], files: list[File]) -> None:
    bytes_before = [0, *accumulate(fragment.length for fragment in fragments)]
    for file in files:
        for run in file.runs:
            end = run.first_order - 1 + run.blocks
            if end > len(fragments) or bytes_before[end] - bytes_before[run.first_order - 1] != run.size:
                refuse("run", f"{file.path}: {run}")


def map_range(fragments: list[Fragment], file: File, start: int, end: int) -> list[Part]:
    """The bytes from `start` to before `end`, by the whole list: slow, and too simple to be wrong."""
    parts, at = [], 0
    for order in orders_of(file):
        fragment = fragments[order - 1]
        first, last = max(start - at, 0), min(end - at, fragment.length)
        if first < last:
            parts.append(Part(order, fragment.id, first, last - first))
        at += fragment.length
    return parts


def orders_of(file: File) -> Iterator[int]:
    for run in file.runs:
        yield from range(run.first_order, run.first_order + run.blocks)


class LazyReader:
    """Finds files and ranges by going down the trees, and counts the pages it read."""

    def __init__(self, content_key: bytes, fetch: Fetch) -> None:
        self.root = decode_root(content_key, fetch(content_key))
        self.pages_read = 0
        self._fetch = fetch

    def file(self, path: str) -> File | None:
        level, entries = self.root.files.level, self.root.files.entries
        while level > 0:
            page = last_not_after(entries, path)
            if page is None:
                return None
            level, entries = level - 1, self._below(self.root.files, level, page)
        return next((file for file in entries if file.path == path), None)

    def parts(self, file: File, start: int, end: int) -> Iterator[Part]:
        """Run by run: the bytes before it, and then the fragments that the wanted bytes overlap."""
        fragments, at = self.root.fragments, 0
        for run in file.runs:
            first, last = max(start - at, 0), min(end - at, run.size)
            if first < last:
                base = self._bytes_before(fragments.level, fragments.entries, run.first_order - 1)
                yield from self._overlapping(fragments.level, fragments.entries, 0, 0, base + first, base + last)
            at += run.size

    def _bytes_before(self, level: int, entries: list[Any], count: int) -> int:
        """The bytes of the first `count` fragments below these entries, down the tree by count."""
        if level == 0:
            return sum(fragment.length for fragment in entries[:count])
        total = 0
        for page in entries:
            if count < page.count:
                return total + self._bytes_before(level - 1, self._below(self.root.fragments, level, page), count)
            total, count = total + page.size, count - page.count
        return total

    def _overlapping(
        self, level: int, entries: list[Any], order: int, at: int, start: int, end: int
    ) -> Iterator[Part]:
        """The fragments that overlap start..end, down the tree by bytes; `order` and `at` count what is to the left."""
        for entry in entries:
            length = entry.length if level == 0 else entry.size
            first, last = max(start - at, 0), min(end - at, length)
            if first < last and level == 0:
                yield Part(order + 1, entry.id, first, last - first)
            elif first < last:
                below = self._below(self.root.fragments, level, entry)
                yield from self._overlapping(level - 1, below, order, at, start, end)
            order, at = order + (1 if level == 0 else entry.count), at + length

    def _below(self, listing: Listing, level: int, page: PageEntry) -> list[Any]:
        self.pages_read += 1
        return decode_page(listing.which, level - 1, page, self._fetch(page.id))


def last_not_after(pages: list[PageEntry], path: str) -> PageEntry | None:
    before = [page for page in pages if page.first_path.encode() <= path.encode()]
    return before[-1] if before else None
