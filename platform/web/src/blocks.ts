import { isAbort } from "./errors";
import type { Fragment } from "./index-block";
import type { Source } from "./source";

type Progress = (bytesSoFar: number) => void;

interface Flight {
  readonly promise: Promise<Uint8Array<ArrayBuffer>>;
  readonly controller: AbortController;
  readonly watchers: Set<Progress>;
}

/**
 * Verified blocks: each is fetched once for all who ask at the same time, and the latest stay in memory, since consecutive segments of a
 * slow track may share a block.
 */
export class Blocks {
  readonly #source: Source;
  readonly #capacityBytes: number;
  readonly #kept = new Map<string, Uint8Array<ArrayBuffer>>();
  readonly #flights = new Map<string, Flight>();
  #keptBytes = 0;

  constructor(source: Source, capacityBytes: number) {
    this.#source = source;
    this.#capacityBytes = capacityBytes;
  }

  /** The caller must not write into what it gets. */
  async get(fragment: Fragment, signal: AbortSignal, onProgress: Progress): Promise<Uint8Array<ArrayBuffer>> {
    signal.throwIfAborted();
    const kept = this.#kept.get(fragment.id);
    if (kept !== undefined) {
      this.#keep(fragment.id, kept);
      onProgress(kept.length);
      return kept;
    }
    const flight = this.#flights.get(fragment.id) ?? this.#start(fragment);
    flight.watchers.add(onProgress);
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        flight.watchers.delete(onProgress);
        if (flight.watchers.size === 0) {
          this.#drop(fragment.id, flight);
          flight.controller.abort();
        }
        reject(new DOMException("aborted", "AbortError"));
      };
      signal.addEventListener("abort", leave, { once: true });
      flight.promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", leave));
    });
  }

  #start(fragment: Fragment): Flight {
    const controller = new AbortController();
    const watchers = new Set<Progress>();
    const report: Progress = (bytes) => watchers.forEach((watcher) => watcher(bytes));
    const promise = this.#source.get({ kind: "blocks", id: fragment.id, length: fragment.length }, controller.signal, report);
    const flight: Flight = { promise, controller, watchers };
    this.#flights.set(fragment.id, flight);
    promise.then(
      (bytes) => {
        this.#drop(fragment.id, flight);
        this.#keep(fragment.id, bytes);
      },
      (error: unknown) => {
        this.#drop(fragment.id, flight);
        if (!isAbort(error)) console.info(`block ${fragment.id}:`, error);
      },
    );
    return flight;
  }

  #drop(id: string, flight: Flight): void {
    if (this.#flights.get(id) === flight) this.#flights.delete(id);
  }

  /** Puts the block at the young end and drops the oldest beyond the capacity. */
  #keep(id: string, bytes: Uint8Array<ArrayBuffer>): void {
    if (!this.#kept.delete(id)) this.#keptBytes += bytes.length;
    this.#kept.set(id, bytes);
    for (const [oldest, block] of this.#kept) {
      if (this.#keptBytes <= this.#capacityBytes) return;
      this.#kept.delete(oldest);
      this.#keptBytes -= block.length;
    }
  }
}
