// Bundles the pages into dist/, which the platform serves: index.html, watch.html and assets/.
import { build } from "esbuild";
import { copyFile, mkdir, rm } from "node:fs/promises";

const root = new URL("..", import.meta.url);
const at = (path) => new URL(path, root).pathname;

await rm(at("dist"), { recursive: true, force: true });
await mkdir(at("dist/assets"), { recursive: true });
await Promise.all([
  build({
    entryPoints: [at("src/home.ts"), at("src/watch.ts")],
    outdir: at("dist/assets"),
    bundle: true,
    format: "esm",
    target: "es2022",
    minify: true,
    legalComments: "linked",
    logLevel: "warning",
  }),
  copyFile(at("static/index.html"), at("dist/index.html")),
  copyFile(at("static/watch.html"), at("dist/watch.html")),
  copyFile(at("static/style.css"), at("dist/assets/style.css")),
  copyFile(at("static/icon.svg"), at("dist/assets/icon.svg")),
]);
