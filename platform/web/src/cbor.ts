// A strict reader of the CBOR subset that the index format uses (docs/index-format.md, "Encoding"): unsigned integers, byte and
// text strings, arrays, and maps with unsigned keys in ascending order, all in the one deterministic form of RFC 8949 §4.2.1.

/** What the subset can hold. Integers above 2^53 - 1 are refused: no field of the format needs them. */
export type Value = number | string | Uint8Array | Value[] | Map<number, Value>;

export class CborError extends Error {
  override name = "CborError";
  constructor(offset: number, what: string) {
    super(`byte ${String(offset)}: ${what}`);
  }
}

/** Decodes exactly one item that fills `bytes`. Byte strings are views into `bytes`, not copies. */
export function decode(bytes: Uint8Array): Value {
  const reader = new Reader(bytes);
  const value = reader.item(0);
  reader.end();
  return value;
}

// An index block nests to depth 7 (index, files, entries, file, runs, run, number).
const MAX_DEPTH = 12;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  item(depth: number): Value {
    if (depth > MAX_DEPTH) throw this.#error("nested too deeply");
    const first = this.#byte();
    const major = first >> 5;
    const argument = this.#argument(first & 31);
    switch (major) {
      case 0: return argument;
      case 2: return this.#take(argument);
      case 3: return this.#text(argument);
      case 4: return this.#array(argument, depth);
      case 5: return this.#map(argument, depth);
      default: throw this.#error(`major type ${String(major)} is not part of the format`);
    }
  }

  end(): void {
    if (this.#at !== this.#bytes.length) throw this.#error("bytes follow the item");
  }

  #argument(info: number): number {
    if (info < 24) return info;
    switch (info) {
      case 24: return this.#shortest(this.#uint(1), 24);
      case 25: return this.#shortest(this.#uint(2), 0x100);
      case 26: return this.#shortest(this.#uint(4), 0x1_0000);
      case 27: return this.#shortest(this.#uint(8), 0x1_0000_0000);
      default: throw this.#error("indefinite or reserved length");
    }
  }

  #shortest(value: number, least: number): number {
    if (value < least) throw this.#error("number not in its shortest form");
    if (!Number.isSafeInteger(value)) throw this.#error("number above 2^53 - 1");
    return value;
  }

  #uint(width: number): number {
    let value = 0;
    for (const byte of this.#take(width)) value = value * 256 + byte;
    return value;
  }

  #text(length: number): string {
    try {
      return UTF8.decode(this.#take(length));
    } catch (error) {
      if (error instanceof CborError) throw error;
      throw this.#error("text is not UTF-8");
    }
  }

  #array(length: number, depth: number): Value[] {
    this.#mustHold(length);
    const items: Value[] = [];
    for (let i = 0; i < length; i++) items.push(this.item(depth + 1));
    return items;
  }

  #map(length: number, depth: number): Map<number, Value> {
    this.#mustHold(2 * length);
    const map = new Map<number, Value>();
    let previous = -1;
    for (let i = 0; i < length; i++) {
      const key = this.item(depth + 1);
      if (typeof key !== "number") throw this.#error("map key is not an unsigned integer");
      if (key <= previous) throw this.#error("map keys are not ascending");
      previous = key;
      map.set(key, this.item(depth + 1));
    }
    return map;
  }

  /** Every item takes a byte at least, so a count beyond what is left is refused before anything is allocated for it. */
  #mustHold(items: number): void {
    if (items > this.#bytes.length - this.#at) throw this.#error("count exceeds the bytes that are left");
  }

  #byte(): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) throw this.#error("ends too early");
    this.#at += 1;
    return byte;
  }

  #take(length: number): Uint8Array {
    if (length > this.#bytes.length - this.#at) throw this.#error("ends too early");
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  #error(what: string): CborError {
    return new CborError(this.#at, what);
  }
}
