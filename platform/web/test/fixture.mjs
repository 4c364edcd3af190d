// A platform and nodes in one process, for the browser tests: the HTTP interfaces of docs/api.md as far as the pages use them, over a short
// test film that FFmpeg makes. Nodes can be told to lie. The pages come with the headers of the real platform.
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync } from "node:fs";
import { createServer } from "node:http";
import { encodeContent } from "./encode.mjs";

const root = new URL("..", import.meta.url).pathname;
const TYPES = { html: "text/html; charset=utf-8", js: "text/javascript", css: "text/css", svg: "image/svg+xml", txt: "text/plain" };
const MEDIA_TYPES = { m3u8: "application/vnd.apple.mpegurl", m4s: "video/iso.segment", mp4: "video/mp4" };

/** The policy as platform/src/http/pages.rs builds it. */
export function contentSecurityPolicy(origins) {
  const source = readFileSync(`${root}../src/http/pages.rs`, "utf8");
  const [, format] = /format!\(\s*"(default-src [^"]*)"/.exec(source) ?? [];
  if (!format?.includes("connect-src 'self'{nodes};")) throw new Error("platform/src/http/pages.rs has no policy that this test understands");
  return format.replaceAll(/\\\n\s*/g, "").replace("{nodes}", origins.map((origin) => ` ${origin}`).join(""));
}

/**
 * Two rungs and a separate audio track, as HLS in CMAF. Made once and kept. `samples` cuts the audio, 44,100 in a second, which then may end
 * with a segment of a few.
 */
export function film(seconds, samples = null) {
  const folder = `${root}node_modules/.cache/imira-web-film-${seconds}${samples === null ? "" : `-${samples}`}`;
  if (existsSync(folder)) return folder;
  mkdirSync(`${root}node_modules/.cache`, { recursive: true });
  const made = mkdtempSync(`${folder}-`);
  const { status, stderr } = spawnSync("ffmpeg", [
    "-v", "error", "-f", "lavfi", "-i", `testsrc2=s=640x360:r=24:d=${seconds}`, "-f", "lavfi", "-i", `sine=440:d=${seconds}${samples === null ? "" : `,atrim=end_sample=${samples}`}`,
    "-filter_complex", "[0:v]split[a][b];[b]scale=320:180[c]", "-map", "[a]", "-map", "[c]", "-map", "1:a", "-c:v", "libx264", "-preset", "ultrafast",
    "-pix_fmt", "yuv420p", "-bf", "0", "-g", "48", "-keyint_min", "48", "-sc_threshold", "0", "-b:v:0", "1500k", "-b:v:1", "300k", "-c:a", "aac", "-b:a", "96k",
    "-f", "hls", "-hls_time", "2", "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4", "-hls_fmp4_init_filename", "init_%v.mp4", "-master_pl_name", "master.m3u8",
    "-var_stream_map", "v:0,agroup:a v:1,agroup:a a:0,agroup:a,default:yes", "-hls_segment_filename", `${made}/s%v_%03d.m4s`, `${made}/p%v.m3u8`,
  ]);
  if (status !== 0) throw new Error(`ffmpeg made no film: ${String(stderr)}`);
  renameSync(made, folder);
  return folder;
}

/** The film as a content; cut small, so that segments have several blocks and the index has pages. */
export function contentOf(folder, durationMs) {
  const files = readdirSync(folder).map((path) => ({ path, type: MEDIA_TYPES[path.split(".").pop()] ?? "application/octet-stream", bytes: readFileSync(`${folder}/${path}`), cut: 65_536 }));
  return encodeContent({ files, durationMs, perPage: 40 });
}

/**
 * `lies[i]`: what node i lies about: "blocks", "index", "pages" or nothing; "redirect" answers with the address of the next node, where it works.
 * `claims[i]`: what it calls itself. `closed[i]`: nobody listens where it should be. Returns {url, nodes, world, close}. `url` uses the name `host`, under which
 * the browser must find 127.0.0.1.
 */
