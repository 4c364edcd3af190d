// The index block of docs/index-format.md: decoding with every check that the format asks of a reader. Lists that became trees are
// walked in content-index.ts; here one block or page is checked by itself and against the entry that named it.

import { decode, type Value } from "./cbor";
import { toHex } from "./sha256";

export const MAX_BLOCK_BYTES = 1_048_576;
const MAX_FRAGMENTS = 16_777_216;
const MAX_FILES = 1_048_576;
const MAX_RUNS = 32_768;
const MAX_RENDITIONS = 64;
const MAX_NAME_BYTES = 64;
const MAX_LANGUAGE_BYTES = 35;
const MAX_LEVEL = 4;
const MAX_PATH_BYTES = 255;

export interface Fragment {
  readonly id: string;
  readonly length: number;
}

export interface Run {
  /** Counted from 1. */
  readonly first: number;
  readonly blocks: number;
  readonly bytes: number;
}

export interface FileEntry {
  readonly path: string;
  readonly mediaType: string;
  readonly size: number;
  readonly runs: readonly Run[];
}

export interface PageOfFragments {
  readonly id: string;
  readonly length: number;
  readonly count: number;
  readonly bytes: number;
}

export interface PageOfFiles {
  readonly id: string;
  readonly length: number;
  readonly count: number;
  readonly firstPath: string;
}

/** What a list names below it; nothing of it may be named again elsewhere in the index. */
interface Names {
  readonly names: ReadonlySet<string>;
}

/** `before[i]` are the fragments and `bytesBefore[i]` the bytes ahead of entry i; both have one more element than there are entries. */
interface Sums {
  readonly count: number;
  readonly bytes: number;
  readonly before: Float64Array;
  readonly bytesBefore: Float64Array;
}

export type FragmentList = Sums & Names &
  ({ readonly level: 0; readonly entries: readonly Fragment[] } | { readonly level: Upper; readonly entries: readonly PageOfFragments[] });

/** Files are named by paths, whose order rules out a second time: `names` of level 0 is empty. */
export type FileList = Names &
  ({ readonly level: 0; readonly count: number; readonly entries: readonly FileEntry[] } | { readonly level: Upper; readonly count: number; readonly entries: readonly PageOfFiles[] });

type Upper = 1 | 2 | 3 | 4;

export type RenditionKind = "video" | "audio" | "text";

export interface Rendition {
  readonly kind: RenditionKind;
  readonly name: string;
  readonly codecs: string;
  readonly peakBandwidth: number;
  readonly averageBandwidth: number;
  readonly width?: number;
  readonly height?: number;
  readonly language?: string;
  readonly playlist: string;
  readonly mp4?: string;
}

export interface IndexBlock {
  readonly source: string;
  readonly durationMs: number;
  readonly renditions: readonly Rendition[];
  readonly fragments: FragmentList;
  readonly files: FileList;
}

export class IndexError extends Error {
  override name = "IndexError";
  constructor(field: string, what: string) {
    super(`index: ${field}: ${what}`);
  }
}

/** Decodes and checks an index block whose SHA-256 has been compared with the content key already. */
export function decodeIndex(bytes: Uint8Array): IndexBlock {
  const map = document(bytes, "imira-index", [0, 1, 2, 3, 4, 5, 6, 7]);
  const cipher = uint(map.get(2), "cipher");
  if (cipher !== 0) throw new IndexError("cipher", `${String(cipher)} is not known to this player`);
  const fragments = fragmentTree(map.get(6));
  const files = fileTree(map.get(7), fragments);
  namedOnce(fragments, files);
  return {
    source: id(map.get(3), "source"),
    durationMs: uint(map.get(4), "duration"),
    renditions: renditions(map.get(5)),
    fragments,
    files,
  };
}

/** Decodes a page of fragments and compares it with the entry that named it. `level` is that of the page itself. */
export function decodeFragmentPage(bytes: Uint8Array, level: number, parent: PageOfFragments): FragmentList {
  const list = fragmentList(level, pageEntries(bytes, 0, level, parent.length));
  if (list.count !== parent.count) throw new IndexError("page.count", "differs from the list that names the page");
  if (list.bytes !== parent.bytes) throw new IndexError("page.bytes", "differs from the list that names the page");
  return list;
}

