// The platform's JSON interface (docs/api.md §5), as far as the pages use it.
import { DetailedError, Upload } from "tus-js-client";

export type Visibility = "public" | "unlisted" | "owner";

export interface Problem {
  readonly type?: string;
  readonly title?: string;
  readonly detail?: string;
}

export interface ContentInfo {
  readonly id: string;
  readonly title: string;
  readonly owner: string;
  readonly visibility: Visibility;
  readonly state: "pending" | "processing" | "ready" | "published" | "rejected";
  readonly content_key: string | null;
  readonly duration_ms: number | null;
  readonly created: number;
  readonly progress?: { readonly phase: string; readonly percent: number; readonly remaining_seconds: number | null } | null;
  readonly error?: Problem | null;
}

export interface NewUpload {
  readonly id: string;
  readonly upload: { readonly url: string; readonly token: string; readonly node: string };
}

/** What the platform refused, and why. `status` is 0 when it could not be reached. */
export class ApiError extends Error {
  override name = "ApiError";
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export const signIn = (apiKey: string): Promise<null> => call("POST", "/api/session", { api_key: apiKey });
export const signOut = (): Promise<null> => call("DELETE", "/api/session");
/** The list, and who is signed in. */
export const contents = (): Promise<{ readonly contents: readonly ContentInfo[]; readonly me: string | null }> => call("GET", "/api/contents");
export const contentInfo = (content: string): Promise<ContentInfo> => call("GET", `/api/contents/${encodeURIComponent(content)}`);
export const publish = (id: string): Promise<ContentInfo> => call("POST", `/api/contents/${encodeURIComponent(id)}/publish`);
/** For good. Once more is no error. */
export const remove = (id: string): Promise<null> => call("DELETE", `/api/contents/${encodeURIComponent(id)}`);
export const createContent = (title: string, visibility: Visibility, size: number): Promise<NewUpload> =>
  call("POST", "/api/contents", { title, visibility, size });

/** Told while a file is sent: how many bytes have left, and that the connection broke and is tried again. */
export interface SendingListener {
  onProgress(sent: number): void;
  onBreak(): void;
}

// From a second to half a minute, and then for as long as the token lives: a page that is open goes on when the connection is back.
const RETRY_DELAYS_MS = [1_000, 2_000, 5_000, 10_000, 20_000, ...Array.from({ length: 2_880 }, () => 30_000)];
// Refusals that say "later" or "from another byte".
const PASSING = ["busy", "internal", "upload-incomplete", "upload-locked", "wrong-offset"].map((kind) => `urn:imira:error:${kind}`);

/** Sends the file to the node, however often the connection breaks (tus 1.0, docs/api.md §4). */
export function sendFile(upload: NewUpload["upload"], file: File, listener: SendingListener): Promise<void> {
  return new Promise((resolve, reject) => {
    const sending = new Upload(file, {
      uploadUrl: upload.url,
      headers: { Authorization: `Bearer ${upload.token}` },
      // The token is all that would be worth remembering, and it is a secret.
      storeFingerprintForResuming: false,
      retryDelays: RETRY_DELAYS_MS,
      onShouldRetry: (error) => {
        const again = mayPass(error);
        if (again) listener.onBreak();
        return again;
      },
      onProgress: (sent) => listener.onProgress(sent),
      onError: (error) => reject(refusal(error)),
      onSuccess: () => resolve(),
    });
    sending.start();
  });
}

function mayPass(error: DetailedError): boolean {
  const response = error.originalResponse;
  if (response === null) return true;
  const problem = parsed(response.getBody()) as Problem | null;
  if (problem?.type !== undefined) return PASSING.includes(problem.type);
  // A proxy's answer, or one to a HEAD, which has no text.
  return response.getStatus() >= 500 || response.getStatus() === 423;
}

function refusal(error: Error): ApiError {
  const response = error instanceof DetailedError ? error.originalResponse : null;
  if (response === null) return new ApiError(0, "The connection to the storage node broke. Choose the file again.");
  return new ApiError(response.getStatus(), messageOf(parsed(response.getBody()), response.getStatus()));
}

// Their details say all that their titles say.
const DETAIL_IS_ENOUGH = ["sign-in-required", "upload-incomplete", "upload-empty", "not-found", "wrong-state", "deleted", "invalid"];
// Words that tell one way of saying something from another, not what is said.
const FILLERS = new Set(["a", "an", "the", "this", "it", "file"]);

/** "Title: detail" of a problem object; the detail alone when the title adds nothing. */
export function messageOf(problem: unknown, status: number): string {
  const { type, title, detail } = (typeof problem === "object" && problem !== null ? problem : {}) as Problem;
  const parts = [title, detail].filter((part) => typeof part === "string" && part !== "");
  const [first, second] = parts;
  const enough = DETAIL_IS_ENOUGH.some((kind) => type === `urn:imira:error:${kind}`);
  if (first !== undefined && second !== undefined && (enough || beginsLike(second, first))) return second;
  return parts.join(": ") || `The request failed with status ${String(status)}.`;
}

/** Whether the first clause of a detail has all that its title says: "This is not a video: ..." and "The file is not a video". */
function beginsLike(detail: string, title: string): boolean {
  const said = words(detail.split(/[.:;]/)[0] ?? "");
  return words(title).every((word) => FILLERS.has(word) || said.includes(word));
}

function words(text: string): string[] {
  return text.toLowerCase().match(/[\p{L}\p{N}']+/gu) ?? [];
}

async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const init: RequestInit = { method, headers: { Accept: "application/json" } };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { Accept: "application/json", "Content-Type": "application/json" };
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new ApiError(0, "The platform does not answer. Check your connection.");
  }
  const answer = parsed(await response.text());
  if (!response.ok) throw new ApiError(response.status, messageOf(answer, response.status));
  return answer as T;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}
