import assert from "node:assert/strict";
import { test } from "node:test";
import { CborError, decode } from "../src/cbor";
import { ContentIndex } from "../src/content-index";
import { comparePaths, decodeIndex } from "../src/index-block";
import { chooseHasher } from "../src/sha256";
import { cbor, encodeContent, type Encoded } from "./encode.mjs";

const signal = new AbortController().signal;
const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));

test("CBOR: the deterministic form is read", () => {
  const value = new Map<number, unknown>([[0, "imira-ü"], [1, [0, 23, 24, 255, 256, 65_535, 65_536, 4_294_967_296, Number.MAX_SAFE_INTEGER]], [30, new Uint8Array([1, 2])]]);
  assert.deepEqual(decode(new Uint8Array(cbor(value))), value);
});

for (const [name, bytes] of [
  ["number not shortest, 1 byte", "1817"],
  ["number not shortest, 2 bytes", "1900ff"],
  ["number not shortest, 8 bytes", "1b00000000ffffffff"],
  ["number above 2^53 - 1", "1b0020000000000000"],
  ["length not shortest", "5801ff"],
  ["indefinite string", "5f41ff41ffff"],
  ["indefinite array", "9f01ff"],
  ["indefinite map", "bf0001ff"],
  ["negative number", "20"],
  ["tag", "c100"],
  ["float", "f93c00"],
  ["true", "f5"],
  ["null", "f6"],
  ["map keys descending", "a201000000"],
  ["map key twice", "a200000001"],
  ["map key of text", "a1616101"],
  ["text not UTF-8", "61ff"],
  ["surrogate in UTF-8", "63eda080"],
  ["cut off", "8201"],
  ["bytes after the item", "0000"],
  ["count beyond the bytes", "9affffffff"],
  ["length beyond the bytes", "5affffffff"],
  ["reserved length", "1c"],
  ["nothing", ""],
  ["nested too deeply", "81".repeat(40) + "00"],
] as const) {
  test(`CBOR: ${name} is refused`, () => {
    assert.throws(() => decode(hex(bytes)), CborError);
  });
}

const bytesOf = (length: number, seed: number): Buffer => Buffer.from(Array.from({ length }, (_, i) => (i * 31 + seed * 7 + (i >> 3)) & 255));
const FILES = Array.from({ length: 23 }, (_, i) => ({ path: `v/${String(i).padStart(2, "0")}.m4s`, type: "video/mp4", bytes: bytesOf(100 + i * 13, i), cut: 50 }));

function opened(content: Encoded): ContentIndex {
  return new ContentIndex(decodeIndex(content.index), (id) => {
    const page = content.pages.get(id);
    return page === undefined ? Promise.reject(new Error("no such page")) : Promise.resolve(page);
  });
}

async function read(index: ContentIndex, content: Encoded, path: string, start: number, end: number): Promise<Buffer> {
  const file = await index.file(path, signal);
  assert.ok(file);
  const parts = await index.parts(file, start, end, signal);
  return Buffer.concat(parts.map(({ fragment, from, to }) => content.blocks.get(fragment.id)?.subarray(from, to) ?? Buffer.alloc(0)));
}

for (const perPage of [Infinity, 20, 5, 3]) {
  test(`ranges of files in an index with ${String(perPage)} entries a page are their bytes`, async () => {
    const content = encodeContent({ files: FILES, durationMs: 1_234, perPage });
    const index = opened(content);
    assert.equal(index.block.durationMs, 1_234);
    assert.equal(index.block.fragments.level > 0, perPage !== Infinity);
    for (const { path, bytes } of FILES) {
      for (const [start, end] of [[0, bytes.length], [0, 1], [49, 51], [50, 100], [bytes.length - 1, bytes.length], [60, 60]] as const) {
        assert.deepEqual(await read(index, content, path, start, end), bytes.subarray(start, end));
      }
    }
    assert.equal(await index.file("v/99.m4s", signal), null);
    assert.equal(await index.file("a", signal), null);
  });
}

test("a range needs only the fragments it overlaps", async () => {
  const content = encodeContent({ files: FILES, perPage: 4 });
  const index = opened(content);
  const file = await index.file("v/10.m4s", signal);
  assert.ok(file);
  assert.deepEqual((await index.parts(file, 50, 100, signal)).map(({ from, to }) => [from, to]), [[0, 50]]);
  assert.equal((await index.parts(file, 49, 101, signal)).length, 3);
});

