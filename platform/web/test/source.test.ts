import assert from "node:assert/strict";
import { test } from "node:test";
import { PlaybackError } from "../src/errors";
import { pathIn } from "../src/loader";
import { chooseHasher } from "../src/sha256";
import { Source, temporaryBase } from "../src/source";
import { sha256 } from "./encode.mjs";

const GOOD = new TextEncoder().encode("good bytes");
const BAD = new TextEncoder().encode("bad bytes!");
const ID = sha256(GOOD).toString("hex");
const WANTED = { kind: "blocks", id: ID, length: GOOD.length } as const;
const never = new AbortController().signal;

/** A number is a status. */
type Answer = Uint8Array<ArrayBuffer> | number | "down";

/** A platform with nodes that are told what to answer; the clock is `world.now`. */
class World {
  now = 0;
  /** What nodes say of the life of their tokens. */
  remaining: string | null = "30";
  /** What nodes say of themselves. */
  claims: string | null = null;
  platformRequests: string[] = [];
  nodeRequests: { url: string; init: RequestInit }[] = [];
  heedsAvoid = true;
  #tokens = 0;
  readonly nodes: Record<string, () => Answer>;
  constructor(nodes: World["nodes"]) {
    this.nodes = nodes;
  }

  readonly source = (): Source =>
    new Source({ content: "c", hasher: chooseHasher(null), platform: "http://p", fetch: this.fetch, nowMs: () => this.now, sleep: () => Promise.resolve() });

  readonly fetch = async (input: RequestInfo | URL, init: RequestInit = {}): Promise<Response> => {
    await Promise.resolve();
    const url = new URL(input as string);
    if (url.host !== "p") return this.#node(url, init);
    assert.equal(new Headers(init.headers).get("Accept"), "application/json");
    this.platformRequests.push(url.pathname + url.search);
    const avoid = this.heedsAvoid ? url.searchParams.getAll("avoid") : [];
    const node = Object.keys(this.nodes).find((name) => !avoid.includes(name));
    if (node === undefined) return Response.json({ type: "urn:imira:error:no-node", title: "No node" }, { status: 503 });
    return Response.json({ url: `http://${node.toLowerCase()}/v1/t/token${String(this.#tokens++)}/blocks/${ID}`, node });
  };

  #node(url: URL, init: RequestInit): Response {
    this.nodeRequests.push({ url: url.href, init });
    const node = url.host.toUpperCase();
    const answer = this.nodes[node]?.() ?? 404;
    if (answer === "down") throw new TypeError("network");
    const headers = new Headers({ "Imira-Node": this.claims ?? node });
    if (this.remaining !== null) headers.set("Imira-Token-Remaining", this.remaining);
    return typeof answer === "number" ? Response.json({}, { status: answer, headers }) : new Response(answer, { headers });
  }
}

/** One answer after the other; the last one stays. */
const sequence = (...answers: Answer[]) => (): Answer => (answers.length > 1 ? answers.shift() : answers[0]) ?? 500;
const avoided = (world: World): (string | undefined)[] => world.platformRequests.map((request) => request.split("?")[1]);

const trouble = (name: string) => (error: unknown): boolean => error instanceof PlaybackError && error.trouble === name;

test("the temporary URL of the first block serves the next", async () => {
  const world = new World({ A: () => GOOD });
  const source = world.source();
  for (let i = 0; i < 5; i++) assert.deepEqual(await source.get(WANTED, never), GOOD);
  assert.equal(world.platformRequests.length, 1);
  assert.deepEqual(source.stats, { blocksVerified: 5, blocksRefused: 0, renewals: 0, switches: 0, node: "A", tokens: ["http://a/v1/t/token0/"] });
});

test("a token with fewer than 6 s left is renewed, once for all who wait", async () => {
  const world = new World({ A: () => GOOD });
  const source = world.source();
  await source.get(WANTED, never);
  world.now = 23_900;
  await source.get(WANTED, never);
  assert.equal(source.stats.renewals, 0);
  world.now = 24_100;
  await Promise.all(Array.from({ length: 8 }, () => source.get(WANTED, never)));
  assert.equal(source.stats.renewals, 1);
  assert.equal(world.platformRequests.length, 2);
});

test("a node is asked without credentials, referrer and redirects", async () => {
  const world = new World({ A: () => GOOD });
  await world.source().get(WANTED, never);
  const [request] = world.nodeRequests;
  assert.equal(request?.url, `http://a/v1/t/token0/blocks/${ID}`);
  const { redirect, credentials, referrerPolicy, cache } = request?.init ?? {};
  assert.deepEqual({ redirect, credentials, referrerPolicy, cache }, { redirect: "error", credentials: "omit", referrerPolicy: "no-referrer", cache: "no-store" });
});

