// Writes index blocks by docs/index-format.md, for the tests: deterministic CBOR, and trees of pages when told how many entries a list may have.
import { createHash } from "node:crypto";

export const MAX_BLOCK_BYTES = 1_048_576;
export const sha256 = (bytes) => createHash("sha256").update(bytes).digest();

export function cbor(value) {
  if (typeof value === "number") return head(0, value);
  if (typeof value === "string") return Buffer.concat([head(3, Buffer.byteLength(value)), Buffer.from(value)]);
  if (value instanceof Uint8Array) return Buffer.concat([head(2, value.length), value]);
  if (Array.isArray(value)) return Buffer.concat([head(4, value.length), ...value.map(cbor)]);
  const entries = [...value].sort(([a], [b]) => a - b);
  return Buffer.concat([head(5, entries.length), ...entries.flat().map(cbor)]);
}

function head(major, n) {
  const first = major << 5;
  if (n < 24) return Buffer.from([first | n]);
  if (n < 0x100) return Buffer.from([first | 24, n]);
  const wide = Buffer.alloc(9);
  wide.writeBigUInt64BE(BigInt(n), 1);
  const width = n < 0x1_0000 ? 2 : n < 0x1_0000_0000 ? 4 : 8;
  wide[8 - width] = first | { 2: 25, 4: 26, 8: 27 }[width];
  return wide.subarray(8 - width);
}

/**
 * `files`: [{path, type, bytes, cut?}]; each is cut into blocks of at most `cut` bytes. Returns {key, index, blocks, pages}: maps of hex id to
 * bytes. `perPage` splits both lists into trees whose pages hold that many entries.
 */
export function encodeContent({ files, renditions = [], durationMs = 0, perPage = Infinity }) {
  const blocks = new Map();
  const pages = new Map();
  const order = new Map();
  const fragments = [];
  const entries = [...files].sort((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path))).map(({ path, type, bytes, cut = MAX_BLOCK_BYTES }) => {
    const runs = [];
    for (let at = 0; at < bytes.length; at += cut) {
      const block = bytes.subarray(at, at + cut);
      const id = sha256(block);
      const hex = id.toString("hex");
      if (!order.has(hex)) {
        order.set(hex, fragments.push([id, block.length]));
        blocks.set(hex, block);
      }
      const last = runs.at(-1);
      if (last !== undefined && last[0] + last[1] === order.get(hex)) {
        last[1] += 1;
        last[2] += block.length;
      } else {
        runs.push([order.get(hex), 1, block.length]);
      }
    }
    return [path, type, bytes.length, runs];
  });
  const leaves = fragments.map((value) => ({ value, count: 1, bytes: value[1] }));
  const list = tree(leaves, 0, perPage, pages, (page) => [page.id, page.length, page.count, page.bytes]);
  const paths = entries.map((value) => ({ value, count: 1, bytes: 0, path: value[0] }));
  const tops = tree(paths, 1, perPage, pages, (page) => [page.id, page.length, page.count, page.path]);
  const index = cbor(new Map([
    [0, "imira-index"], [1, 1], [2, 0], [3, sha256(Buffer.from("source"))], [4, durationMs], [5, renditions],
    [6, [list.level, list.count, list.bytes, list.values]],
    [7, [tops.level, tops.count, tops.values]],
  ]));
  return { key: sha256(index).toString("hex"), index, blocks, pages };
}

function tree(items, kind, perPage, pages, entry) {
  let level = 0;
  let row = items;
  while (row.length > perPage) {
    const next = [];
    for (let i = 0; i < row.length; i += perPage) {
      const group = row.slice(i, i + perPage);
      const bytes = cbor(new Map([[0, "imira-page"], [1, 1], [2, kind], [3, level], [4, group.map((item) => item.value)]]));
      const page = { id: sha256(bytes), length: bytes.length, count: sum(group, "count"), bytes: sum(group, "bytes"), path: group[0].path };
      pages.set(page.id.toString("hex"), bytes);
      next.push({ ...page, value: entry(page) });
    }
    row = next;
    level += 1;
  }
  return { level, count: sum(row, "count"), bytes: sum(row, "bytes"), values: row.map((item) => item.value) };
}

const sum = (items, member) => items.reduce((total, item) => total + item[member], 0);
