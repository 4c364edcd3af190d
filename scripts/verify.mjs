// Checks a published video as its viewers meet it: in a browser, with FFmpeg, with curl. Prints a line for each thing
// checked and exits 0 only if all of them held. Called by scripts/demo.sh.
import { createHash } from "node:crypto";
import { spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

const MAX_BLOCK_BYTES = 1_048_576;
const REPLICAS = 2;
const TOKEN_LIFE_MS = 30_000;
const DURATION_TOLERANCE_S = 1; // the last segment's audio may outlast the picture
const START_UP_S = 90; // for the browser to start on a busy machine, besides the playing time

const text = { type: "string" };
const { values: options } = parseArgs({
    options: {
        platform: text, key: text, watch: text, hls: text, mp4: text, source: text, log: text, until: text,
        control: { type: "string", multiple: true },
    },
});

const results = [];

/** Runs one check; `run` returns what it found, in words, or throws. */
async function check(what, run) {
    const started = Date.now();
    let holds = true;
    let found;
    try {
        found = await run();
    } catch (error) {
        holds = false;
        found = error.message;
    }
    results.push(holds);
    const seconds = ((Date.now() - started) / 1000).toFixed(1).padStart(5);
    console.log(`  ${holds ? "ok    " : "FAILED"} ${seconds} s  ${what.padEnd(40)} ${found}`);
}

function assert(condition, message) {
    if (!condition) throw new Error(message);
}

async function getJson(url) {
    const response = await fetch(url);
    const body = await response.text();
    assert(response.ok, `${url} answered ${response.status}: ${body}`);
    return JSON.parse(body);
}

/** Runs a program to its end; its stderr goes to .demo/log/NAME.log as well. */
function run(name, command, args, timeoutS = 600) {
    return new Promise((resolve, reject) => {
        const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
        const log = createWriteStream(join(options.log, `${name}.log`));
        const stdout = [];
        const stderr = [];
        const timer = setTimeout(() => child.kill("SIGKILL"), timeoutS * 1000);
        child.stdout.on("data", (data) => stdout.push(data));
        child.stderr.on("data", (data) => { stderr.push(data); log.write(data); });
        child.on("error", reject);
        child.on("close", (code, signal) => {
            clearTimeout(timer);
            log.end();
            resolve({ code: code ?? signal, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() });
        });
    });
}

async function runOk(name, command, args, timeoutS) {
    const result = await run(name, command, args, timeoutS);
    const last = result.stderr.trim().split("\n").slice(-3).join(" | ");
    assert(result.code === 0, `${command} ended with ${result.code}: ${last || result.stdout.toString().slice(-300)}`);
    return result;
}

async function probe(name, url) {
    const args = ["-v", "error", "-show_entries", "format=duration:stream=codec_type,codec_name,height", "-of", "json", url];
    const { stdout } = await runOk(name, "ffprobe", args);
    const { format, streams } = JSON.parse(stdout);
    const of = (type) => streams.filter((stream) => stream.codec_type === type);
    return { seconds: Number(format.duration), video: of("video"), audio: of("audio") };
}

/** Decodes all of `url`; any complaint of FFmpeg is a failure. */
async function decode(name, url, seconds) {
    // FFmpeg's HLS reader notes as an error that a redirected segment needs another connection, unless told not to keep any.
    const reader = url.endsWith(".m3u8") ? ["-http_persistent", "0"] : [];
    const args = ["-v", "error", "-nostdin", "-nostats", "-progress", "pipe:1", ...reader, "-i", url, "-f", "null", "-"];
    const { stdout, stderr } = await runOk(name, "ffmpeg", args);
    assert(stderr.trim() === "", `ffmpeg complained: ${stderr.trim().split("\n")[0]}`);
    const progress = stdout.toString();
    const frames = Number([...progress.matchAll(/^frame=\s*(\d+)/gm)].pop()?.[1] ?? 0);
    // "out_time_us" is in microseconds, as its name says.
    const decoded = Number([...progress.matchAll(/^out_time_us=(\d+)/gm)].pop()?.[1] ?? 0) / 1e6;
    assert(frames > 0, "no frame was decoded");
    assert(Math.abs(decoded - seconds) <= DURATION_TOLERANCE_S, `${decoded} s were decoded of ${seconds}`);
    return `${frames} frames, ${decoded.toFixed(1)} s`;
}

async function firstToken() {
    const response = await fetch(`${options.platform}/play/${options.key}/index`, { redirect: "manual" });
    assert(response.status === 307, `expected a redirect (307), got ${response.status}`);
    return { url: response.headers.get("location"), issued: Date.now() };
}

async function refusedAfterwards(token) {
    const left = token.issued + TOKEN_LIFE_MS + 1000 - Date.now();
    if (left > 0) await new Promise((resolve) => setTimeout(resolve, left));
    const response = await fetch(token.url);
    const body = await response.text();
    assert(response.status === 401, `expected 401, got ${response.status}`);
    const { type } = JSON.parse(body);
    assert(/:token-(expired|unknown)$/.test(type), `expected token-expired, got ${type}`);
    return `401 ${type.split(":").pop()}`;
}

/** All blocks of a node's durable store, as its control listener lists them. */
async function storedBlocks(control) {
    const blocks = [];
    let next = null;
    do {
        const page = await getJson(`${control}/v1/blocks?limit=1000${next ? `&after=${next}` : ""}`);
        blocks.push(...page.blocks);
        next = page.next;
    } while (next);
    return blocks;
}

/** The node that took the upload keeps each block until the block's holders have proved theirs (docs/protocol.md §10.1), minutes from now. */
async function replicas(fragments) {
    const stores = await Promise.all(options.control.map(storedBlocks));
    const holders = new Map();
    for (const { id } of stores.flat()) holders.set(id, (holders.get(id) ?? 0) + 1);
    const ids = [...fragments.map((fragment) => fragment.sha256), options.key];
    for (const id of ids) {
        const copies = holders.get(id) ?? 0;
        assert(copies === REPLICAS || copies === REPLICAS + 1, `block ${id} is on ${copies} nodes, not ${REPLICAS}`);
    }
    const kept = ids.filter((id) => holders.get(id) > REPLICAS).length;
    const holdAll = stores.filter((blocks) => ids.every((id) => blocks.some((block) => block.id === id))).length;
    assert(kept === 0 || holdAll === 1, `${kept} blocks have a copy too many, and not all of them on the node that took the upload`);
    assert(stores.flat().every((block) => block.length <= MAX_BLOCK_BYTES), "a stored block exceeds 1 MiB");
    return `${stores.map((blocks) => blocks.length).join(" + ")} on the three nodes, ${kept} of them kept until the others have proved theirs`;
}

async function curlBlock(fragment) {
    const url = `${options.platform}/play/${options.key}/blocks/${fragment.sha256}`;
    const { stdout } = await runOk("curl", "curl", ["-fsSL", url]);
    const digest = createHash("sha256").update(stdout).digest("hex");
    assert(digest === fragment.sha256, `block ${fragment.sha256} came with SHA-256 ${digest}`);
    assert(stdout.length === fragment.length, `block ${fragment.sha256} has ${stdout.length} bytes, not ${fragment.length}`);
}

async function playInBrowser(seconds) {
    const until = Math.min(Number(options.until ?? Infinity), seconds);
    // The first token is used from the start, so that 75 s need two renewals at least.
    const renewals = Math.max(0, Math.floor((until - 15) / (TOKEN_LIFE_MS / 1000)));
    const args = ["platform/web/e2e/play.mjs", "--url", options.watch, "--min-renewals", String(renewals),
        "--expect-duration", String(seconds)];
    if (until < seconds) args.push("--until", String(until));
    const { stdout } = await runOk("browser", process.execPath, args, until + START_UP_S);
    const seen = JSON.parse(stdout.toString().trim().split("\n").pop());
    assert(until * 1000 < TOKEN_LIFE_MS || seen.first_token_refused, "its first token still works");
    return `${seen.played_seconds.toFixed(1)} s, ${seen.renewals} renewals, ${seen.blocks_verified} blocks verified, ` +
        `${seen.decoded_frames} frames, ${seen.stalls} stalls`;
}

const redirected = (url) => url.replace("/proxy/", "/play/");
const proxied = (url) => url.replace("/play/", "/proxy/");
const source = await probe("source", options.source);
const { fragments } = await getJson(`${options.platform}/api/contents/${options.key}/fragments`);
let token;

await check("published, as long as its source", async () => {
    const content = await getJson(`${options.platform}/api/contents/${options.key}`);
    assert(content.state === "published", `state is ${content.state}`);
    const seconds = content.duration_ms / 1000;
    assert(Math.abs(seconds - source.seconds) <= DURATION_TOLERANCE_S, `${seconds} s of ${source.seconds}`);
    return `${seconds} s`;
});
await check("fragments in order, none above 1 MiB", async () => {
    assert(fragments.length > 0, "there is none");
    assert(fragments.every(({ order }, i) => order === i + 1), "orders are not 1..N");
    assert(fragments.every(({ length }) => length > 0 && length <= MAX_BLOCK_BYTES), "a length is out of bounds");
    const bytes = fragments.reduce((sum, { length }) => sum + length, 0);
    return `${fragments.length} blocks, ${(bytes / MAX_BLOCK_BYTES).toFixed(1)} MiB`;
});
await check(`every block on ${REPLICAS} nodes`, () => replicas(fragments));
await check("blocks by curl -L have their SHA-256", async () => {
    const chosen = [...new Set([fragments[0], fragments[fragments.length >> 1], fragments.at(-1)])];
    for (const fragment of chosen) await curlBlock(fragment);
    return `${chosen.length} blocks`;
});
await check("a token opens the content", async () => {
    token = await firstToken();
    const response = await fetch(token.url);
    assert(response.ok, `the node answered ${response.status}`);
    return new URL(token.url).host;
});
await check("played in Chromium at normal speed", () => playInBrowser(source.seconds));
for (const [format, url] of [["HLS", options.hls], ["MP4", options.mp4]]) {
    await check(`${format}: ffprobe sees picture and sound`, async () => {
        const { video, audio, seconds } = await probe(`probe-${format}`, redirected(url));
        assert(video.length > 0, "no video stream");
        assert(source.audio.length === 0 || audio.length > 0, "no audio stream");
        assert(Math.abs(seconds - source.seconds) <= DURATION_TOLERANCE_S, `${seconds} s of ${source.seconds}`);
        return `${video.map((stream) => `${stream.codec_name} ${stream.height}p`).join(", ")}; ${audio[0]?.codec_name ?? "no sound"}`;
    });
    await check(`${format}: decoded in full over redirects`, () => decode(`decode-${format}`, redirected(url), source.seconds));
    await check(`${format}: decoded in full through the proxy`, () => decode(`proxy-${format}`, proxied(url), source.seconds));
}
await check("the first token is refused after 30 s", () => {
    assert(token, "there was no token");
    return refusedAfterwards(token);
});

const failed = results.filter((holds) => !holds).length;
console.log(`\n  ${results.length - failed} of ${results.length} checks held`);
process.exitCode = failed === 0 ? 0 : 1;
