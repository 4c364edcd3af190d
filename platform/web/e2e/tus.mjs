// Uploads a file with a tus client of other people's: tus.mjs --client tus-js-client|uppy --file FILE --origin http://HOST:PORT [--parallel N]
// The upload's URL and token are in UPLOAD_URL and UPLOAD_TOKEN. tus-js-client runs in Node, Uppy in Chromium, in a page of the origin.
// Prints a line of JSON for each report of progress, {"sent": bytes}, and at the end {"url": ...} or {"error": ...}.
import { build } from "esbuild";
import { createReadStream } from "node:fs";
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import * as tus from "tus-js-client";
import { launch } from "./browser.mjs";

// Small, so that a test can end the node in the middle; real pages send as much as there is.
const CHUNK_BYTES = 32 * 1024;
// Longer together than a node takes to start.
const RETRY_DELAYS_MS = [0, 500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000];

const { values: options } = parseArgs({
  options: { client: { type: "string" }, file: { type: "string" }, origin: { type: "string" }, parallel: { type: "string" } },
});
const endpoint = process.env.UPLOAD_URL;
const headers = { Authorization: `Bearer ${process.env.UPLOAD_TOKEN}` };
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

try {
  say({ url: await (options.client === "uppy" ? withUppy() : withTusJsClient()) });
} catch (error) {
  say({ error: String(error) });
  process.exitCode = 1;
}

function withTusJsClient() {
  return new Promise((resolve, reject) => {
    const upload = new tus.Upload(createReadStream(options.file), {
      endpoint,
      headers,
      chunkSize: options.parallel ? Infinity : CHUNK_BYTES,
      parallelUploads: Number(options.parallel ?? 1),
      retryDelays: RETRY_DELAYS_MS,
      metadata: { filename: "film.mp4", filetype: "video/mp4" },
      onProgress: (sent) => say({ sent }),
      onError: reject,
      onSuccess: () => resolve(upload.url),
    });
    upload.start();
  });
}

async function withUppy() {
  const { outputFiles } = await build({
    stdin: {
      contents: `
        import Uppy from "@uppy/core";
        import Tus from "@uppy/tus";
        window.upload = async (file, options) => {
          const uppy = new Uppy({ onBeforeFileAdded: () => true }).use(Tus, options);
          uppy.on("upload-progress", (_, progress) => window.say({ sent: progress.bytesUploaded }));
          uppy.addFile({ name: file.name, type: file.type, data: file });
          const { successful, failed } = await uppy.upload();
          if (failed.length > 0) throw new Error(String(failed[0].error));
          return successful[0].uploadURL;
        };`,
      resolveDir: import.meta.dirname ?? new URL(".", import.meta.url).pathname,
    },
    bundle: true,
    write: false,
    format: "iife",
    logLevel: "warning",
  });
  const page = `<!doctype html><input type="file"><script>${outputFiles[0].text.replaceAll("</script", "<\\/script")}</script>`;
  const server = createServer((_, response) => response.setHeader("Content-Type", "text/html; charset=utf-8").end(page));
  const { hostname, port } = new URL(options.origin);
  await new Promise((resolve) => server.listen(Number(port), hostname, resolve));
  const browser = await launch();
  try {
    const tab = await browser.newPage();
    await tab.exposeFunction("say", say);
    await tab.goto(options.origin);
    await tab.setInputFiles("input", options.file);
    const settings = { endpoint, headers, chunkSize: CHUNK_BYTES, retryDelays: RETRY_DELAYS_MS };
    return await tab.evaluate((tusOptions) => window.upload(document.querySelector("input").files[0], tusOptions), settings);
  } finally {
    await browser.close();
    server.close();
  }
}
