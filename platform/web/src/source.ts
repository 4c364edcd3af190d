// Where verified bytes come from. The platform redirects `/play/{content}/...` to a node's temporary URL, `http://node/v1/t/<token>/...`;
// the base of that URL then serves further blocks until the token is nearly spent, and the next request goes through the platform again.
// A node that sends bytes with the wrong SHA-256 is left out from then on, and another is asked.

import { isAbort, PlaybackError } from "./errors";
import type { Hasher } from "./sha256";

export type Kind = "index" | "pages" | "blocks";

/** What is asked for. `length` is null where nobody has said it yet: for the index block. */
export interface Wanted {
  readonly kind: Kind;
  readonly id: string;
  readonly length: number | null;
}

export interface SourceStats {
  readonly blocksVerified: number;
  readonly blocksRefused: number;
  /** Temporary URLs taken because the one before ran out or stopped working. */
  readonly renewals: number;
  /** Temporary URLs taken because a node's bytes were refused. */
  readonly switches: number;
  readonly node: string | null;
  /** The first temporary base and the latest ones, oldest first. */
  readonly tokens: readonly string[];
}

export interface SourceOptions {
  /** As in the address of the page: content key or publication id. */
  readonly content: string;
  readonly hasher: Hasher;
  /** Origin of the platform, without a slash at the end. */
  readonly platform: string;
  readonly fetch?: typeof fetch;
  readonly nowMs?: () => number;
  readonly sleep?: (ms: number) => Promise<void>;
  readonly onChange?: () => void;
}

// Fewer seconds than this are not worth a new request: a block of 1 MiB takes 4 s at 2 Mbit/s (guess).
const RENEW_BEFORE_MS = 6_000;
// A token that never had three times that (a test's, say) is used for two thirds of its life.
const RENEW_BEFORE_SHARE = 1 / 3;
const MAX_ATTEMPTS = 6;
// With bytes refused and nobody else offered, two more questions: another holder may be restarting.
const MAX_REFUSALS_OF_PLATFORM = 3;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 4_000;
// No header or no further byte for this long: the node is stuck, ask another (guess).
const STALL_MS = 8_000;
// A node that failed (not lied) is left out for this long.
const FAILING_MS = 30_000;
// The list travels in a query string, and a network with more liars than this is past saving.
const MAX_AVOIDED = 16;
const MAX_BASES_KEPT = 16;
const MAX_INDEX_BYTES = 1_048_576;

interface Base {
  readonly url: string;
  readonly node: string | null;
  readonly spentAtMs: number;
}

interface Reply {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly node: string | null;
}

type Progress = (bytesSoFar: number) => void;
type RenewalReason = "renewal" | "switch";

/** An answer that is worth another attempt, after a pause. */
class Failure extends Error {}
/** The platform has no node to offer (beyond those to be avoided). */
class NoNode extends Error {}

export class Source {
  readonly #options: Required<SourceOptions>;
  #base: Base | null = null;
  #renewal: Promise<void> | null = null;
  readonly #liars = new Set<string>();
  readonly #failing = new Map<string, number>();
  #verified = 0;
  #refused = 0;
  #renewals = 0;
  #switches = 0;
  #firstBase: string | null = null;
  #laterBases: string[] = [];

