// Plays an MP4 in a plain <video src>, without our player, for longer than a token lives, and then seeks. Prints what the browser asked for and what it
// got, as one line of JSON.
//   node e2e/plain.mjs --url <address of an MP4> --origin <a page of the same platform> [--play S] [--seek S]
import { parseArgs } from "node:util";
import { launch } from "./browser.mjs";

const { values: options } = parseArgs({
  options: {
    url: { type: "string" },
    origin: { type: "string" },
    play: { type: "string", default: "35" },
    seek: { type: "string", default: "60" },
  },
});
if (options.url === undefined || options.origin === undefined) {
  console.error("usage: node e2e/plain.mjs --url <address of an MP4> --origin <a page of the same platform> [--play S] [--seek S]");
  process.exit(2);
}

const START_TIMEOUT_MS = 30_000;
// After a seek, so long until it plays or has failed.
const SEEK_TIMEOUT_MS = 20_000;

const browser = await launch();
const report = { played: 0, after_seek: null, media_error: null, requests: [] };
try {
  const page = await browser.newPage();
  page.on("response", (response) => {
    const request = response.request();
    if (request.resourceType() !== "media" && !response.url().endsWith(".mp4")) return;
    const { pathname } = new URL(response.url());
    report.requests.push({
      // The token in a temporary URL is nobody's business.
      where: pathname.startsWith("/v1/t/") ? "node" : pathname.split("/")[1],
      range: request.headers().range ?? null,
      status: response.status(),
    });
  });
  await page.goto(options.origin);
  await page.evaluate((url) => {
    const video = document.createElement("video");
    video.muted = true;
    video.src = url;
    document.body.append(video);
    void video.play().catch(() => {});
  }, options.url);
  await page.waitForFunction(() => document.querySelector("video").currentTime > 0.5 || document.querySelector("video").error !== null, null, { timeout: START_TIMEOUT_MS });
  await page.waitForTimeout(1_000 * Number(options.play));
  report.played = await page.evaluate(() => document.querySelector("video").currentTime);
  report.after_seek = await page.evaluate(seek, { to: Number(options.seek), timeout: SEEK_TIMEOUT_MS });
  report.media_error = await page.evaluate(() => document.querySelector("video").error?.code ?? null);
} finally {
  await browser.close();
}
console.log(JSON.stringify(report));

/** In the page: seeks, and says where the clock is once it moves again, or null when it does not. */
async function seek({ to, timeout }) {
  const video = document.querySelector("video");
  video.currentTime = to;
  void video.play().catch(() => {});
  const until = performance.now() + timeout;
  while (performance.now() < until && video.error === null) {
    await new Promise((done) => setTimeout(done, 200));
    if (video.currentTime > to + 0.5 && !video.seeking) return video.currentTime;
  }
  return null;
}