for (const [remaining, lastsMs] of [
  ["12", 8_000], ["30", 24_000], ["0", 0],
  // Absent or absurd: what api.md says of every token.
  [null, 24_000], ["86400", 24_000], ["99", 24_000], ["-1", 24_000], ["1e9", 24_000], ["Infinity", 24_000], ["soon", 24_000], ["", 24_000],
] as const) {
  test(`a token with ${remaining === null ? "no" : JSON.stringify(remaining)} seconds left is used for ${String(lastsMs / 1_000)} s`, async () => {
    const world = new World({ A: () => GOOD });
    world.remaining = remaining;
    const source = world.source();
    await source.get(WANTED, never);
    for (const [now, requests] of [[Math.max(lastsMs - 1, 0), lastsMs > 0 ? 1 : 2], [lastsMs + 30_000, lastsMs > 0 ? 2 : 3]] as const) {
      world.now = now;
      await source.get(WANTED, never);
      assert.equal(world.platformRequests.length, requests);
    }
  });
}

test("the life of a token counts from the question to the platform", async () => {
  const world: World = new World({ A: () => (world.now += 10_000, GOOD) });
  world.remaining = null;
  const source = world.source();
  await source.get(WANTED, never);
  world.now = 24_100;
  await source.get(WANTED, never);
  assert.equal(world.platformRequests.length, 2);
});

for (const status of [401, 403]) {
  test(`${String(status)} from the node leads to a renewal`, async () => {
    const world = new World({ A: sequence(GOOD, status, GOOD) });
    const source = world.source();
    await source.get(WANTED, never);
    await source.get(WANTED, never);
    assert.deepEqual(avoided(world), [undefined, undefined]);
    assert.equal(source.stats.renewals, 1);
  });

  test(`a node that answers ${String(status)} to fresh tokens is left out`, async () => {
    const world = new World({ A: () => status, B: () => GOOD });
    const source = world.source();
    assert.deepEqual(await source.get(WANTED, never), GOOD);
    assert.deepEqual(avoided(world), [undefined, "avoid=A"]);
  });
}

for (const answer of ["down", 404, 503] as const) {
  test(`a node that is or answers ${String(answer)} is left out for 30 s, and another serves`, async () => {
    const world = new World({ A: () => answer, B: () => GOOD });
    const source = world.source();
    assert.deepEqual(await source.get(WANTED, never), GOOD);
    assert.equal(source.stats.node, "B");
    world.now = 29_000;
    await source.get(WANTED, never);
    world.now = 60_000;
    await source.get(WANTED, never);
    assert.deepEqual(avoided(world), [undefined, "avoid=A", "avoid=A", undefined, "avoid=A"]);
  });
}

test("a node that went away is left out and another serves", async () => {
  const world = new World({ A: sequence(GOOD, "down"), B: () => GOOD });
  const source = world.source();
  await source.get(WANTED, never);
  assert.deepEqual(await source.get(WANTED, never), GOOD);
  assert.equal(source.stats.node, "B");
  assert.deepEqual(world.platformRequests.at(-1), `/play/c/blocks/${ID}?avoid=A`);
});

test("when all nodes are left out, those that failed are asked once more", async () => {
  const world = new World({ A: sequence("down", GOOD), B: () => "down" });
  const source = world.source();
  assert.deepEqual(await source.get(WANTED, never), GOOD);
  assert.deepEqual(avoided(world), [undefined, "avoid=A", "avoid=A&avoid=B", undefined]);
});

test("a node that lied is not forgiven with those that failed", async () => {
  const world = new World({ A: () => BAD, B: sequence("down", GOOD) });
  const source = world.source();
  assert.deepEqual(await source.get(WANTED, never), GOOD);
  assert.deepEqual(avoided(world), [undefined, "avoid=A", "avoid=A&avoid=B", "avoid=A"]);
});

test("bytes that do not fit are refused, and the node is left out from then on", async () => {
  const world = new World({ A: () => BAD, B: () => GOOD });
  const source = world.source();
  assert.deepEqual(await source.get(WANTED, never), GOOD);
  assert.deepEqual({ ...source.stats, tokens: 0 }, { blocksVerified: 1, blocksRefused: 1, renewals: 0, switches: 1, node: "B", tokens: 0 });
  for (const now of [60_000, 3_600_000]) {
    world.now = now;
    await source.get(WANTED, never);
    assert.ok(world.platformRequests.at(-1)?.endsWith("?avoid=A"));
  }
});