  constructor(options: SourceOptions) {
    this.#options = {
      fetch: (input, init) => fetch(input, init),
      nowMs: () => performance.now(),
      sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
      onChange: () => undefined,
      ...options,
    };
  }

  get stats(): SourceStats {
    return {
      blocksVerified: this.#verified,
      blocksRefused: this.#refused,
      renewals: this.#renewals,
      switches: this.#switches,
      node: this.#base?.node ?? null,
      tokens: this.#firstBase === null ? [] : [this.#firstBase, ...this.#laterBases],
    };
  }

  /** The bytes whose SHA-256 is `wanted.id`. Throws `PlaybackError` when no node has them, or `AbortError`. */
  async get(wanted: Wanted, signal: AbortSignal, onProgress: Progress = () => undefined): Promise<Uint8Array<ArrayBuffer>> {
    const lied = new Set<string>();
    let refused = 0;
    let refusalsOfPlatform = 0;
    let last = "";
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      try {
        const reply = await this.#ask(wanted, lied, refusalsOfPlatform > 0, signal, onProgress);
        // The temporary URL had stopped working and is forgotten: the next attempt gets another.
        if (reply === null) continue;
        if (await this.#fits(wanted, reply.bytes)) {
          this.#verified += 1;
          this.#options.onChange();
          return reply.bytes;
        }
        refused += 1;
        this.#refuse(reply.node, lied);
        continue;
      } catch (error) {
        if (error instanceof NoNode && ++refusalsOfPlatform >= MAX_REFUSALS_OF_PLATFORM && refused > 0) break;
        if (!(error instanceof Failure || error instanceof NoNode)) throw error;
        last = error.message;
      }
      if (attempt + 1 < MAX_ATTEMPTS) await this.#pause(attempt, signal);
    }
    if (refused > 0) throw new PlaybackError("tampered", `${wanted.kind} ${wanted.id}: ${String(refused)} copies were refused`);
    throw new PlaybackError("no-node", `${wanted.kind} ${wanted.id}: ${last}`);
  }

  async #fits(wanted: Wanted, bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
    if (wanted.length !== null && bytes.length !== wanted.length) return false;
    return (await this.#options.hasher.hex(bytes)) === wanted.id;
  }

  #refuse(node: string | null, lied: Set<string>): void {
    this.#refused += 1;
    if (node !== null) {
      lied.add(node);
      addBounded(this.#liars, node);
    }
    // Without a name the node cannot be left out, but its token need not be used again.
    if (this.#base !== null && this.#base.node === node) this.#base = null;
    this.#options.onChange();
  }

  async #ask(wanted: Wanted, lied: ReadonlySet<string>, onlyLiedAvoided: boolean, signal: AbortSignal, onProgress: Progress): Promise<Reply | null> {
    const reason: RenewalReason = lied.size > 0 ? "switch" : "renewal";
    // Whoever waited here finds the new base in place, or becomes the one who asks.
    while (this.#usable(lied) === null && this.#renewal !== null) await abortable(this.#renewal, signal);
    const base = this.#usable(lied);
    if (base !== null) return this.#direct(base, wanted, signal, onProgress);
    return this.#throughPlatform(wanted, onlyLiedAvoided ? lied : this.#avoided(lied), reason, signal, onProgress);
  }

  #usable(lied: ReadonlySet<string>): Base | null {
    const base = this.#base;
    if (base === null || this.#options.nowMs() >= base.spentAtMs) return null;
    return base.node !== null && lied.has(base.node) ? null : base;
  }

  /** Null when the base did not serve, and has been dropped so that the next step is the platform. */
  async #direct(base: Base, wanted: Wanted, signal: AbortSignal, onProgress: Progress): Promise<Reply | null> {
    const attempt = new Attempt(signal);
    try {
      const response = await attempt.response(this.#options.fetch(base.url + pathOf(wanted), { signal: attempt.signal }));
      if (response.ok) return { bytes: await attempt.body(response, wanted, onProgress), node: base.node };
      // 401 and 403 speak of the token; anything else of the node.
      if (response.status !== 401 && response.status !== 403) this.#fail(base.node);
    } catch (error) {
      if (signal.aborted) throw error;
      this.#fail(base.node);
    } finally {
      attempt.end();
    }
    if (this.#base === base) this.#base = null;
    return null;
  }

  async #throughPlatform(wanted: Wanted, avoid: Iterable<string>, reason: RenewalReason, signal: AbortSignal, onProgress: Progress): Promise<Reply> {
    const query = [...avoid].map((node) => `avoid=${encodeURIComponent(node)}`).join("&");
    const url = `${this.#options.platform}/play/${encodeURIComponent(this.#options.content)}/${pathOf(wanted)}${query && `?${query}`}`;
    const attempt = new Attempt(signal);
    let settle: () => void = () => undefined;
    const renewal = new Promise<void>((resolve) => (settle = resolve));
    this.#renewal = renewal;
    const settled = (): void => {
      if (this.#renewal === renewal) this.#renewal = null;
      settle();
    };
    let node: string | null = null;
    try {
      const response = await attempt.response(this.#options.fetch(url, { signal: attempt.signal }));
      node = response.headers.get("Imira-Node");
      const base = temporaryBase(response.url);
      if (!response.ok) await this.#refusedByStatus(response, base, node);
      if (base !== null) this.#adopt(base, node, response.headers.get("Imira-Token-Remaining"), reason);
      settled();
      return { bytes: await attempt.body(response, wanted, onProgress), node };
    } catch (error) {
      if (signal.aborted || error instanceof PlaybackError || error instanceof NoNode) throw error;
      this.#fail(node);
      throw new Failure(error instanceof Error ? error.message : String(error));
    } finally {
      settled();
      attempt.end();
    }
  }

  async #refusedByStatus(response: Response, base: string | null, node: string | null): Promise<never> {
    const problem = await problemOf(response);
    if (base !== null || (node !== null && response.status !== 404)) throw new Failure(`node ${node ?? "?"}: ${problem}`);
    if (response.status === 404 || response.status === 401 || response.status === 403) throw new PlaybackError("not-found", problem);
    if (response.status === 503) throw new NoNode(problem);
    throw new Failure(problem);
  }

  #adopt(url: string, node: string | null, remaining: string | null, reason: RenewalReason): void {
    const lifeMs = 1_000 * (Number(remaining) || 0);
    const spareMs = Math.min(RENEW_BEFORE_MS, lifeMs * RENEW_BEFORE_SHARE);
    this.#base = { url, node, spentAtMs: this.#options.nowMs() + lifeMs - spareMs };
    if (this.#firstBase === null) {
      this.#firstBase = url;
    } else {
      if (reason === "switch") this.#switches += 1;
      else this.#renewals += 1;
      this.#laterBases = [...this.#laterBases, url].slice(1 - MAX_BASES_KEPT);
    }
    this.#options.onChange();
  }

  #fail(node: string | null): void {
    if (node === null) return;
    this.#failing.set(node, this.#options.nowMs() + FAILING_MS);
    if (this.#base?.node === node) this.#base = null;
  }

  /** Those that lied about this block first, then other liars, then those that failed lately. */
  #avoided(lied: ReadonlySet<string>): string[] {
    const now = this.#options.nowMs();
    for (const [node, until] of this.#failing) if (until <= now) this.#failing.delete(node);
    return [...new Set([...lied, ...this.#liars, ...this.#failing.keys()])].slice(0, MAX_AVOIDED);
  }

  async #pause(attempt: number, signal: AbortSignal): Promise<void> {
    await abortable(this.#options.sleep(Math.min(FIRST_PAUSE_MS * 2 ** attempt, LONGEST_PAUSE_MS)), signal);
  }
}

/** One request: ends with the caller's signal, or when nothing arrives for `STALL_MS`. */
class Attempt {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal;
  readonly #cancel = (): void => this.#controller.abort();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(outer: AbortSignal) {
    outer.throwIfAborted();
    this.#outer = outer;
    outer.addEventListener("abort", this.#cancel);
    this.#alive();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  async response(pending: Promise<Response>): Promise<Response> {
    const response = await this.#named(pending);
    this.#alive();
    return response;
  }

  /** At most the length that was announced: a longer body cannot fit, so the rest of it is not read. */
  async body(response: Response, wanted: Wanted, onProgress: Progress): Promise<Uint8Array<ArrayBuffer>> {
    const limit = wanted.length ?? MAX_INDEX_BYTES;
    const chunks: Uint8Array[] = [];
    let total = 0;
    const reader = response.body?.getReader();
    while (reader !== undefined && total <= limit) {
      const { done, value } = await this.#named(reader.read());
      if (done) break;
      this.#alive();
      chunks.push(value);
      total += value.length;
      onProgress(Math.min(total, limit));
    }
    if (total > limit) this.#controller.abort();
    return joined(chunks, total);
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener("abort", this.#cancel);
  }

  #alive(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#cancel, STALL_MS);
  }

  async #named<T>(pending: Promise<T>): Promise<T> {
    try {
      return await pending;
    } catch (error) {
      if (isAbort(error) && !this.#outer.aborted) throw new Error(`nothing arrived for ${String(STALL_MS / 1_000)} s`, { cause: error });
      throw error;
    }
  }
}

function pathOf(wanted: Wanted): string {
  return wanted.kind === "index" ? "index" : `${wanted.kind}/${wanted.id}`;
}

/** Everything up to and including `/v1/t/<token>/`, or null for an address that is not a temporary URL. */
export function temporaryBase(url: string): string | null {
  return /^https?:\/\/[^/?#]+(?:\/[^?#]*)?\/v1\/t\/[^/?#]+\//.exec(url)?.[0] ?? null;
}

async function problemOf(response: Response): Promise<string> {
  try {
    const { title, detail } = (await response.json()) as { title?: unknown; detail?: unknown };
    return [title, detail].filter((part) => typeof part === "string").join(": ") || `status ${String(response.status)}`;
  } catch (error) {
    if (isAbort(error)) throw error;
    return `status ${String(response.status)}`;
  }
}

function joined(chunks: readonly Uint8Array[], total: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(total);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

function addBounded(set: Set<string>, item: string): void {
  if (set.size >= MAX_AVOIDED) set.delete(set.values().next().value ?? "");
  set.add(item);
}

/** Waits, but no longer than until the signal. */
function abortable<T>(pending: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason instanceof Error ? signal.reason : new DOMException("aborted", "AbortError"));
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    pending.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