test("a page that differs from the entry that names it is refused", async () => {
  const content = encodeContent({ files: FILES, perPage: 6 });
  const other = encodeContent({ files: FILES.slice(0, 9).map((file) => ({ ...file, path: `w/${file.path}` })), perPage: 6 });
  const index = new ContentIndex(decodeIndex(content.index), () => Promise.resolve([...other.pages.values()][0] ?? Buffer.alloc(0)));
  await assert.rejects(index.file("v/10.m4s", signal), /index: page/);
});

const filled = (n: number): Uint8Array => new Uint8Array(32).fill(n);
const [ID, ID2, ID3] = [filled(0), filled(1), filled(2)];
function withKeys(changes: [number, unknown][], drop: number[] = []): Uint8Array {
  const map = new Map<number, unknown>([
    [0, "imira-index"], [1, 1], [2, 0], [3, ID], [4, 5], [5, []], [6, [0, 2, 30, [[ID, 10], [ID2, 20]]]], [7, [0, 1, [["a/b", "video/mp4", 30, [[1, 2, 30]]]]]],
  ]);
  for (const [key, value] of changes) map.set(key, value);
  for (const key of drop) map.delete(key);
  return new Uint8Array(cbor(map));
}

/** An index whose fragments lie on pages of the given ids and lengths; one file over them all. */
function paged(pages: [Uint8Array, number][][]): { index: ContentIndex; size: number } {
  const blocks = pages.map((entries) => new Uint8Array(cbor(new Map<number, unknown>([[0, "imira-page"], [1, 1], [2, 0], [3, 0], [4, entries]]))));
  const bytes = pages.map((entries) => entries.reduce((sum, [, length]) => sum + length, 0));
  const [count, size] = [pages.flat().length, bytes.reduce((sum, n) => sum + n, 0)];
  const list = blocks.map((block, i) => [filled(100 + i), block.length, pages[i]?.length, bytes[i]]);
  const root = decodeIndex(withKeys([[6, [1, count, size, list]], [7, [0, 1, [["a", "x/y", size, [[1, count, size]]]]]]]));
  const index = new ContentIndex(root, (id) => Promise.resolve(blocks[parseInt(id.slice(0, 2), 16) - 100] ?? new Uint8Array()));
  return { index, size };
}

test("index: a fragment named on two pages is refused", async () => {
  for (const [last, refused] of [[ID3, false], [ID, true]] as const) {
    const { index, size } = paged([[[ID, 10], [ID2, 20]], [[last, 10]]]);
    const entry = await index.file("a", signal);
    assert.ok(entry);
    const parts = index.parts(entry, 0, size, signal);
    if (refused) await assert.rejects(parts, /fragment.id: 0{64} is named twice/);
    else assert.equal((await parts).length, 3);
  }
});

const file = (path: string, type = "video/mp4", size = 30, runs: unknown = [[1, 2, 30]]): unknown => [path, type, size, runs];
const rendition = (...changes: [number, unknown][]): unknown => new Map<number, unknown>([[0, 0], [1, "720p"], [2, "avc1"], [3, 2], [4, 1], [12, "v/p.m3u8"], ...changes]);

test("a small index block is read", () => {
  const block = decodeIndex(withKeys([[5, [rendition([5, 1280], [6, 720], [13, "v.mp4"])]]]));
  assert.equal(block.renditions[0]?.height, 720);
  assert.equal(block.fragments.bytes, 30);
});