export async function serve({ content, tokenSeconds = 30, lies = [null, null], claims = [], closed = [], host = "127.0.0.1", contents = [], me = null, state = "published", title = "Test film" }) {
  const world = { content, tokenSeconds, tokens: new Map(), issued: 0, requests: [], asked: [], contents, me, down: false, failing: false, breaks: 0 };
  const nodes = await Promise.all(lies.map((lie, i) => listen((request, response) => node(world, nodes, { i, lie, claims: claims[i] ?? nameOf(i) }, request, response))));
  nodes.forEach((server, i) => closed[i] && server.close());
  const info = { id: "0".repeat(31) + "1", title, owner: "Ada", visibility: "public", state, content_key: content.key, duration_ms: 12_000, created: 1_760_000_000, progress: null, error: null };
  world.contents.push(info);
  const platform = await listen((request, response) => platformAnswer(world, nodes, request, response));
  const url = `http://${host}:${String(platform.port)}`;
  return { url, watch: `${url}/watch/${content.key}`, world, close: () => [platform, ...nodes].forEach((server) => server.close()) };
}

const nameOf = (i) => `12D3KooWTestNode${String(i)}`;

function node(world, nodes, { i, lie, claims }, request, response) {
  const cors = { "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Imira-Token-Remaining, Imira-Node, Upload-Offset, Upload-Length", "Imira-Node": claims };
  if (request.method === "OPTIONS") return response.writeHead(204, { ...cors, "Access-Control-Allow-Methods": "HEAD, PATCH", "Access-Control-Allow-Headers": "authorization, content-type, tus-resumable, upload-offset" }).end();
  if (request.url.startsWith("/v1/uploads/")) return upload(world, request, response, { ...cors, "Tus-Resumable": "1.0.0" });
  const [, token, kind, name] = /^\/v1\/t\/([^/]+)\/(index|pages|blocks)\/?([0-9a-f]*)$/.exec(request.url) ?? [];
  const until = world.tokens.get(token);
  const remaining = Math.floor(((until ?? 0) - Date.now()) / 1_000);
  if (until === undefined || until <= Date.now()) return problem(response, 401, "token-expired", cors);
  world.requests.push({ id: nameOf(i), kind });
  if (lie === "redirect") return response.writeHead(307, { ...cors, Location: `http://127.0.0.1:${String(nodes[(i + 1) % nodes.length].port)}${request.url}` }).end();
  const honest = kind === "index" ? world.content.index : world.content[kind].get(name);
  if (honest === undefined) return problem(response, 403, "wrong-content", cors);
  const bytes = Buffer.from(honest);
  if (lie === kind) bytes[bytes.length - 1] ^= 1;
  response.writeHead(200, { ...cors, "Content-Type": "application/octet-stream", "Imira-Token-Remaining": remaining }).end(bytes);
}

/** The node's end of tus, for one upload at a time. As long as `world.breaks` is above 0, connections break once something has come. */
function upload(world, request, response, headers) {
  const content = world.contents.find(({ state }) => state === "pending");
  if (request.method === "HEAD") return response.writeHead(200, { ...headers, "Upload-Offset": content.received, "Upload-Length": content.size }).end();
  if (Number(request.headers["upload-offset"]) !== content.received) return problem(response, 409, "wrong-offset", headers);
  request.on("data", (bytes) => {
    content.received += bytes.length;
    if (world.breaks > 0) request.destroy();
  });
  request.on("end", () => {
    received(world, content);
    response.writeHead(204, { ...headers, "Upload-Offset": content.received }).end();
  });
  request.on("close", () => (world.breaks -= request.complete ? 0 : 1));
}

function received(world, content) {
  const steps = ["probing", "transcoding", "storing"].flatMap((phase) => [20, 60, 95].map((percent) => ({ phase, percent, remaining_seconds: (100 - percent) / 20 })));
  const timer = setInterval(() => {
    content.state = "processing";
    content.progress = steps.shift() ?? null;
    if (content.progress !== null) return;
    Object.assign(content, { state: "ready", content_key: world.content.key, duration_ms: 12_000 });
    clearInterval(timer);
  }, 300);
}

