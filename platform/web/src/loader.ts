// The loader through which hls.js gets every playlist, init section and segment: nothing goes to the network but blocks, and nothing
// reaches hls.js, and so the media element, before its SHA-256 was compared.

import type { HlsConfig, Loader, LoaderCallbacks, LoaderConfiguration, LoaderContext, LoaderStats } from "hls.js";
import type { Content } from "./content";
import { isAbort, PlaybackError } from "./errors";

type LoaderClass = HlsConfig["loader"];

/**
 * A loader class for the files of `content`. hls.js sees them under `prefix` (ends with a slash), so relative addresses in playlists
 * resolve; addresses anywhere else are refused. `onTrouble` hears of what no retry will mend.
 */
export function loaderFor(content: Content, prefix: string, onTrouble: (error: PlaybackError) => void): LoaderClass {
  return class VerifiedLoader implements Loader<LoaderContext> {
    context: LoaderContext | null = null;
    stats: LoaderStats = newStats();
    #controller = new AbortController();
    #callbacks: LoaderCallbacks<LoaderContext> | null = null;

    destroy(): void {
      this.#callbacks = null;
      this.#stop();
    }

    abort(): void {
      const callbacks = this.#callbacks;
      this.#callbacks = null;
      this.#stop();
      if (callbacks !== null && this.context !== null) callbacks.onAbort?.(this.stats, this.context, null);
    }

    load(context: LoaderContext, _config: LoaderConfiguration, callbacks: LoaderCallbacks<LoaderContext>): void {
      this.context = context;
      this.#callbacks = callbacks;
      this.stats.loading.start = performance.now();
      void this.#run(context);
    }

    getCacheAge(): number | null {
      return null;
    }

    getResponseHeader(): string | null {
      return null;
    }

    async #run(context: LoaderContext): Promise<void> {
      try {
        const end = context.rangeEnd === undefined || context.rangeEnd === 0 ? undefined : context.rangeEnd;
        const { bytes } = await content.read(pathIn(prefix, context.url), context.rangeStart ?? 0, end, this.#controller.signal, (loaded, total) => this.#progress(loaded, total));
        this.#succeed(context, bytes);
      } catch (error) {
        this.#fail(context, error);
      }
    }

    #progress(loaded: number, total: number): void {
      const stats = this.stats;
      if (stats.loading.first === 0) stats.loading.first = Math.max(performance.now(), stats.loading.start);
      stats.loaded = loaded;
      stats.total = total;
    }

    #succeed(context: LoaderContext, bytes: Uint8Array<ArrayBuffer>): void {
      const callbacks = this.#callbacks;
      if (callbacks === null) return;
      const stats = this.stats;
      this.#progress(bytes.length, bytes.length);
      stats.loading.end = Math.max(performance.now(), stats.loading.first);
      stats.chunkCount = 1;
      const data = context.responseType === "arraybuffer" ? bytes.buffer : new TextDecoder().decode(bytes);
      callbacks.onProgress?.(stats, context, data, null);
      callbacks.onSuccess({ url: context.url, data, code: 200 }, stats, context, null);
    }

    #fail(context: LoaderContext, error: unknown): void {
      const callbacks = this.#callbacks;
      if (callbacks === null || isAbort(error)) return;
      const trouble = error instanceof PlaybackError ? error : new PlaybackError("broken", String(error));
      onTrouble(trouble);
      callbacks.onError({ code: 0, text: trouble.message }, context, null, this.stats);
    }

    #stop(): void {
      this.stats.aborted = this.stats.loading.end === 0;
      this.#controller.abort();
    }
  };
}

/** The path of a file from its address under `prefix`. */
export function pathIn(prefix: string, url: string): string {
  if (!url.startsWith(prefix)) throw new PlaybackError("broken", `${url} lies outside the video`);
  const [path = ""] = url.slice(prefix.length).split(/[?#]/);
  return path.split("/").map(decodeURIComponent).join("/");
}

function newStats(): LoaderStats {
  return {
    aborted: false,
    loaded: 0,
    retry: 0,
    total: 0,
    chunkCount: 0,
    bwEstimate: 0,
    loading: { start: 0, first: 0, end: 0 },
    parsing: { start: 0, end: 0 },
    buffering: { start: 0, first: 0, end: 0 },
  };
}
