// Plays a watch page at normal speed to the end and prints what happened as one line of JSON. Exit status 0 only if everything held.
//   node e2e/play.mjs --url <watch url> [--min-renewals N] [--expect-duration S] [--screenshot file.png] [--timeout S] [--until S]
import { parseArgs } from "node:util";
import { complaintsOf, launch } from "./browser.mjs";

const { values: options } = parseArgs({
  options: {
    url: { type: "string" },
    "min-renewals": { type: "string", default: "0" },
    "expect-duration": { type: "string" },
    screenshot: { type: "string" },
    timeout: { type: "string" },
    until: { type: "string" },
  },
});
if (options.url === undefined) {
  console.error("usage: node e2e/play.mjs --url <watch url> [--min-renewals N] [--expect-duration S] [--screenshot file.png] [--timeout S] [--until S]");
  process.exit(2);
}

const START_TIMEOUT_MS = 30_000;
// Media clocks start and end within a few frames of the duration.
const EDGE_SECONDS = 0.5;
const DURATION_TOLERANCE_SECONDS = 1;
// How long a token lives (docs/api.md §2).
const TOKEN_SECONDS = 30;

const problems = [];
let report = {};
const browser = await launch();
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const complaints = complaintsOf(page);
  await page.goto(options.url);
  report = await played(page);
  if (options.screenshot !== undefined) await page.screenshot({ path: options.screenshot });
  problems.push(...complaints);
  report.first_token_refused = await refused(report.first_token, report.played_seconds < TOKEN_SECONDS);
  delete report.first_token;
  judge(report);
} catch (error) {
  problems.push(error instanceof Error ? error.message : String(error));
} finally {
  await browser.close();
}
console.log(JSON.stringify({ ok: problems.length === 0, ...report, errors: problems }));
for (const problem of problems) console.error(`play.mjs: ${problem}`);
process.exit(problems.length === 0 ? 0 : 1);

async function played(page) {
  await page.waitForFunction(() => document.querySelector("video").readyState >= 3 || !document.getElementById("trouble").hidden, null, { timeout: START_TIMEOUT_MS });
  await page.evaluate(watchVideo);
  const duration = await page.evaluate(() => document.querySelector("video").duration);
  const until = options.until === undefined ? null : Number(options.until);
  const timeoutMs = 1_000 * Number(options.timeout ?? (until ?? duration) * 1.5 + 30);
  const over = (limit) => window.playLog.ended || !document.getElementById("trouble").hidden || (limit !== null && document.querySelector("video").currentTime >= limit);
  await page.waitForFunction(over, until, { timeout: timeoutMs, polling: 200 }).catch(() => problems.push(`not at the end after ${String(timeoutMs / 1_000)} s`));
  return { until, ...(await page.evaluate(summary)) };
}

/** In the page: starts playback and notes how the clock moves. */
function watchVideo() {
  const video = document.querySelector("video");
  const log = { ended: false, stalls: 0, stalledMs: 0, leaps: [], waitingSince: null, last: video.currentTime, lastAt: performance.now() };
  window.playLog = log;
  const moved = () => {
    const [now, at] = [video.currentTime, performance.now()];
    const [step, elapsed] = [now - log.last, (at - log.lastAt) / 1_000];
    // Half a second beyond the wall clock, or any way back, is no playing at normal speed.
    if (step < 0 || step > elapsed + 0.5) log.leaps.push(`${log.last.toFixed(2)} -> ${now.toFixed(2)} in ${elapsed.toFixed(2)} s`);
    log.last = now;
    log.lastAt = at;
  };
  const resumed = () => {
    if (log.waitingSince !== null) log.stalledMs += performance.now() - log.waitingSince;
    log.waitingSince = null;
  };
  video.addEventListener("timeupdate", moved);
  video.addEventListener("waiting", () => {
    log.stalls += 1;
    log.waitingSince ??= performance.now();
  });
  video.addEventListener("playing", resumed);
  video.addEventListener("ended", () => {
    resumed();
    log.ended = true;
  });
  void video.play();
}

/** In the page. */
function summary() {
  const video = document.querySelector("video");
  const log = window.playLog;
  const stats = window.imira.stats();
  const frames = video.getVideoPlaybackQuality();
  let seconds = 0;
  for (let i = 0; i < video.played.length; i++) seconds += video.played.end(i) - video.played.start(i);
  const trouble = document.getElementById("trouble");
  return {
    played_seconds: seconds, duration: video.duration, current_time: video.currentTime, ended: log.ended,
    renewals: stats.renewals, switches: stats.switches, blocks_verified: stats.blocksVerified, blocks_refused: stats.blocksRefused,
    node: stats.node, hash: stats.hash, level: stats.level,
    decoded_frames: frames.totalVideoFrames, dropped_frames: frames.droppedVideoFrames,
    audio_bytes: video.webkitAudioDecodedByteCount ?? 0, has_audio: stats.hasAudio,
    stalls: log.stalls, stalled_ms: Math.round(log.stalledMs), leaps: log.leaps,
    trouble: trouble.hidden ? null : trouble.innerText, first_token: stats.tokens[0] ?? null,
  };
}

/** Asks the node, from outside the page, for the index with the first token. Where playback was shorter than its life it may well be alive. */
async function refused(base, short) {
  if (base === null) return false;
  const { status } = await fetch(`${base}index`);
  if (status !== 401 && !short) problems.push(`the first token is still answered with ${String(status)}`);
  return status === 401;
}

function judge(result) {
  const expect = (holds, message) => holds || problems.push(message);
  expect(result.trouble === null, `the page says: ${result.trouble}`);
  expect(result.until !== null || result.ended, "the video did not end");
  expect(result.leaps.length === 0, `the clock leapt: ${result.leaps.join(", ")}`);
  expect(result.played_seconds >= (result.until ?? result.duration) - EDGE_SECONDS, `played ${String(result.played_seconds)} s only`);
  expect(result.decoded_frames > 0, "no frame was decoded");
  expect(!result.has_audio || result.audio_bytes > 0, "the video has audio, but none was decoded");
  expect(result.blocks_verified > 0, "no block was verified");
  expect(result.renewals >= Number(options["min-renewals"]), `${String(result.renewals)} renewals, expected ${options["min-renewals"]}`);
  const wanted = options["expect-duration"];
  expect(wanted === undefined || Math.abs(result.duration - Number(wanted)) <= DURATION_TOLERANCE_SECONDS, `the duration is ${String(result.duration)} s, expected ${String(wanted)}`);
}
