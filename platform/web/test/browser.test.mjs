// The pages in a real browser against test/fixture.mjs. Screenshots go to $SCREENSHOTS when it is set.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { complaintsOf, launch } from "../e2e/browser.mjs";
import { contentOf, film, serve } from "./fixture.mjs";

const run = promisify(execFile);
const root = new URL("..", import.meta.url).pathname;
const shots = process.env.SCREENSHOTS;
const content = contentOf(film(12), 12_000);
let browser;

before(async () => (browser = await launch(["--host-resolver-rules=MAP platform.test 127.0.0.1"])));
after(() => browser?.close());

async function withPage(world, page, check) {
  const server = await serve({ content, ...world });
  const context = await browser.newContext(page);
  try {
    const tab = await context.newPage();
    await check(tab, server, complaintsOf(tab));
  } finally {
    await context.close();
    server.close();
  }
}

const stats = (tab) => tab.evaluate(() => window.imira.stats());
const shot = (tab, name) => shots && tab.screenshot({ path: `${shots}/${name}.png` });

async function watch(tab, server, seconds = 3) {
  await tab.goto(server.watch);
  // Again while it is paused: setting the source ends a play() that came before it, whichever is first.
  const plays = (limit) => {
    const video = document.querySelector("video");
    if (video.paused) video.play().catch(() => {});
    return video.currentTime > limit;
  };
  await tab.waitForFunction(plays, seconds, { timeout: 20_000 });
}

async function play(args) {
  const { stdout } = await run(process.execPath, ["e2e/play.mjs", ...args], { cwd: root }).catch((error) => error);
  return JSON.parse(stdout);
}

test("plays to the end, past several 6 s tokens, and the first is refused then", async () => {
  // Longer than the player reads ahead, so that it asks for blocks while it plays.
  const server = await serve({ content: contentOf(film(32), 32_000), tokenSeconds: 6 });
  const report = await play(["--url", server.watch, "--expect-duration", "32", "--min-renewals", "2"]);
  server.close();
  assert.deepEqual(report.errors, []);
  assert.equal(report.first_token_refused, true);
  assert.equal(report.has_audio, true);
  assert.equal(report.blocks_refused, 0);
});

test("a liar that names an honest node is the one that is left out, and the video plays to the end", async () => {
  const server = await serve({ content, lies: ["blocks", null], claims: ["12D3KooWTestNode1", null] });
  const report = await play(["--url", server.watch]);
  server.close();
  assert.deepEqual(report.errors, []);
  assert.equal(report.ended, true);
  assert.equal(report.node, "12D3KooWTestNode1");
  assert.ok(report.blocks_refused > 0);
  assert.ok(server.world.asked.some(({ avoid }) => avoid.length > 0));
  for (const { avoid } of server.world.asked) assert.ok(!avoid.includes("12D3KooWTestNode1"), `${String(avoid)} left out`);
});

test("a node that redirects elsewhere is refused and the other serves", () =>
  withPage({ lies: ["redirect", null] }, {}, async (tab, server) => {
    await watch(tab, server);
    assert.equal((await stats(tab)).node, "12D3KooWTestNode1");
    const asked = server.world.requests.filter(({ id }) => id === "12D3KooWTestNode0");
    assert.equal(asked.length, 1);
    // The index was asked from the honest node with a token of its own, not by the redirect.
    assert.equal(server.world.requests.filter(({ kind }) => kind === "index").length, 2);
    assert.deepEqual(server.world.asked[1], { path: "index", avoid: ["12D3KooWTestNode0"] });
  }));

test("a node that nobody hears of any more is left out and the other serves", () =>
  withPage({ closed: [true, false] }, {}, async (tab, server) => {
    await watch(tab, server);
    assert.equal((await stats(tab)).node, "12D3KooWTestNode1");
    assert.deepEqual(server.world.asked[1], { path: "index", avoid: ["12D3KooWTestNode0"] });
  }));

