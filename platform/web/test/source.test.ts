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

/** A platform with nodes that are told what to answer; the clock is `world.now`. */
class World {
  now = 0;
  life = 30;
  platformRequests: string[] = [];
  direct = 0;
  #tokens = 0;
  readonly nodes: Record<string, (direct: boolean) => Uint8Array<ArrayBuffer> | number | "down">;
  constructor(nodes: World["nodes"]) {
    this.nodes = nodes;
  }

  readonly source = (): Source =>
    new Source({ content: "c", hasher: chooseHasher(null), platform: "http://p", fetch: this.fetch, nowMs: () => this.now, sleep: () => Promise.resolve() });

  readonly fetch = async (input: RequestInfo | URL): Promise<Response> => {
    await Promise.resolve();
    const url = new URL(input as string);
    if (url.host !== "p") {
      this.direct += 1;
      return this.answer(url.host.toUpperCase(), url.href, true);
    }
    this.platformRequests.push(url.pathname + url.search);
    const avoid = url.searchParams.getAll("avoid");
    const node = Object.keys(this.nodes).find((name) => !avoid.includes(name));
    if (node === undefined) return named(Response.json({ title: "No node" }, { status: 503 }), url.href);
    return this.answer(node, `http://${node.toLowerCase()}/v1/t/token${String(this.#tokens++)}/blocks/${ID}`, false);
  };

  answer(node: string, url: string, direct: boolean): Response {
    const answer = this.nodes[node]?.(direct) ?? 404;
    if (answer === "down") throw new TypeError("network");
    if (typeof answer === "number") return named(Response.json({}, { status: answer, headers: { "Imira-Node": node } }), url);
    return named(new Response(answer, { headers: { "Imira-Node": node, "Imira-Token-Remaining": String(this.life) } }), url);
  }
}

function named(response: Response, url: string): Response {
  Object.defineProperty(response, "url", { value: url });
  return response;
}

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

for (const status of [401, 403]) {
  test(`${String(status)} from the node leads to a renewal`, async () => {
    const world = new World({ A: (direct) => (direct ? status : GOOD) });
    const source = world.source();
    await source.get(WANTED, never);
    await source.get(WANTED, never);
    assert.equal(source.stats.renewals, 1);
    assert.equal(world.platformRequests[1]?.includes("avoid"), false);
  });
}

test("a node that went away is left out and another serves", async () => {
  let up = true;
  const world = new World({ A: () => (up ? GOOD : "down"), B: () => GOOD });
  const source = world.source();
  await source.get(WANTED, never);
  up = false;
  assert.deepEqual(await source.get(WANTED, never), GOOD);
  assert.equal(source.stats.node, "B");
  assert.deepEqual(world.platformRequests.at(-1), `/play/c/blocks/${ID}?avoid=A`);
});

test("bytes that do not fit are refused, and the node is left out from then on", async () => {
  const world = new World({ A: () => BAD, B: () => GOOD });
  const source = world.source();
  assert.deepEqual(await source.get(WANTED, never), GOOD);
  assert.deepEqual({ ...source.stats, tokens: 0 }, { blocksVerified: 1, blocksRefused: 1, renewals: 0, switches: 1, node: "B", tokens: 0 });
  world.now = 60_000;
  await source.get(WANTED, never);
  assert.ok(world.platformRequests.at(-1)?.endsWith("?avoid=A"));
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

test("a node that lied about another block is asked when nobody else is left", async () => {
  let first = true;
  const world = new World({
    A: () => {
      const answer = first ? BAD : GOOD;
      first = false;
      return answer;
    },
    B: (direct) => (direct ? 503 : GOOD),
  });
  const source = world.source();
  await source.get(WANTED, never);
  assert.equal(source.stats.node, "B");
  delete world.nodes["B"];
  world.now = 60_000;
  assert.deepEqual(await source.get(WANTED, never), GOOD);
});

test("no node: bounded attempts, then the reason", async () => {
  const world = new World({});
  await assert.rejects(world.source().get(WANTED, never), trouble("no-node"));
  assert.equal(world.platformRequests.length, 6);
});

test("not found is final", async () => {
  let asked = 0;
  const fetch = (): Promise<Response> => {
    asked += 1;
    return Promise.resolve(named(Response.json({ title: "Not found" }, { status: 404 }), "http://p/play/c/index"));
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
  await first.catch((error: unknown) => assert.equal((error as Error).name, "AbortError"));
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
