// Opens a file in a plain <video>, waits (or plays so slowly that the transfer goes on), and plays it to its end, fast or only its last seconds. Prints a line of
// JSON: what the element said, if it failed, the second that it came to, and every request for media with its Range, its status and the host that
// answered, before and after the wait. Exit status 0 whenever the browser ran.
//   node e2e/video.mjs --url <address of an MP4> [--pause S | --slow S] [--last S]
import { parseArgs } from "node:util";
import { launch } from "./browser.mjs";

const text = { type: "string" };
const { values: options } = parseArgs({ options: { url: text, pause: text, slow: text, last: text } });
if (options.url === undefined) {
  console.error("usage: node e2e/video.mjs --url <address of an MP4> [--pause S | --slow S] [--last S]");
  process.exit(2);
}

const FAST = 8;
const SLOW = 0.1;
const LIMIT_MS = 90_000;

const browser = await launch();
try {
  const page = await browser.newPage();
  const requests = [];
  page.on("response", (response) => {
    const request = response.request();
    requests.push({ host: new URL(response.url()).host, range: request.headers().range ?? null, status: response.status() });
  });
  await page.setContent(`<video preload="metadata" muted src="${options.url}"></video>`);
  let error = await until(page, () => document.querySelector("video").readyState > 0);
  const before = requests.splice(0);
  if (options.slow !== undefined) await page.evaluate(play, { rate: SLOW });
  await page.waitForTimeout(1_000 * Number(options.pause ?? options.slow ?? 0));
  if (error === null) {
    await page.evaluate(play, { last: options.last, rate: FAST });
    error = await until(page, () => document.querySelector("video").ended);
  }
  const second = await page.evaluate(() => document.querySelector("video").currentTime);
  console.log(JSON.stringify({ error, second, before, after: requests }));
} finally {
  await browser.close();
}

/** In the page: plays at a rate, perhaps the last seconds only. */
function play({ last, rate }) {
  const video = document.querySelector("video");
  video.playbackRate = rate;
  if (last !== undefined) video.currentTime = video.duration - Number(last);
  video.play().catch(() => undefined); // what is wrong stands in video.error
}

/** Waits for something in the page; null once it is so, otherwise what the element says. */
async function until(page, there) {
  const failed = page.waitForFunction(() => document.querySelector("video").error?.message ?? null, null, { timeout: LIMIT_MS, polling: 100 });
  const ended = page.waitForFunction(there, null, { timeout: LIMIT_MS, polling: 100 });
  const first = await Promise.race([ended.then(() => null), failed]).catch(() => "it stands still");
  [ended, failed].forEach((other) => other.catch(() => undefined)); // it may still be waiting when the browser closes
  return first === null ? null : typeof first === "string" ? first : first.jsonValue();
}
