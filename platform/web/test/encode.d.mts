export interface Encoded {
  key: string;
  index: Buffer;
  blocks: Map<string, Buffer>;
  pages: Map<string, Buffer>;
}
export function sha256(bytes: Uint8Array): Buffer;
export function cbor(value: unknown): Buffer;
export function encodeContent(content: {
  files: { path: string; type: string; bytes: Buffer; cut?: number }[];
  renditions?: unknown[];
  durationMs?: number;
  perPage?: number;
}): Encoded;