test("who does not ask for JSON is redirected", async () => {
  const server = await serve({ content });
  const { status, headers } = await fetch(`${server.url}/play/${content.key}/index`, { redirect: "manual" });
  server.close();
  assert.equal(status, 307);
  assert.match(headers.get("Location"), /^http:\/\/127\.0\.0\.1:\d+\/v1\/t\/[\w-]{43}\/index$/);
});

test("audio whose last segment is of 100 samples: the end, a seek back, and the end again", () =>
  withPage({ content: contentOf(film(40, 1_763_428), 40_000) }, {}, async (tab, server, complaints) => {
    const until = (condition) => tab.waitForFunction(condition, null, { timeout: 20_000 });
    const seek = (seconds) => tab.evaluate((to) => {
      const video = document.querySelector("video");
      video.currentTime = to;
      void video.play();
    }, seconds);
    await watch(tab, server, 1);
    await seek(37.5);
    await until(() => document.querySelector("video").ended);
    // Into what was never read: what is appended there takes back the end that hls.js was told of.
    await seek(20);
    await until(() => document.querySelector("video").currentTime > 21);
    await seek(38);
    await until(() => document.querySelector("video").ended);
    await seek(0);
    await until(() => document.querySelector("video").currentTime > 1 && !document.querySelector("video").ended);
    assert.deepEqual(complaints, []);
  }));

test("the home page goes on after polls that failed", () =>
  withPage({ me: "Ada" }, {}, async (tab, server) => {
    await tab.goto(server.url);
    await tab.setInputFiles("#file", { name: "film.mp4", mimeType: "video/mp4", buffer: Buffer.alloc(100_000, 7) });
    await tab.click("#upload-button");
    await tab.waitForSelector("#own-list progress");
    server.world.failing = true;
    await tab.waitForSelector("#note:not(:empty)");
    await shot(tab, "home-poll-failed");
    server.world.failing = false;
    await tab.waitForSelector("#own-list button:text-is(\"Publish\")", { timeout: 15_000 });
    assert.equal(await tab.textContent("#note"), "");
  }));

test("an upload goes on where it was when the connection breaks", () =>
  withPage({ me: "Ada" }, {}, async (tab, server) => {
    server.world.breaks = 2;
    await tab.goto(server.url);
    await tab.setInputFiles("#file", { name: "film.mp4", mimeType: "video/mp4", buffer: Buffer.alloc(1_000_000, 7) });
    await tab.click("#upload-button");
    await tab.waitForSelector("#upload-note >> text=goes on where it was");
    await shot(tab, "home-broken");
    await tab.waitForSelector("#own-list button:text-is(\"Publish\")", { timeout: 15_000 });
    assert.equal(server.world.contents[0].received, 1_000_000);
    assert.equal(server.world.breaks, 0);
  }));

test("the home page: signed out, a wrong key, an empty file, a rejected entry, and what becomes of an upload", () =>
  withPage({}, { viewport: { width: 360, height: 740 } }, async (tab, server, complaints) => {
    const fits = async () => assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), "scrolls sideways");
    await tab.goto(server.url);
    await tab.waitForSelector("#list li");
    assert.deepEqual(complaints, []);
    await fits();
    await shot(tab, "home-signed-out");
    const error = { type: "urn:imira:error:not-a-video", title: "The file is not a video", detail: `This is not a video: ${"x".repeat(90)}. Upload a film file.` };
    server.world.contents.unshift({ ...server.world.contents[0], id: "f".repeat(32), title: "notes", owner: "Ada", state: "rejected", content_key: null, error });
    await tab.fill("#api-key", "secret");
    await tab.keyboard.press("Enter");
    await tab.waitForSelector("#own-list .rejected");
    assert.equal(await tab.textContent("#own-list .trouble-line"), error.detail);
    await fits();
    await shot(tab, "home-rejected");
    await tab.click("#own-list >> text=Dismiss");
    await tab.waitForSelector("#own-list .rejected", { state: "detached" });
    const count = server.world.contents.length;
    await tab.setInputFiles("#file", { name: "nothing.mp4", mimeType: "video/mp4", buffer: Buffer.alloc(0) });
    await tab.click("#upload-button");
    await tab.waitForSelector("#upload-note >> text=empty");
    assert.equal(server.world.contents.length, count);
    await tab.setInputFiles("#file", { name: "my.film.mp4", mimeType: "video/mp4", buffer: Buffer.alloc(9_000, 7) });
    await tab.click("#upload-button");
    await tab.waitForSelector("#upload-note >> text=“my.film” is ready", { timeout: 15_000 });
    await shot(tab, "home-ready");
    await tab.click("#own-list >> text=Publish");
    await tab.waitForFunction(() => document.getElementById("upload-note").textContent === "");
  }));

