"""Index blocks and pages, decoded by docs/index-format.md alone: a second opinion on the Rust implementation.

One block at a time: `decode_root` and `decode_page` check all that can be seen in a block and in the entry that named
it. What spans blocks (ids named twice, order of files, runs) is checked in index_tree.py.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Callable, NoReturn

import cbor2

BLOCK_LIMIT = 1_048_576
FRAGMENTS_LIMIT = 16_777_216
FILES_LIMIT = 1_048_576
RUNS_LIMIT = 32_768
RENDITIONS_LIMIT = 64
NAME_LIMIT = 64
LANGUAGE_LIMIT = 35
PATH_LIMIT = 255
MEDIA_TYPE_LIMIT = 127
LEVEL_LIMIT = 4

FRAGMENTS = 0
FILES = 1


class Refused(Exception):
    """`reason` is one of the words of the table "Names of refusals" in the document."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


@dataclass(frozen=True)
class Fragment:
    id: bytes
    length: int


@dataclass(frozen=True)
class Run:
    first_order: int
    blocks: int
    size: int


@dataclass(frozen=True)
class File:
    path: str
    media_type: str
    size: int
    runs: list[Run]


@dataclass(frozen=True)
class PageEntry:
    """A page as the list above names it; `size` only in fragments, `first_path` only in files."""

    id: bytes
    length: int
    count: int
    size: int = 0
    first_path: str = ""


Entry = Fragment | File | PageEntry


@dataclass(frozen=True)
class Listing:
    """The fragments or the files: entries of level 0, or pages."""

    which: int
    level: int
    count: int
    size: int
    entries: list[Any]


@dataclass(frozen=True)
class Root:
    source_sha256: bytes
    duration_ms: int
    renditions: list[dict[int, Any]]
    fragments: Listing
    files: Listing


def decode_root(content_key: bytes, data: bytes) -> Root:
    check_block(content_key, data)
    index = decode_map(data, "imira-index", range(8))
    if uint(index[2], "cipher") != 0:
        refuse("cipher", f"cipher {index[2]} is not known")
    return Root(
        source_sha256=block_id(index[3], "source hash"),
        duration_ms=uint(index[4], "duration"),
        renditions=decode_renditions(index[5]),
        fragments=decode_fragments(index[6]),
        files=decode_files(index[7]),
    )


def decode_page(which: int, level: int, named: PageEntry, data: bytes) -> list[Any]:
    """The entries of a page of this level that another list named."""
    check_block(named.id, data)
    if len(data) != named.length:
        refuse("length", f"the page has {len(data)} bytes, {named.length} were promised")
    page = decode_map(data, "imira-page", range(5))
    if uint(page[2], "list") != which:
        refuse("value", f"the page is of list {page[2]}, not {which}")
    if uint(page[3], "level") != level:
        refuse("level", f"the page has level {page[3]}, not {level}")
    entries = decode_entries(which, level, page[4])
    if not entries:
        refuse("empty", "a page is empty")
    check_sums(which, level, entries, named)
    return entries


def check_block(wanted: bytes, data: bytes) -> None:
    """The hash comes first: with it, every other fault is the content's own and not the sender's."""
    if hashlib.sha256(data).digest() != wanted:
        refuse("hash", "the block is not the one that was named")
    if len(data) > BLOCK_LIMIT:
        refuse("length", f"a block of {len(data)} bytes")


def decode_map(data: bytes, kind: str, keys: range) -> dict[int, Any]:
    """A block of this kind in version 1. Kind and version come first: another version may look quite different."""
    value = decode_canonical(data)
    check(0 in integer_map(value, kind) and 1 in value, "a block has a kind and a version")
    if text(value[0], "kind") != kind:
        refuse("kind", f"{value[0]!r} instead of {kind!r}")
    if uint(value[1], "version") != 1:
        refuse("version", f"version {value[1]} is not known")
    if set(value) != set(keys):
        refuse("encoding", f"the keys are {sorted(value)}")
    return value


def decode_canonical(data: bytes) -> Any:
    """cbor2 is lenient: bytes are canonical if encoding what they say gives them again, with none left over."""
    try:
        value = cbor2.loads(data)
        again = cbor2.dumps(value, canonical=True)
    except (cbor2.CBORError, RecursionError, ValueError, TypeError, OverflowError) as error:
        refuse("encoding", str(error))
    if again != data:
        refuse("encoding", "not deterministic CBOR")
    return value


def decode_renditions(value: Any) -> list[dict[int, Any]]:
    renditions = array(value, "renditions")
    if len(renditions) > RENDITIONS_LIMIT:
        refuse("limit", f"{len(renditions)} renditions")
    return [decode_rendition(rendition) for rendition in renditions]


def decode_rendition(value: Any) -> dict[int, Any]:
    check({0, 1, 2, 3, 4, 12} <= set(integer_map(value, "rendition")) <= set(range(14)), "keys of a rendition")
    if uint(value[0], "kind of rendition") > 2:
        refuse("value", "a rendition is video, audio or text")
    for key in set(value) - {0, 1, 2, 11, 12, 13}:
        uint(value[key], f"number {key} of a rendition")
    for key, limit in {1: NAME_LIMIT, 2: NAME_LIMIT, 11: LANGUAGE_LIMIT}.items():
        if key in value:
            check_text(value[key], limit)
    for key in {12, 13} & set(value):
        check_path(value[key])
    return value


