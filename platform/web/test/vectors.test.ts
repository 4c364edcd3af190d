// The vectors that the Rust implementation of the index format records: both must read the same content from the same bytes.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { ContentIndex } from "../src/content-index";
import { decodeIndex } from "../src/index-block";
import { chooseHasher } from "../src/sha256";

interface Vector {
  content_key: string;
  blocks: Record<string, string>;
  index: {
    source_sha256: string;
    duration_ms: number;
    files: [path: string, type: string, size: number, runs: [number, number, number][]][];
    fragments: [id: string, length: number][];
    renditions: Record<string, unknown>[];
  };
}

// The tests run in platform/web (scripts/unit.mjs).
const FOLDER = "../../chunkstore/block/vectors";
const hasher = chooseHasher(null);
const signal = new AbortController().signal;

for (const name of ["small", "paged"]) {
  test(`vector ${name}`, async () => {
    const vector = JSON.parse(readFileSync(`${FOLDER}/${name}.json`, "utf8")) as Vector;
    const block = async (id: string): Promise<Uint8Array<ArrayBuffer>> => {
      const bytes = new Uint8Array(Buffer.from(vector.blocks[id] ?? "", "hex"));
      assert.equal(await hasher.hex(bytes), id);
      return bytes;
    };
    const index = new ContentIndex(decodeIndex(await block(vector.content_key)), block);
    const expected = vector.index;
    assert.equal(index.block.source, expected.source_sha256);
    assert.equal(index.block.durationMs, expected.duration_ms);
    assert.equal(index.block.fragments.count, expected.fragments.length);
    assert.deepEqual(index.block.renditions.map(({ name: is, playlist, codecs }) => [is, playlist, codecs]), expected.renditions.map((is) => [is["1"], is["12"], is["2"]]));
    for (const [path, type, size, runs] of expected.files) {
      const file = await index.file(path, signal);
      assert.deepEqual(file, { path, mediaType: type, size, runs: runs.map(([first, blocks, bytes]) => ({ first, blocks, bytes })) });
      const fragments = runs.flatMap(([first, blocks]) => expected.fragments.slice(first - 1, first - 1 + blocks));
      assert.deepEqual((await index.parts(file, 0, size, signal)).map(({ fragment }) => [fragment.id, fragment.length]), fragments);
    }
  });
}