test("the owner deletes after a question, on a phone, and an upload can be cancelled", () =>
  withPage({ me: "Ada", title: `A film with ${"a long ".repeat(12)}title` }, { viewport: { width: 360, height: 740 }, hasTouch: true }, async (tab, server, complaints) => {
    const [film] = server.world.contents;
    film.owner = "Ada";
    server.world.contents.unshift({ ...film, id: "e".repeat(32), title: "Under way", state: "processing", content_key: null, progress: { phase: "receiving", percent: 40, remaining_seconds: 9 } });
    await tab.goto(server.url);
    await shot(tab, "home-own");
    await tab.tap("#own-list >> text=Delete");
    await tab.waitForSelector("#confirm[open] >> text=cannot be undone");
    const fits = await tab.evaluate(() => {
      const { left, right, top, bottom } = document.getElementById("confirm").getBoundingClientRect();
      return left >= 0 && top >= 0 && right <= window.innerWidth && bottom <= window.innerHeight && document.documentElement.scrollWidth <= window.innerWidth;
    });
    assert.ok(fits, "the question does not fit a phone");
    await shot(tab, "home-delete");
    // What is safe comes first, for the keyboard too.
    assert.equal(await tab.evaluate(() => document.activeElement.id), "confirm-no");
    await tab.keyboard.press("Enter");
    await tab.waitForSelector("#confirm", { state: "hidden" });
    assert.equal(server.world.contents.length, 2);

    server.world.failing = true;
    await tab.tap("#own-list >> text=Delete");
    await tab.tap("#confirm-yes");
    await tab.waitForSelector("#confirm-note:not(:empty)");
    assert.equal(await tab.isVisible("#confirm"), true);
    server.world.failing = false;
    await tab.tap("#confirm-yes");
    await tab.waitForSelector("#own-note >> text=is deleted");
    await tab.waitForSelector("#list >> text=A film with", { state: "detached" });
    assert.deepEqual(server.world.contents.map(({ title }) => title), ["Under way"]);
    await shot(tab, "home-deleted");

    await tab.tap("#own-list >> text=Cancel upload");
    await tab.waitForSelector("#confirm[open] >> text=thrown away");
    await shot(tab, "home-cancel");
    await tab.tap("#confirm-yes");
    await tab.waitForSelector("#own-empty:visible");
    assert.match(await tab.textContent("#own-note"), /“Under way” is cancelled/);
    assert.deepEqual(complaints.filter((line) => !line.includes("500")), []);
  }));

test("play.mjs fails for a video that is not there", async () => {
  const server = await serve({ content });
  const report = await play(["--url", `${server.url}/watch/${"0".repeat(64)}`]);
  server.close();
  assert.equal(report.ok, false);
});

for (const lie of ["blocks", "index", "pages"]) {
  test(`a node that tampers with ${lie} is refused and the other serves`, () =>
    withPage({ lies: [lie, null] }, {}, async (tab, server, complaints) => {
      await watch(tab, server);
      const { blocksRefused, node } = await stats(tab);
      assert.ok(blocksRefused > 0);
      assert.equal(node, "12D3KooWTestNode1");
      assert.deepEqual(complaints, []);
      await shot(tab, `refused-${lie}`);
    }));

  test(`when both tamper with ${lie}, the page says so and feeds the video nothing`, () =>
    withPage({ lies: [lie, lie] }, {}, async (tab, server) => {
      await tab.goto(server.watch);
      await tab.waitForSelector("#trouble[data-trouble=tampered]", { timeout: 30_000 });
      const fed = await tab.evaluate(() => {
        const video = document.querySelector("video");
        return { ranges: video.buffered.length, ready: video.readyState, frames: video.getVideoPlaybackQuality().totalVideoFrames };
      });
      assert.deepEqual(fed, { ranges: 0, ready: 0, frames: 0 });
      await shot(tab, `tampered-${lie}`);
    }));
}

