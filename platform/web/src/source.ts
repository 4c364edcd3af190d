// Where verified bytes come from. The platform answers `/play/{content}/...` with the temporary URL of a node, `http://node/v1/t/<token>/...`,
// and the node's name; the base of that URL then serves blocks until the token is nearly spent, and the next request goes through the platform
// again. Nothing that a node says names a node: one that sends bytes with the wrong SHA-256 would name another. It is left out from then on.

import { isAbort, PlaybackError, type Trouble } from "./errors";
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

// How long a token lives (docs/api.md §2). A node that claims more is not believed.
const TOKEN_LIFE_MS = 30_000;
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
// The list travels in a query string, of which the platform reads as many; a network with more liars than this is past saving.
const MAX_AVOIDED = 64;
const MAX_BASES_KEPT = 16;
const MAX_INDEX_BYTES = 1_048_576;
// Addresses and problem objects; a node that lies may send any length.
const MAX_JSON_BYTES = 16_384;

/** A temporary URL up to and including the token, and the node that the platform says it leads to. */
interface Base {
  readonly url: string;
  readonly node: string;
  readonly issuedAtMs: number;
  /** When to take another; known for sure once the node has answered. */
  spentAtMs: number;
  /** Whether it ever served: if not, a refusal of the token is the node's fault. */
  served: boolean;
}

type Bytes = Uint8Array<ArrayBuffer>;
type Progress = (bytesSoFar: number) => void;

/** An answer that is worth another attempt, after a pause. */
class Failure extends Error {
  readonly trouble: Trouble;
  constructor(trouble: Trouble, detail: string) {
    super(detail);
    this.trouble = trouble;
  }
}
/** The platform has no node to offer beyond those that lied. */
class NoNode extends Failure {}
/** The token ran out or was forgotten while it was in use: worth another attempt at once. */
class TokenSpent extends Error {}

// What a node gets to know of the viewer is what it is asked for. A redirect would lead to an address that the platform did not name.
const NODE_REQUEST: RequestInit = { redirect: "error", credentials: "omit", referrerPolicy: "no-referrer", cache: "no-store" };
const PLATFORM_REQUEST: RequestInit = { redirect: "error", cache: "no-store", headers: { Accept: "application/json" } };