for (const [name, bytes, message] of [
  ["another kind", withKeys([[0, "imira-page"]]), /kind/],
  ["another version", withKeys([[1, 2]]), /version: 2/],
  ["another cipher", withKeys([[2, 1]]), /cipher: 1/],
  ["an unknown key", withKeys([[8, 0]]), /key 8/],
  ["a missing key", withKeys([], [4]), /key 4/],
  ["a short source id", withKeys([[3, new Uint8Array(31)]]), /source/],
  ["a wrong count of fragments", withKeys([[6, [0, 3, 30, [[ID, 10], [ID2, 20]]]]]), /fragments.count/],
  ["wrong bytes of fragments", withKeys([[6, [0, 2, 31, [[ID, 10], [ID2, 20]]]]]), /fragments.bytes/],
  ["an empty fragment", withKeys([[6, [0, 2, 30, [[ID, 0], [ID2, 30]]]]]), /fragment.length/],
  ["a fragment above 1 MiB", withKeys([[6, [0, 1, 1_048_577, [[ID, 1_048_577]]]]]), /fragment.length/],
  ["level 5", withKeys([[6, [5, 1, 30, [[ID, 9, 1, 30]]]]]), /level/],
  ["an empty list of pages", withKeys([[6, [1, 0, 0, []]], [7, [0, 0, []]]]), /empty/],
  ["a page above 1 MiB", withKeys([[6, [1, 2, 30, [[ID, 1_048_577, 2, 30]]]]]), /page.length/],
  ["a fragment named twice", withKeys([[6, [0, 2, 30, [[ID, 10], [ID, 20]]]]]), /fragment.id: 0{64} is named twice/],
  ["a page of fragments named twice", withKeys([[6, [1, 2, 30, [[ID, 9, 1, 10], [ID, 9, 1, 20]]]], [7, [0, 0, []]]]), /page.id: 0{64} is named twice/],
  ["a page of files named twice", withKeys([[7, [1, 2, [[ID3, 9, 1, "a"], [ID3, 9, 1, "b"]]]]]), /page.id: (02){32} is named twice/],
  ["a page named in both lists", withKeys([[6, [1, 1, 30, [[ID3, 9, 1, 30]]]], [7, [1, 1, [[ID3, 9, 1, "a"]]]]]), /page.id: (02){32} is named twice/],
  ["a run past the end", withKeys([[7, [0, 1, [file("a", "x/y", 30, [[2, 2, 30]])]]]]), /past the last/],
  ["a run from 0", withKeys([[7, [0, 1, [file("a", "x/y", 30, [[0, 2, 30]])]]]]), /run.first/],
  ["a run with other bytes", withKeys([[7, [0, 1, [file("a", "x/y", 29, [[1, 2, 29]])]]]]), /run.bytes/],
  ["a file with another size", withKeys([[7, [0, 1, [file("a", "x/y", 29)]]]]), /file.size/],
  ["files out of order", withKeys([[7, [0, 2, [file("b"), file("a")]]]]), /ascending/],
  ["a path twice", withKeys([[7, [0, 2, [file("a"), file("a")]]]]), /ascending/],
  ["a wrong count of files", withKeys([[7, [0, 2, [file("a")]]]]), /files.count/],
  ["a media type with a space", withKeys([[7, [0, 1, [file("a", "video mp4")]]]]), /file.type/],
  ["an unknown kind of rendition", withKeys([[5, [rendition([0, 3])]]]), /rendition.kind/],
  ["an unknown key of a rendition", withKeys([[5, [rendition([14, 3])]]]), /key 14/],
  ["a long name of a rendition", withKeys([[5, [rendition([1, "x".repeat(65)])]]]), /rendition.name/],
  ["65 renditions", withKeys([[5, Array.from({ length: 65 }, () => rendition())]]), /more than 64/],
] as const) {
  test(`index: ${name} is refused`, () => {
    assert.throws(() => decodeIndex(bytes), message);
  });
}

for (const path of ["", "/a", "a/", "a//b", ".", "a/../b", "a\\b", "a?b", "a#b", "a\u0000b", "x".repeat(256)]) {
  test(`index: the path ${JSON.stringify(path.slice(0, 9))} is refused`, () => {
    assert.throws(() => decodeIndex(withKeys([[7, [0, 1, [file(path)]]]])), /file.path/);
  });
}

test("paths sort by bytes, not by UTF-16 units", () => {
  assert.ok(comparePaths("\u{ffee}", "\u{10000}") < 0);
  assert.ok(comparePaths("a", "ab") < 0);
});

test("both SHA-256 backends agree with the published vector", async () => {
  const expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  const abc = new TextEncoder().encode("abc");
  const { webcrypto } = await import("node:crypto");
  const native = chooseHasher(webcrypto.subtle as SubtleCrypto);
  const script = chooseHasher(null);
  assert.deepEqual([native.backend, script.backend], ["crypto.subtle", "javascript"]);
  assert.equal(await native.hex(abc), expected);
  assert.equal(await script.hex(abc), expected);
});