test("without a secure context the JavaScript SHA-256 checks", () =>
  withPage({ host: "platform.test", lies: ["blocks", null] }, {}, async (tab, server) => {
    await watch(tab, server);
    const { hash, blocksRefused } = await stats(tab);
    assert.equal(hash, "javascript");
    assert.ok(blocksRefused > 0);
    assert.match(await tab.textContent("#proof"), /JavaScript/);
  }));

test("no node answers", () =>
  withPage({}, {}, async (tab, server) => {
    server.world.down = true;
    await tab.goto(server.watch);
    await tab.waitForSelector("#stall:not([hidden])", { timeout: 6_000 });
    await shot(tab, "stalled");
    await tab.waitForSelector("#trouble[data-trouble=no-node]", { timeout: 30_000 });
    await tab.waitForSelector("#stall", { state: "hidden" });
    assert.doesNotMatch(await tab.textContent("#trouble"), /avoid/);
    await shot(tab, "no-node");
    server.world.down = false;
    await tab.click("#retry");
    await tab.waitForFunction(() => document.querySelector("video").readyState >= 3);
  }));

test("a video that does not exist", () =>
  withPage({}, { viewport: { width: 360, height: 740 } }, async (tab, server) => {
    await tab.goto(`${server.url}/watch/${"0".repeat(64)}`);
    await tab.waitForSelector("#trouble[data-trouble=not-found]");
    await shot(tab, "not-found-phone");
  }));

test("the owner previews a ready video by its publication id and publishes it", () =>
  withPage({ state: "ready" }, { viewport: { width: 360, height: 740 } }, async (tab, server) => {
    await watch(tab, { watch: `${server.url}/watch/${"0".repeat(31)}1` }, 1);
    await shot(tab, "preview");
    await tab.click("#publish");
    await tab.waitForSelector("#preview", { state: "hidden" });
    assert.equal(await tab.getAttribute("#published-link", "href"), server.watch);
    await tab.click("#copy");
    await tab.waitForFunction(() => document.getElementById("copy").textContent !== "Copy the link");
    assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), "scrolls sideways");
    await shot(tab, "published");
  }));

for (const [name, page] of [
  ["phone-light", { viewport: { width: 360, height: 740 }, colorScheme: "light" }],
  ["phone-dark", { viewport: { width: 360, height: 740 }, colorScheme: "dark" }],
  ["desktop-light", { viewport: { width: 1280, height: 900 }, colorScheme: "light" }],
  ["desktop-dark", { viewport: { width: 1280, height: 900 }, colorScheme: "dark" }],
]) {
  test(`both pages fit the screen: ${name}`, () =>
    withPage({ title: "A film with a rather long title that has to wrap somewhere on a phone" }, page, async (tab, server) => {
      const fits = async () => assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), "scrolls sideways");
      await watch(tab, server, 1);
      await fits();
      await shot(tab, `watch-${name}`);
      await tab.goto(server.url);
      await tab.fill("#api-key", "secret");
      await tab.keyboard.press("Enter");
      const file = `${tmpdir()}/imira-web-upload-${name}.mp4`;
      writeFileSync(file, Buffer.alloc(300_000, 7));
      await tab.setInputFiles("#file", file);
      await tab.fill("#upload-title", "My own film");
      await tab.click("#upload-button");
      await tab.waitForSelector("#own-list progress");
      await fits();
      await shot(tab, `home-busy-${name}`);
      await tab.waitForSelector("#own-list button:text-is(\"Publish\")", { timeout: 15_000 });
      await fits();
      await shot(tab, `home-${name}`);
      await tab.click("#own-list .actions button");
      await tab.waitForSelector("#list >> text=My own film");
    }));
}