/** Decodes a page of files; its paths lie from `parent.firstPath` up to, but not including, `until` (the next page's first path). */
export function decodeFilePage(bytes: Uint8Array, level: number, parent: PageOfFiles, until: string | null, fragments: FragmentList): FileList {
  const list = fileList(level, pageEntries(bytes, 1, level, parent.length), fragments);
  if (list.count !== parent.count) throw new IndexError("page.count", "differs from the list that names the page");
  if (firstPath(list) !== parent.firstPath) throw new IndexError("page.entries", "the first path differs from the list that names the page");
  const last = lastPath(list);
  if (until !== null && last !== undefined && comparePaths(last, until) >= 0) throw new IndexError("page.entries", "paths run into the next page");
  return list;
}

/** Refuses two lists of one index, or pages of it, that name the same page or the same fragment. */
export function namedOnce(a: FragmentList | FileList, b: FragmentList | FileList): void {
  if (namesFragments(a) !== namesFragments(b)) return;
  const [few, many] = a.names.size < b.names.size ? [a.names, b.names] : [b.names, a.names];
  for (const name of few) if (many.has(name)) throw new IndexError(namesFragments(a) ? "fragment.id" : "page.id", `${name} is named twice`);
}

function namesFragments(list: FragmentList | FileList): boolean {
  return list.level === 0 && "bytes" in list;
}

