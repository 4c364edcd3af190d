"""Reads chunkstore/block/vectors/ with the decoder beside this file and agrees with all that is written there."""

from __future__ import annotations

import hashlib
import json
import unittest
from pathlib import Path
from typing import Any

import cbor2

from index_format import BLOCK_LIMIT, RUNS_LIMIT, File, Refused, refuse
from index_tree import Fetch, Index, LazyReader, Part, map_range, read_index
from index_writer import write_index

VECTORS = Path(__file__).resolve().parents[2] / "chunkstore" / "block" / "vectors"
INDEXES = ["small", "paged", "deep"]


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def fetch_from(blocks: dict[str, str]) -> Fetch:
    def fetch(block_id: bytes) -> bytes:
        if block_id.hex() not in blocks:
            refuse("missing", block_id.hex())
        return bytes.fromhex(blocks[block_id.hex()])

    return fetch


def as_json(index: Index) -> dict[str, Any]:
    root = index.root
    return {
        "source_sha256": root.source_sha256.hex(),
        "duration_ms": root.duration_ms,
        "renditions": [{str(key): value for key, value in rendition.items()} for rendition in root.renditions],
        "fragments": [[fragment.id.hex(), fragment.length] for fragment in index.fragments],
        "files": [file_json(file) for file in index.files],
    }


def file_json(file: File) -> list[Any]:
    return [file.path, file.media_type, file.size, [[run.first_order, run.blocks, run.size] for run in file.runs]]


def part_json(part: Part) -> list[Any]:
    return [part.order, part.id.hex(), part.offset, part.length]


class Indexes(unittest.TestCase):
    def test_every_vector_is_known(self) -> None:
        self.assertEqual({path.stem for path in VECTORS.glob("*.json")}, {*INDEXES, "accepted", "refused"})

    def test_content_keys(self) -> None:
        for name in INDEXES:
            with self.subTest(name):
                vector = load(name)
                for block_id, block in vector["blocks"].items():
                    self.assertEqual(hashlib.sha256(bytes.fromhex(block)).hexdigest(), block_id)
                self.assertIn(vector["content_key"], vector["blocks"])

    def test_contents(self) -> None:
        for name in INDEXES:
            with self.subTest(name):
                vector = load(name)
                index = read_index(bytes.fromhex(vector["content_key"]), fetch_from(vector["blocks"]))
                self.assertEqual(as_json(index), vector["index"])
                self.assertEqual([index.root.fragments.level, index.root.files.level], vector["levels"])

    def test_the_same_content_gives_the_same_blocks(self) -> None:
        for name in INDEXES:
            with self.subTest(name):
                vector = load(name)
                key, blocks = write_index(vector["index"], vector["page_bytes"])
                self.assertEqual(key.hex(), vector["content_key"])
                self.assertEqual({id_.hex(): block.hex() for id_, block in blocks.items()}, vector["blocks"])

    def test_every_block_is_used(self) -> None:
        for name in INDEXES:
            with self.subTest(name):
                vector, fetched = load(name), set()
                inner = fetch_from(vector["blocks"])

                def fetch(block_id: bytes) -> bytes:
                    fetched.add(block_id.hex())
                    return inner(block_id)

                read_index(bytes.fromhex(vector["content_key"]), fetch)
                self.assertEqual(fetched, set(vector["blocks"]))


class Ranges(unittest.TestCase):
    def test_ranges(self) -> None:
        for name in INDEXES:
            vector = load(name)
            self.assertTrue(vector["ranges"])
            for wanted in vector["ranges"]:
                with self.subTest(name, path=wanted["path"], start=wanted["start"], end=wanted["end"]):
                    self.check_range(vector, wanted)

    def check_range(self, vector: dict[str, Any], wanted: dict[str, Any]) -> None:
        key, fetch = bytes.fromhex(vector["content_key"]), fetch_from(vector["blocks"])
        index, lazy = read_index(key, fetch), LazyReader(key, fetch)
        file = lazy.file(wanted["path"])
        self.assertIsNotNone(file)
        assert file is not None
        by_list = map_range(index.fragments, file, wanted["start"], wanted["end"])
        by_tree = list(lazy.parts(file, wanted["start"], wanted["end"]))
        self.assertEqual([part_json(part) for part in by_list], wanted["parts"])
        self.assertEqual(by_tree, by_list)

    def test_one_byte_reads_few_pages(self) -> None:
        """Down the files once, and down the fragments twice: by count and by bytes."""
        for name in INDEXES:
            vector = load(name)
            key, fetch = bytes.fromhex(vector["content_key"]), fetch_from(vector["blocks"])
            for path, _, size, _ in vector["index"]["files"][-3:]:
                with self.subTest(name, path=path):
                    lazy = LazyReader(key, fetch)
                    file = lazy.file(path)
                    assert file is not None
                    middle = lazy.parts(file, size // 2, size // 2 + 1)
                    self.assertEqual(sum(part.length for part in middle), min(size, 1))
                    self.assertLessEqual(lazy.pages_read, lazy.root.files.level + 2 * lazy.root.fragments.level)

    def test_a_path_that_is_not_there(self) -> None:
        for name in INDEXES:
            vector = load(name)
            lazy = LazyReader(bytes.fromhex(vector["content_key"]), fetch_from(vector["blocks"]))
            for path in ["!", "720p/0005.m4s", "zzz"]:
                with self.subTest(name, path=path):
                    self.assertIsNone(lazy.file(path))


class Refusals(unittest.TestCase):
    def test_refused_for_the_reason_given(self) -> None:
        for vector in load("refused"):
            with self.subTest(vector["name"]):
                with self.assertRaises(Refused) as refused:
                    read_index(bytes.fromhex(vector["content_key"]), fetch_from(vector["blocks"]))
                self.assertEqual(refused.exception.reason, vector["reason"], str(refused.exception))

    def test_odd_and_accepted(self) -> None:
        for vector in load("accepted"):
            with self.subTest(vector["name"]):
                read_index(bytes.fromhex(vector["content_key"]), fetch_from(vector["blocks"]))


class TooLarge(unittest.TestCase):
    """What would make large vectors; the Rust test `what_is_too_large_for_a_vector_is_refused` says the same."""

    def test_a_block_of_more_than_1_mib(self) -> None:
        index = self.index_with_runs(1)
        index[0] = "x" * BLOCK_LIMIT
        self.assertEqual(self.refusal_of(index), "length")

    def test_runs(self) -> None:
        self.assertIsNone(self.refusal_of(self.index_with_runs(RUNS_LIMIT)))
        self.assertEqual(self.refusal_of(self.index_with_runs(RUNS_LIMIT + 1)), "limit")

    def index_with_runs(self, runs: int) -> dict[int, Any]:
        file = ["a", "video/mp4", runs, [[1, 1, 1]] * runs]
        fragments, files = [0, 1, 1, [[bytes(32), 1]]], [0, 1, [file]]
        return {0: "imira-index", 1: 1, 2: 0, 3: bytes(32), 4: 0, 5: [], 6: fragments, 7: files}

    def refusal_of(self, index: dict[int, Any]) -> str | None:
        data = cbor2.dumps(index, canonical=True)
        try:
            read_index(hashlib.sha256(data).digest(), lambda _: data)
        except Refused as refused:
            return refused.reason
        return None


if __name__ == "__main__":
    unittest.main()
