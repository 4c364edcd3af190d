import { Blocks } from "./blocks";
import { ContentIndex, type Part } from "./content-index";
import { PlaybackError } from "./errors";
import { decodeIndex } from "./index-block";
import type { Source } from "./source";

// One block in use, one on its way and one asked for keep the line busy without crowding out the other track.
const PARALLEL_BLOCKS = 3;
const CACHE_BYTES = 16 * 1_048_576;

export interface FileBytes {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly mediaType: string;
}

/** The files of a content, put together from verified blocks. */
export class Content {
  readonly index: ContentIndex;
  readonly #blocks: Blocks;

  /** Fetches the index block, whose SHA-256 must be the content key. */
  static async open(source: Source, contentKey: string, signal: AbortSignal): Promise<Content> {
    const bytes = await source.get({ kind: "index", id: contentKey, length: null }, signal);
    const block = decodeIndex(bytes);
    const index = new ContentIndex(block, (id, length, pageSignal) => source.get({ kind: "pages", id, length }, pageSignal));
    return new Content(index, new Blocks(source, CACHE_BYTES));
  }

  private constructor(index: ContentIndex, blocks: Blocks) {
    this.index = index;
    this.#blocks = blocks;
  }

  /** Bytes `start..end` (to the end of the file when `end` is undefined); `onProgress` is told the bytes so far and the total. */
  async read(
    path: string,
    start: number,
    end: number | undefined,
    signal: AbortSignal,
    onProgress: (loaded: number, total: number) => void,
  ): Promise<FileBytes> {
    const file = await this.index.file(path, signal);
    if (file === null) throw new PlaybackError("broken", `${path} is not in the index`);
    const parts = await this.index.parts(file, start, Math.min(end ?? file.size, file.size), signal);
    return { bytes: await this.#join(parts, signal, onProgress), mediaType: file.mediaType };
  }

  async #join(parts: readonly Part[], signal: AbortSignal, onProgress: (loaded: number, total: number) => void): Promise<Uint8Array<ArrayBuffer>> {
    const total = parts.reduce((sum, part) => sum + part.to - part.from, 0);
    const bytes = new Uint8Array(total);
    const loaded = new Float64Array(parts.length);
    let next = 0;
    let at = 0;
    const work = async (): Promise<void> => {
      for (;;) {
        const i = next++;
        const part = parts[i];
        if (part === undefined) return;
        const offset = at;
        at += part.to - part.from;
        const block = await this.#blocks.get(part.fragment, signal, (soFar) => {
          loaded[i] = Math.min(soFar, part.to - part.from);
          onProgress(loaded.reduce((sum, n) => sum + n, 0), total);
        });
        bytes.set(block.subarray(part.from, part.to), offset);
      }
    };
    await Promise.all(Array.from({ length: PARALLEL_BLOCKS }, work));
    return bytes;
  }
}