/** By UTF-8 bytes, as the format sorts. */
export function comparePaths(a: string, b: string): number {
  const left = UTF8.encode(a);
  const right = UTF8.encode(b);
  const shared = Math.min(left.length, right.length);
  for (let i = 0; i < shared; i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

const UTF8 = new TextEncoder();

function document(bytes: Uint8Array, kind: string, keys: readonly number[]): Map<number, Value> {
  if (bytes.length > MAX_BLOCK_BYTES) throw new IndexError("block", "longer than 1,048,576 bytes");
  const map = decode(bytes);
  if (!(map instanceof Map)) throw new IndexError("block", "not a map");
  if (map.get(0) !== kind) throw new IndexError("kind", `not "${kind}"`);
  const version = uint(map.get(1), "version");
  if (version !== 1) throw new IndexError("version", `${String(version)} is not known to this player`);
  onlyKeys(map, keys, "block");
  for (const key of keys) if (!map.has(key)) throw new IndexError("block", `key ${String(key)} is missing`);
  return map;
}

function pageEntries(bytes: Uint8Array, kind: 0 | 1, level: number, length: number): Value[] {
  if (bytes.length !== length) throw new IndexError("page", "length differs from the list that names the page");
  const map = document(bytes, "imira-page", [0, 1, 2, 3, 4]);
  if (uint(map.get(2), "page.kind") !== kind) throw new IndexError("page.kind", "a page of the other list");
  if (uint(map.get(3), "page.level") !== level) throw new IndexError("page.level", "not one below the list that names the page");
  return array(map.get(4), "page.entries");
}

function fragmentTree(value: Value | undefined): FragmentList {
  const [level, count, bytes, entries] = tuple(value, 4, "fragments");
  const list = fragmentList(uint(level, "fragments.level"), array(entries, "fragments"));
  if (list.count !== uint(count, "fragments.count")) throw new IndexError("fragments.count", "is not the sum of the entries");
  if (list.bytes !== uint(bytes, "fragments.bytes")) throw new IndexError("fragments.bytes", "is not the sum of the entries");
  return list;
}

function fragmentList(level: number, values: Value[]): FragmentList {
  if (level === 0) {
    const entries = values.map(fragment);
    return { level, entries, names: distinct(entries, "fragment.id"), ...sums(entries, () => 1, (entry) => entry.length) };
  }
  const entries = values.map(pageOfFragments);
  return { level: upper(level, entries, "fragments"), entries, names: distinct(entries, "page.id"), ...sums(entries, (page) => page.count, (page) => page.bytes) };
}

function distinct(entries: readonly { readonly id: string }[], field: string): ReadonlySet<string> {
  const names = new Set<string>();
  for (const { id: name } of entries) {
    if (names.has(name)) throw new IndexError(field, `${name} is named twice`);
    names.add(name);
  }
  return names;
}

function fragment(value: Value): Fragment {
  const [name, length] = tuple(value, 2, "fragment");
  return { id: id(name, "fragment.id"), length: between(length, 1, MAX_BLOCK_BYTES, "fragment.length") };
}

function pageOfFragments(value: Value): PageOfFragments {
  const [name, length, count, bytes] = tuple(value, 4, "fragments.page");
  return {
    id: id(name, "fragments.page.id"),
    length: between(length, 1, MAX_BLOCK_BYTES, "fragments.page.length"),
    count: between(count, 1, MAX_FRAGMENTS, "fragments.page.count"),
    bytes: uint(bytes, "fragments.page.bytes"),
  };
}

function sums<T>(entries: readonly T[], count: (entry: T) => number, bytes: (entry: T) => number): Sums {
  const before = new Float64Array(entries.length + 1);
  const bytesBefore = new Float64Array(entries.length + 1);
  entries.forEach((entry, i) => {
    before[i + 1] = (before[i] ?? 0) + count(entry);
    bytesBefore[i + 1] = (bytesBefore[i] ?? 0) + bytes(entry);
  });
  const total = before[entries.length] ?? 0;
  const totalBytes = bytesBefore[entries.length] ?? 0;
  if (total > MAX_FRAGMENTS) throw new IndexError("fragments.count", "more than 16,777,216");
  if (!Number.isSafeInteger(totalBytes)) throw new IndexError("fragments.bytes", "too large");
  return { count: total, bytes: totalBytes, before, bytesBefore };
}

function fileTree(value: Value | undefined, fragments: FragmentList): FileList {
  const [level, count, entries] = tuple(value, 3, "files");
  const list = fileList(uint(level, "files.level"), array(entries, "files"), fragments);
  if (list.count !== uint(count, "files.count")) throw new IndexError("files.count", "is not the sum of the entries");
  return list;
}

function fileList(level: number, values: Value[], fragments: FragmentList): FileList {
  if (values.length > MAX_FILES) throw new IndexError("files.count", "more than 1,048,576");
  if (level === 0) {
    const entries = values.map((value) => file(value, fragments));
    ascending(entries.map((entry) => entry.path));
    return { level, count: entries.length, entries, names: new Set() };
  }
  const entries = values.map(pageOfFiles);
  ascending(entries.map((entry) => entry.firstPath));
  const count = entries.reduce((sum, entry) => sum + entry.count, 0);
  if (count > MAX_FILES) throw new IndexError("files.count", "more than 1,048,576");
  return { level: upper(level, entries, "files"), count, entries, names: distinct(entries, "page.id") };
}

function pageOfFiles(value: Value): PageOfFiles {
  const [name, length, count, path] = tuple(value, 4, "files.page");
  return {
    id: id(name, "files.page.id"),
    length: between(length, 1, MAX_BLOCK_BYTES, "files.page.length"),
    count: between(count, 1, MAX_FILES, "files.page.count"),
    firstPath: validPath(path, "files.page.path"),
  };
}

function file(value: Value, fragments: FragmentList): FileEntry {
  const [path, type, size, list] = tuple(value, 4, "file");
  const entry = {
    path: validPath(path, "file.path"),
    mediaType: mediaType(type),
    size: uint(size, "file.size"),
    runs: array(list, "file.runs").map((item) => run(item, fragments)),
  };
  if (entry.runs.length > MAX_RUNS) throw new IndexError("file.runs", "more than 32,768");
  const total = entry.runs.reduce((sum, { bytes }) => sum + bytes, 0);
  if (total !== entry.size) throw new IndexError("file.size", "is not the sum of the runs");
  return entry;
}

/** With a tree of fragments the bytes of a run are compared later, by `ContentIndex`, when a range of the file is read. */
function run(value: Value, fragments: FragmentList): Run {
  const [first, blocks, bytes] = tuple(value, 3, "run");
  const entry = {
    first: between(first, 1, MAX_FRAGMENTS, "run.first"),
    blocks: between(blocks, 1, MAX_FRAGMENTS, "run.blocks"),
    bytes: uint(bytes, "run.bytes"),
  };
  const after = entry.first - 1 + entry.blocks;
  if (after > fragments.count) throw new IndexError("run", "reaches past the last fragment");
  if (fragments.level === 0) {
    const held = (fragments.bytesBefore[after] ?? 0) - (fragments.bytesBefore[entry.first - 1] ?? 0);
    if (held !== entry.bytes) throw new IndexError("run.bytes", "differs from its fragments");
  }
  return entry;
}

const KINDS: readonly RenditionKind[] = ["video", "audio", "text"];
const RENDITION_KEYS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];

function renditions(value: Value | undefined): Rendition[] {
  const list = array(value, "renditions");
  if (list.length > MAX_RENDITIONS) throw new IndexError("renditions", "more than 64");
  return list.map(rendition);
}

function rendition(value: Value): Rendition {
  if (!(value instanceof Map)) throw new IndexError("rendition", "not a map");
  onlyKeys(value, RENDITION_KEYS, "rendition");
  const kind = KINDS[uint(value.get(0), "rendition.kind")];
  if (kind === undefined) throw new IndexError("rendition.kind", "not video, audio or text");
  for (const key of [5, 6, 7, 8, 9, 10]) if (value.has(key)) uint(value.get(key), `rendition.${String(key)}`);
  return {
    kind,
    name: text(value.get(1), MAX_NAME_BYTES, "rendition.name"),
    codecs: text(value.get(2), MAX_NAME_BYTES, "rendition.codecs"),
    peakBandwidth: uint(value.get(3), "rendition.peak"),
    averageBandwidth: uint(value.get(4), "rendition.average"),
    ...(value.has(5) && { width: uint(value.get(5), "rendition.width") }),
    ...(value.has(6) && { height: uint(value.get(6), "rendition.height") }),
    ...(value.has(11) && { language: text(value.get(11), MAX_LANGUAGE_BYTES, "rendition.language") }),
    playlist: validPath(value.get(12), "rendition.playlist"),
    ...(value.has(13) && { mp4: validPath(value.get(13), "rendition.mp4") }),
  };
}

function onlyKeys(map: Map<number, Value>, keys: readonly number[], field: string): void {
  for (const key of map.keys()) if (!keys.includes(key)) throw new IndexError(field, `key ${String(key)} is not known`);
}

function upper(level: number, entries: readonly unknown[], field: string): Upper {
  if (level < 1 || level > MAX_LEVEL) throw new IndexError(`${field}.level`, "above 4");
  if (entries.length === 0) throw new IndexError(field, "a list of pages is empty");
  return level as Upper;
}

function ascending(paths: readonly string[]): void {
  for (let i = 1; i < paths.length; i++) {
    if (comparePaths(paths[i - 1] ?? "", paths[i] ?? "") >= 0) throw new IndexError("files", "paths are not ascending");
  }
}

function firstPath(list: FileList): string | undefined {
  return list.level === 0 ? list.entries[0]?.path : list.entries[0]?.firstPath;
}

function lastPath(list: FileList): string | undefined {
  return list.level === 0 ? list.entries.at(-1)?.path : list.entries.at(-1)?.firstPath;
}

// eslint-disable-next-line no-control-regex -- control characters are what it refuses
const FORBIDDEN_IN_PATH = /[\u0000-\u001f\u007f-\u009f\\?#]/u;

function validPath(value: Value | undefined, field: string): string {
  const path = text(value, MAX_PATH_BYTES, field);
  const names = path.split("/");
  if (names.some((name) => name === "" || name === "." || name === "..")) throw new IndexError(field, "an empty, . or .. name");
  if (FORBIDDEN_IN_PATH.test(path)) throw new IndexError(field, "a character that paths may not have");
  return path;
}

function mediaType(value: Value | undefined): string {
  if (typeof value !== "string" || !/^[\x21-\x7e]{1,127}$/.test(value)) throw new IndexError("file.type", "not 1 to 127 visible ASCII characters");
  return value;
}

function text(value: Value | undefined, maxBytes: number, field: string): string {
  if (typeof value !== "string") throw new IndexError(field, "not text");
  if (UTF8.encode(value).length > maxBytes) throw new IndexError(field, `longer than ${String(maxBytes)} bytes`);
  return value;
}

function uint(value: Value | undefined, field: string): number {
  if (typeof value !== "number") throw new IndexError(field, "not an unsigned integer");
  return value;
}

function between(value: Value | undefined, least: number, most: number, field: string): number {
  const number = uint(value, field);
  if (number < least || number > most) throw new IndexError(field, `not from ${String(least)} to ${String(most)}`);
  return number;
}

function id(value: Value | undefined, field: string): string {
  if (!(value instanceof Uint8Array) || value.length !== 32) throw new IndexError(field, "not 32 bytes");
  return toHex(value);
}

function array(value: Value | undefined, field: string): Value[] {
  if (!Array.isArray(value)) throw new IndexError(field, "not an array");
  return value;
}

function tuple(value: Value | undefined, length: number, field: string): Value[] {
  const items = array(value, field);
  if (items.length !== length) throw new IndexError(field, `not ${String(length)} items`);
  return items;
}
