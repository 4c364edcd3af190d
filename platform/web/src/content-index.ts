import {
  comparePaths,
  decodeFilePage,
  decodeFragmentPage,
  IndexError,
  namedOnce,
  type FileEntry,
  type FileList,
  type Fragment,
  type FragmentList,
  type IndexBlock,
} from "./index-block";

/** A piece of a file: bytes `from..to` of the fragment. */
export interface Part {
  readonly fragment: Fragment;
  readonly from: number;
  readonly to: number;
}

/** Returns the page's bytes after comparing their SHA-256 with `id`. */
export type FetchPage = (id: string, length: number, signal: AbortSignal) => Promise<Uint8Array>;

// A page lists about 25,000 fragments; eight of them cover any seek in a film, and a reader that comes back fetches again.
const MAX_CACHED_PAGES = 32;

/** Finds files and byte ranges in an index of any depth; fetches only the pages on the way. */
export class ContentIndex {
  readonly block: IndexBlock;
  readonly #fetchPage: FetchPage;
  readonly #pages = new Map<string, FragmentList | FileList>();

  constructor(block: IndexBlock, fetchPage: FetchPage) {
    this.block = block;
    this.#fetchPage = fetchPage;
  }

  async file(path: string, signal: AbortSignal): Promise<FileEntry | null> {
    let list = this.block.files;
    let until: string | null = null;
    while (list.level !== 0) {
      const i = list.entries.findLastIndex((page) => comparePaths(page.firstPath, path) <= 0);
      const page = list.entries[i];
      if (page === undefined) return null;
      const level = list.level - 1;
      until = list.entries[i + 1]?.firstPath ?? until;
      const end = until;
      list = await this.#page(`files ${String(level)} ${JSON.stringify(page)}`, page, signal, (bytes) => decodeFilePage(bytes, level, page, end, this.block.fragments));
    }
    return list.entries.find((entry) => entry.path === path) ?? null;
  }

  /** The parts that hold bytes `start..end` of the file, in order: exactly the fragments that the range overlaps. */
  async parts(file: FileEntry, start: number, end: number, signal: AbortSignal): Promise<Part[]> {
    if (start < 0 || end > file.size || start > end) throw new RangeError(`bytes ${String(start)}..${String(end)} of ${file.path}: it has ${String(file.size)}`);
    const parts: Part[] = [];
    let at = 0;
    for (const run of file.runs) {
      const from = Math.max(start - at, 0);
      const to = Math.min(end - at, run.bytes);
      at += run.bytes;
      if (from >= to) continue;
      const before = await this.#bytesBefore(run.first - 1, signal);
      const after = await this.#bytesBefore(run.first - 1 + run.blocks, signal);
      if (after - before !== run.bytes) throw new IndexError("run.bytes", "differs from its fragments");
      await this.#overlap(this.block.fragments, before + from, before + to, parts, signal);
    }
    return parts;
  }

  /** Bytes of the first `count` fragments: down the tree by count. */
  async #bytesBefore(count: number, signal: AbortSignal): Promise<number> {
    let list = this.block.fragments;
    let left = count;
    let bytes = 0;
    for (;;) {
      const i = lastAtMost(list.before, left);
      bytes += list.bytesBefore[i] ?? 0;
      left -= list.before[i] ?? 0;
      if (left === 0 || list.level === 0) return bytes;
      list = await this.#fragmentPage(list, i, signal);
    }
  }

  /** Down the tree by bytes. `from` and `to` are counted from the start of `list`. */
  async #overlap(list: FragmentList, from: number, to: number, parts: Part[], signal: AbortSignal): Promise<void> {
    for (let i = lastAtMost(list.bytesBefore, from); i < list.entries.length; i++) {
      const begin = list.bytesBefore[i] ?? 0;
      if (begin >= to) return;
      const [low, high] = [Math.max(from - begin, 0), Math.min(to, list.bytesBefore[i + 1] ?? 0) - begin];
      if (list.level === 0) {
        const fragment = list.entries[i];
        if (fragment !== undefined) parts.push({ fragment, from: low, to: high });
      } else {
        await this.#overlap(await this.#fragmentPage(list, i, signal), low, high, parts, signal);
      }
    }
  }

  #fragmentPage(list: FragmentList, i: number, signal: AbortSignal): Promise<FragmentList> {
    const page = list.level === 0 ? undefined : list.entries[i];
    if (page === undefined) throw new IndexError("fragments", "reaches past the last page");
    const level = list.level - 1;
    return this.#page(`fragments ${String(level)} ${JSON.stringify(page)}`, page, signal, (bytes) => decodeFragmentPage(bytes, level, page));
  }

  async #page<T extends FragmentList | FileList>(
    key: string,
    page: { id: string; length: number },
    signal: AbortSignal,
    decodePage: (bytes: Uint8Array) => T,
  ): Promise<T> {
    const known = this.#pages.get(key) as T | undefined;
    if (known !== undefined) return known;
    const decoded = decodePage(await this.#fetchPage(page.id, page.length, signal));
    // Among what is in memory; a film of some hours is that as a whole.
    for (const other of [this.block.fragments, this.block.files]) namedOnce(decoded, other);
    for (const [place, other] of this.#pages) if (place !== key) namedOnce(decoded, other);
    if (this.#pages.size >= MAX_CACHED_PAGES) this.#pages.delete(this.#pages.keys().next().value ?? "");
    this.#pages.set(key, decoded);
    return decoded;
  }
}

/** The last i with `sums[i] <= value`; `sums` ascends and starts with 0. */
function lastAtMost(sums: Float64Array, value: number): number {
  let low = 0;
  let high = sums.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((sums[middle] ?? 0) <= value) low = middle;
    else high = middle;
  }
  return low;
}