test("a liar that names another node is the one that is left out", async () => {
  const world = new World({ A: () => BAD, B: () => GOOD });
  world.claims = "B";
  const source = world.source();
  assert.deepEqual(await source.get(WANTED, never), GOOD);
  assert.deepEqual(avoided(world), [undefined, "avoid=A"]);
  assert.equal(source.stats.node, "B");
});

for (const [name, bytes] of [["shorter", GOOD.subarray(1)], ["longer", new Uint8Array(64)], ["empty", new Uint8Array()]] as const) {
  test(`a ${name} block is refused`, async () => {
    const source = new World({ A: () => bytes, B: () => GOOD }).source();
    assert.deepEqual(await source.get(WANTED, never), GOOD);
    assert.equal(source.stats.blocksRefused, 1);
  });
}

test("when all lie, it ends with the reason", async () => {
  const world = new World({ A: () => BAD, B: () => BAD });
  await assert.rejects(world.source().get(WANTED, never), trouble("tampered"));
  assert.ok(world.platformRequests.length <= 6);
});

test("when only nodes are left that lied before, it ends with that reason", async () => {
  const world = new World({ A: sequence(BAD, GOOD), B: () => GOOD });
  const source = world.source();
  await source.get(WANTED, never);
  delete world.nodes["B"];
  world.now = 60_000;
  await assert.rejects(source.get(WANTED, never), trouble("tampered"));
});

test("a platform that offers a liar again is not followed", async () => {
  const world = new World({ A: sequence(BAD, GOOD) });
  world.heedsAvoid = false;
  await assert.rejects(world.source().get(WANTED, never), trouble("tampered"));
  assert.equal(world.nodeRequests.length, 1);
});

test("no node: bounded attempts, then the reason", async () => {
  const world = new World({});
  await assert.rejects(world.source().get(WANTED, never), trouble("no-node"));
  assert.equal(world.platformRequests.length, 6);
});

test("no platform: bounded attempts, then the reason", async () => {
  let asked = 0;
  const fetch = (): Promise<Response> => {
    asked += 1;
    return Promise.reject(new TypeError("network"));
  };
  const source = new Source({ content: "c", hasher: chooseHasher(null), platform: "http://p", fetch, sleep: () => Promise.resolve() });
  await assert.rejects(source.get(WANTED, never), trouble("platform"));
  assert.equal(asked, 6);
});

for (const answer of [{}, { node: "A" }, { url: "http://a/v1/t/x/index" }, { url: "http://a/index", node: "A" }, { url: "javascript:/v1/t/x/", node: "A" }, []]) {
  test(`the platform's answer ${JSON.stringify(answer)} leads to no node`, async () => {
    const asked: unknown[] = [];
    const fetch = (input: RequestInfo | URL): Promise<Response> => {
      asked.push(input);
      return Promise.resolve(Response.json(answer));
    };
    const source = new Source({ content: "c", hasher: chooseHasher(null), platform: "http://p", fetch, sleep: () => Promise.resolve() });
    await assert.rejects(source.get(WANTED, never), trouble("platform"));
    assert.deepEqual(new Set(asked), new Set([`http://p/play/c/blocks/${ID}`]));
  });
}

test("not found is final", async () => {
  let asked = 0;
  const fetch = (): Promise<Response> => {
    asked += 1;
    return Promise.resolve(Response.json({ title: "Not found" }, { status: 404 }));
  };
  const source = new Source({ content: "c", hasher: chooseHasher(null), platform: "http://p", fetch, sleep: () => Promise.resolve() });
  await assert.rejects(source.get(WANTED, never), trouble("not-found"));
  assert.equal(asked, 1);
});

test("an abort ends the request, and those who waited for it go on", async () => {
  const world = new World({ A: () => GOOD });
  const source = world.source();
  const gone = new AbortController();
  const first = source.get(WANTED, gone.signal);
  const second = source.get(WANTED, never);
  gone.abort();
  await assert.rejects(first, { name: "AbortError" });
  assert.deepEqual(await second, GOOD);
});

test("temporary bases are told from other addresses", () => {
  assert.equal(temporaryBase("http://n:1/v1/t/abc/blocks/00"), "http://n:1/v1/t/abc/");
  assert.equal(temporaryBase("https://n/base/v1/t/abc/index?x"), "https://n/base/v1/t/abc/");
  assert.equal(temporaryBase("http://p/play/c/index"), null);
});

test("addresses outside the video are refused", () => {
  assert.equal(pathIn("http://p/play/c/files/", "http://p/play/c/files/v/a%20b.m4s?x"), "v/a b.m4s");
  assert.throws(() => pathIn("http://p/play/c/files/", "http://elsewhere/a"), trouble("broken"));
});
