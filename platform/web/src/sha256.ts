import { sha256 } from "@noble/hashes/sha2";

/** Which code computes SHA-256. The page shows it, since the choice follows from how the page was opened. */
export type HashBackend = "crypto.subtle" | "javascript";

export interface Hasher {
  readonly backend: HashBackend;
  /** SHA-256 as 64 lowercase hex digits. */
  hex(bytes: Uint8Array<ArrayBuffer>): Promise<string>;
}

/** The browser's own SHA-256 where the context is secure (https, localhost), else one in JavaScript. */
export function chooseHasher(subtle: SubtleCrypto | null = globalThis.crypto?.subtle ?? null): Hasher {
  if (subtle === null) return { backend: "javascript", hex: (bytes) => Promise.resolve(toHex(sha256(bytes))) };
  return { backend: "crypto.subtle", hex: async (bytes) => toHex(new Uint8Array(await subtle.digest("SHA-256", bytes))) };
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

export function toHex(bytes: Uint8Array): string {
  let hex = "";
  for (const byte of bytes) hex += HEX[byte] ?? "";
  return hex;
}