def decode_fragments(value: Any) -> Listing:
    level, count, total, entries = array(value, "fragments", 4)
    return decode_listing(FRAGMENTS, level, count, uint(total, "bytes"), entries)


def decode_files(value: Any) -> Listing:
    level, count, entries = array(value, "files", 3)
    return decode_listing(FILES, level, count, 0, entries)


def decode_listing(which: int, level: Any, count: Any, total: int, entries: Any) -> Listing:
    if uint(level, "level") > LEVEL_LIMIT:
        refuse("level", f"level {level} is too deep")
    if uint(count, "count") > (FRAGMENTS_LIMIT, FILES_LIMIT)[which]:
        refuse("limit", f"a list of {count}")
    listing = Listing(which, level, count, total, decode_entries(which, level, entries))
    if level > 0 and not listing.entries:
        refuse("empty", "a list of no pages")
    check_sums(which, level, listing.entries, listing)
    return listing


def decode_entries(which: int, level: int, value: Any) -> list[Any]:
    decoders: tuple[Callable[[Any], Entry], ...] = (decode_fragment, decode_file)
    page_decoders: tuple[Callable[[Any], Entry], ...] = (decode_fragment_page, decode_file_page)
    decode = (decoders if level == 0 else page_decoders)[which]
    return [decode(entry) for entry in array(value, "entries")]


def decode_fragment(value: Any) -> Fragment:
    fragment_id, length = array(value, "fragment", 2)
    return Fragment(block_id(fragment_id, "fragment"), block_length(length))


def decode_fragment_page(value: Any) -> PageEntry:
    page_id, length, count, total = array(value, "page of fragments", 4)
    return PageEntry(block_id(page_id, "page"), block_length(length), entry_count(count), size=uint(total, "bytes"))


def decode_file_page(value: Any) -> PageEntry:
    page_id, length, count, first = array(value, "page of files", 4)
    return PageEntry(block_id(page_id, "page"), block_length(length), entry_count(count), first_path=check_path(first))


def entry_count(value: Any) -> int:
    if uint(value, "count") == 0:
        refuse("empty", "a page of nothing is named")
    return value


def decode_file(value: Any) -> File:
    path, media_type, size, runs = array(value, "file", 4)
    file = File(check_path(path), check_media_type(media_type), uint(size, "size"), decode_runs(runs))
    if sum(run.size for run in file.runs) != file.size:
        refuse("sum", f"the runs of {file.path} are not its size")
    return file


def decode_runs(value: Any) -> list[Run]:
    runs = array(value, "runs")
    if len(runs) > RUNS_LIMIT:
        refuse("limit", f"{len(runs)} runs")
    return [decode_run(run) for run in runs]


def decode_run(value: Any) -> Run:
    first_order, blocks, total = (uint(number, "number of a run") for number in array(value, "run", 3))
    if first_order == 0 or blocks == 0:
        refuse("run", f"a run of {blocks} fragments from {first_order}")
    return Run(first_order, blocks, total)


def check_sums(which: int, level: int, entries: list[Any], named: Listing | PageEntry) -> None:
    """What the list or the entry above says of these entries."""
    count = len(entries) if level == 0 else sum(entry.count for entry in entries)
    if count != named.count:
        refuse("sum", f"{count} entries, {named.count} were promised")
    if which == FRAGMENTS:
        total = sum(entry.length if level == 0 else entry.size for entry in entries)
        if total != named.size:
            refuse("sum", f"{total} bytes of fragments, {named.size} were promised")


def check_path(value: Any) -> str:
    path = text(value, "path")
    if not 1 <= len(path.encode()) <= PATH_LIMIT:
        refuse("path", f"a path of {len(path.encode())} bytes")
    if any(name in ("", ".", "..") for name in path.split("/")):
        refuse("path", f"{path!r} has a name that is none")
    if any(is_control(char) or char in "\\?#" for char in path):
        refuse("path", f"{path!r} has a character that no path may have")
    return path


def is_control(char: str) -> bool:
    return ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0


def check_media_type(value: Any) -> str:
    media_type = text(value, "media type")
    if not 1 <= len(media_type) <= MEDIA_TYPE_LIMIT or any(not "\x21" <= char <= "\x7e" for char in media_type):
        refuse("media-type", repr(media_type))
    return media_type


def check_text(value: Any, limit: int) -> None:
    length = len(text(value, "text").encode())
    if length > limit:
        refuse("limit", f"a text of {length} bytes")


def integer_map(value: Any, what: str) -> dict[int, Any]:
    check(type(value) is dict and all(type(key) is int for key in value), what)
    return value


def array(value: Any, what: str, length: int | None = None) -> list[Any]:
    check(type(value) is list and (length is None or len(value) == length), what)
    return value


def uint(value: Any, what: str) -> int:
    # `type(...) is` and not isinstance: True is an int to Python. Beyond 64 bits it was a tag.
    check(type(value) is int and 0 <= value < 2**64, what)
    return value


def text(value: Any, what: str) -> str:
    check(type(value) is str, what)
    return value


def block_id(value: Any, what: str) -> bytes:
    check(type(value) is bytes and len(value) == 32, what)
    return value


def block_length(value: Any) -> int:
    if not 1 <= uint(value, "length") <= BLOCK_LIMIT:
        refuse("length", f"a block of {value} bytes")
    return value


def check(holds: bool, what: str) -> None:
    if not holds:
        refuse("encoding", what)


def refuse(reason: str, message: str) -> NoReturn:
    raise Refused(reason, message)