function platformAnswer(world, nodes, request, response) {
  const url = new URL(request.url, "http://platform");
  const [, area, name, ...rest] = url.pathname.split("/");
  if (area === "play") return play(world, nodes, name, rest, url, request, response);
  if (area === "api") return api(world, nodes, request, name, rest, response);
  const file = area === "assets" ? `assets/${name}` : area === "watch" ? "watch.html" : "index.html";
  const origins = nodes.map(({ port }) => `http://127.0.0.1:${String(port)}`);
  response.writeHead(200, {
    "Content-Type": TYPES[file.split(".").pop()],
    "Content-Security-Policy": contentSecurityPolicy(origins), "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
  }).end(readFileSync(`${root}dist/${file}`));
}

/** A 307, or for who asks for JSON the address and whose it is. */
function play(world, nodes, name, rest, url, request, response) {
  if (!world.contents.some((content) => content.id === name || content.content_key === name)) return problem(response, 404, "not-found");
  const avoid = url.searchParams.getAll("avoid");
  world.asked.push({ path: rest.join("/"), avoid });
  const i = nodes.findIndex((_, at) => !avoid.includes(nameOf(at)));
  if (i < 0 || world.down) return problem(response, 503, "no-node");
  const token = randomBytes(32).toString("base64url");
  world.issued += 1;
  world.tokens.set(token, Date.now() + world.tokenSeconds * 1_000 + 500);
  const temporary = `http://127.0.0.1:${String(nodes[i].port)}/v1/t/${token}/${rest.join("/")}`;
  const headers = { "Cache-Control": "no-store", "Vary": "accept" };
  if (request.headers.accept?.includes("application/json")) {
    return response.writeHead(200, { ...headers, "Content-Type": "application/json" }).end(JSON.stringify({ url: temporary, node: nameOf(i) }));
  }
  response.writeHead(307, { ...headers, "Location": temporary, "Imira-Node": nameOf(i) }).end();
}

async function api(world, nodes, request, name, rest, response) {
  if (world.failing) return problem(response, 500, "internal");
  const body = JSON.parse((await text(request)) || "{}");
  const json = (status, value) => response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(value));
  if (name === "session") {
    if (request.method === "POST" && body.api_key !== "secret") return problem(response, 401, "sign-in-required");
    world.me = request.method === "POST" ? "Ada" : null;
    return response.writeHead(204).end();
  }
  const content = world.contents.find(({ id, content_key }) => rest[0] === id || rest[0] === content_key);
  if (request.method === "DELETE") {
    world.contents.splice(world.contents.indexOf(content), 1);
    return response.writeHead(204).end();
  }
  if (request.method === "POST" && rest[1] === "publish") return json(200, Object.assign(content, { state: "published" }));
  if (request.method === "POST") {
    const id = randomBytes(16).toString("hex");
    world.contents.unshift({ id, title: body.title, owner: world.me, visibility: body.visibility, state: "pending", content_key: null, duration_ms: null, created: Math.floor(Date.now() / 1_000), progress: null, error: null, size: body.size, received: 0 });
    return json(201, { id, state: "pending", upload: { url: `http://127.0.0.1:${String(nodes[0].port)}/v1/uploads/${id}`, token: "token", node: "n" } });
  }
  if (rest[0] !== undefined) return content === undefined ? problem(response, 404, "not-found") : json(200, content);
  return json(200, { contents: world.contents, me: world.me });
}

function problem(response, status, type, headers = {}) {
  response.writeHead(status, { ...headers, "Content-Type": "application/problem+json" }).end(JSON.stringify({ type: `urn:imira:error:${type}`, title: type.replaceAll("-", " "), status }));
}

async function text(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

function listen(handler) {
  return new Promise((resolve) => {
    const server = createServer((request, response) => void handler(request, response)).listen(0, "127.0.0.1", () => {
      resolve({ port: server.address().port, close: () => { server.closeAllConnections(); server.close(); } });
    });
  });
}