export class Source {
  readonly #options: Required<SourceOptions>;
  #base: Base | null = null;
  #renewal: Promise<Base> | null = null;
  /** Why the base that comes next is taken. */
  #reason: "renewal" | "switch" = "renewal";
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
  async get(wanted: Wanted, signal: AbortSignal, onProgress: Progress = () => undefined): Promise<Bytes> {
    let refused = 0;
    let refusalsOfPlatform = 0;
    let last = new Failure("no-node", "the tokens were refused");
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      try {
        const base = await this.#ready(wanted, signal);
        const bytes = await this.#direct(base, wanted, signal, onProgress);
        if (await this.#fits(wanted, bytes)) {
          this.#verified += 1;
          this.#options.onChange();
          return bytes;
        }
        refused += 1;
        this.#refuse(base);
        continue;
      } catch (error) {
        if (error instanceof TokenSpent) continue;
        if (!(error instanceof Failure)) throw error;
        last = error;
        // Where only liars are left, their bytes are the reason, whoever they were sent to.
        if (error instanceof NoNode && ++refusalsOfPlatform >= MAX_REFUSALS_OF_PLATFORM && this.#liars.size > 0) break;
      }
      if (attempt + 1 < MAX_ATTEMPTS) await this.#pause(attempt, signal);
    }
    const what = `${wanted.kind} ${wanted.id}`;
    if (refused > 0 || (last instanceof NoNode && this.#liars.size > 0)) {
      throw new PlaybackError("tampered", `${what}: ${refused > 0 ? `${String(refused)} copies were refused` : "only nodes are left whose bytes were refused before"}`);
    }
    throw new PlaybackError(last.trouble, `${what}: ${last.message}`);
  }

  async #fits(wanted: Wanted, bytes: Bytes): Promise<boolean> {
    if (wanted.length !== null && bytes.length !== wanted.length) return false;
    return (await this.#options.hasher.hex(bytes)) === wanted.id;
  }

  #refuse({ node }: Base): void {
    this.#refused += 1;
    if (this.#liars.size >= MAX_AVOIDED) this.#liars.delete(this.#liars.values().next().value ?? "");
    this.#liars.add(node);
    if (this.#base?.node === node) {
      this.#base = null;
      this.#reason = "switch";
    }
    this.#options.onChange();
  }

  /** The base in use, or a new one, for which all who want one wait together. */
  #ready(wanted: Wanted, signal: AbortSignal): Base | Promise<Base> {
    signal.throwIfAborted();
    const base = this.#base;
    if (base !== null && this.#options.nowMs() < base.spentAtMs) return base;
    // Not bound to the signal of one of them: when that one leaves, the others still want it.
    this.#renewal ??= this.#renew(wanted).finally(() => (this.#renewal = null));
    return abortable(this.#renewal, signal);
  }

  async #renew(wanted: Wanted): Promise<Base> {
    try {
      return await this.#offered(wanted);
    } catch (error) {
      if (!(error instanceof NoNode) || this.#failing.size === 0) throw error;
      // Everybody is left out: those that failed may be well again.
      this.#failing.clear();
      return this.#offered(wanted);
    }
  }

  async #offered(wanted: Wanted): Promise<Base> {
    const issuedAtMs = this.#options.nowMs();
    const { url, node } = await this.#askPlatform(wanted);
    // The platform was asked before the node lied, or it does not heed `avoid`.
    if (this.#liars.has(node)) throw new NoNode("no-node", `only ${node} is offered`);
    const base = { url, node, issuedAtMs, spentAtMs: issuedAtMs + TOKEN_LIFE_MS - RENEW_BEFORE_MS, served: false };
    this.#adopt(base);
    return base;
  }

  async #askPlatform(wanted: Wanted): Promise<{ url: string; node: string }> {
    const query = this.#avoided().map((node) => `avoid=${encodeURIComponent(node)}`).join("&");
    const address = `${this.#options.platform}/play/${encodeURIComponent(this.#options.content)}/${pathOf(wanted)}${query && `?${query}`}`;
    const attempt = new Attempt();
    try {
      const response = await attempt.response(this.#options.fetch(address, { ...PLATFORM_REQUEST, signal: attempt.signal }));
      const answer = await attempt.json(response);
      if (!response.ok) throw refusal(response.status, answer);
      const url = typeof answer["url"] === "string" ? temporaryBase(answer["url"]) : null;
      const node = answer["node"];
      if (url === null || typeof node !== "string" || node === "") throw new Failure("platform", "the platform's answer names no node and temporary URL");
      return { url, node };
    } catch (error) {
      if (error instanceof Failure || error instanceof PlaybackError) throw error;
      throw new Failure("platform", `the platform does not answer: ${messageOf(error)}`);
    } finally {
      attempt.end();
    }
  }

  #adopt(base: Base): void {
    this.#base = base;
    if (this.#firstBase === null) {
      this.#firstBase = base.url;
    } else {
      if (this.#reason === "switch") this.#switches += 1;
      else this.#renewals += 1;
      this.#laterBases = [...this.#laterBases, base.url].slice(1 - MAX_BASES_KEPT);
    }
    this.#reason = "renewal";
    this.#options.onChange();
  }

  /** Drops a base that did not serve, so that the next step is the platform. */
  async #direct(base: Base, wanted: Wanted, signal: AbortSignal, onProgress: Progress): Promise<Bytes> {
    const attempt = new Attempt(signal);
    try {
      const response = await attempt.response(this.#options.fetch(base.url + pathOf(wanted), { ...NODE_REQUEST, signal: attempt.signal }));
      if (!response.ok) {
        // 401 and 403 speak of the token, unless it is a fresh one. All else speaks of the node, 404 too: no single node says what exists.
        if (base.served && (response.status === 401 || response.status === 403)) throw new TokenSpent();
        throw new Error(textOf(await attempt.json(response), response.status));
      }
      this.#learnLife(base, response.headers.get("Imira-Token-Remaining"));
      const bytes = await attempt.body(response, wanted.length ?? MAX_INDEX_BYTES, onProgress);
      base.served = true;
      return bytes;
    } catch (error) {
      signal.throwIfAborted();
      if (this.#base === base) this.#base = null;
      if (error instanceof TokenSpent) throw error;
      this.#failing.set(base.node, this.#options.nowMs() + FAILING_MS);
      throw new Failure("no-node", `node ${base.node}: ${messageOf(error)}`);
    } finally {
      attempt.end();
    }
  }

  /** From the first answer with a base; what is absent or absurd changes nothing. */
  #learnLife(base: Base, remaining: string | null): void {
    if (base.served || remaining === null || !/^\d{1,2}$/.test(remaining)) return;
    const now = this.#options.nowMs();
    const lifeMs = Math.min(1_000 * Number(remaining), base.issuedAtMs + TOKEN_LIFE_MS - now);
    base.spentAtMs = now + lifeMs - Math.min(RENEW_BEFORE_MS, lifeMs * RENEW_BEFORE_SHARE);
  }

  /** Those that lied first, then those that failed lately. */
  #avoided(): string[] {
    const now = this.#options.nowMs();
    for (const [node, until] of this.#failing) if (until <= now) this.#failing.delete(node);
    return [...new Set([...this.#liars, ...this.#failing.keys()])].slice(0, MAX_AVOIDED);
  }

  async #pause(attempt: number, signal: AbortSignal): Promise<void> {
    await abortable(this.#options.sleep(Math.min(FIRST_PAUSE_MS * 2 ** attempt, LONGEST_PAUSE_MS)), signal);
  }
}

/** What the platform's refusal means: 404 and 410 are final, and so is not being let in; the rest may change. */
function refusal(status: number, problem: Record<string, unknown>): Error {
  const text = textOf(problem, status);
  if (status === 404 || status === 410 || status === 401 || status === 403) return new PlaybackError("not-found", text);
  if (problem["type"] === "urn:imira:error:no-node") return new NoNode("no-node", "The platform knows of no node that may serve this now.");
  return new Failure(status === 503 ? "no-node" : "platform", text);
}

/** One request: ends with the caller's signal, or when nothing arrives for `STALL_MS`. */
class Attempt {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal | null;
  readonly #cancel = (): void => this.#controller.abort();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(outer: AbortSignal | null = null) {
    outer?.throwIfAborted();
    this.#outer = outer;
    outer?.addEventListener("abort", this.#cancel);
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

  /** Little more than `limit` bytes: a longer body cannot fit, so the rest of it is not read. */
  async body(response: Response, limit: number, onProgress: Progress): Promise<Bytes> {
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

  /** The object in the body; an empty one where there is none. */
  async json(response: Response): Promise<Record<string, unknown>> {
    try {
      const value = JSON.parse(new TextDecoder().decode(await this.body(response, MAX_JSON_BYTES, () => undefined))) as unknown;
      return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
    } catch (error) {
      if (error instanceof SyntaxError) return {};
      throw error;
    }
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#outer?.removeEventListener("abort", this.#cancel);
  }

  #alive(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#cancel, STALL_MS);
  }

  async #named<T>(pending: Promise<T>): Promise<T> {
    try {
      return await pending;
    } catch (error) {
      if (isAbort(error) && this.#outer?.aborted !== true) throw new Error(`nothing arrived for ${String(STALL_MS / 1_000)} s`, { cause: error });
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

function textOf({ title, detail }: Record<string, unknown>, status: number): string {
  return [title, detail].filter((part) => typeof part === "string" && part !== "").join(": ") || `status ${String(status)}`;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
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

/** Waits, but no longer than until the signal. */
function abortable<T>(pending: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason instanceof Error ? signal.reason : new DOMException("aborted", "AbortError"));
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    pending.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
