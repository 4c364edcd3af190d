// The platform's JSON interface (docs/api.md §5), as far as the pages use it.

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
export const contents = async (): Promise<readonly ContentInfo[]> => (await call<{ contents: ContentInfo[] }>("GET", "/api/contents")).contents;
export const contentInfo = (content: string): Promise<ContentInfo> => call("GET", `/api/contents/${encodeURIComponent(content)}`);
export const publish = (id: string): Promise<ContentInfo> => call("POST", `/api/contents/${encodeURIComponent(id)}/publish`);
export const createContent = (title: string, visibility: Visibility, size: number): Promise<NewUpload> =>
  call("POST", "/api/contents", { title, visibility, size });

/** The name of the signed-in user, or null. */
export async function whoAmI(): Promise<string | null> {
  try {
    return (await call<{ name: string }>("GET", "/api/me")).name;
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) return null;
    throw error;
  }
}

/** Sends the file to the node; `onProgress` gets the bytes that have left. */
export function sendFile(upload: NewUpload["upload"], file: File, onProgress: (sent: number) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", upload.url);
    request.setRequestHeader("Authorization", `Bearer ${upload.token}`);
    request.upload.onprogress = (event) => onProgress(event.loaded);
    request.onerror = () => reject(new ApiError(0, "The connection to the storage node broke. Choose the file again."));
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) resolve();
      else reject(new ApiError(request.status, messageOf(parsed(request.responseText), request.status)));
    };
    // Without a type of its own the body needs no Content-Type header, one less for CORS to allow.
    request.send(file.slice(0, file.size, ""));
  });
}

/** "Title: detail" of a problem object. */
export function messageOf(problem: unknown, status: number): string {
  const { title, detail } = (typeof problem === "object" && problem !== null ? problem : {}) as Problem;
  return [title, detail].filter((part) => typeof part === "string" && part !== "").join(": ") || `The request failed with status ${String(status)}.`;
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
