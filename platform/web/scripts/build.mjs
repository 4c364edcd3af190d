// Bundles the pages into dist/, which the platform serves: index.html, watch.html and assets/, with the licences of what is bundled.
import { build } from "esbuild";
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";

const root = new URL("..", import.meta.url);
const at = (path) => new URL(path, root).pathname;

await rm(at("dist"), { recursive: true, force: true });
await mkdir(at("dist/assets"), { recursive: true });
const [bundle] = await Promise.all([
  build({
    entryPoints: [at("src/home.ts"), at("src/watch.ts")],
    outdir: at("dist/assets"),
    bundle: true,
    format: "esm",
    target: "es2022",
    minify: true,
    legalComments: "none",
    metafile: true,
    logLevel: "warning",
  }),
  copyFile(at("static/index.html"), at("dist/index.html")),
  copyFile(at("static/watch.html"), at("dist/watch.html")),
  copyFile(at("static/style.css"), at("dist/assets/style.css")),
  copyFile(at("static/icon.svg"), at("dist/assets/icon.svg")),
]);

// What a package's licence wants to stand in every copy stands in one file.
const packages = new Set(Object.keys(bundle.metafile.inputs).map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]).filter(Boolean));
const licences = await Promise.all([...packages].sort().map(async (name) => {
  const folder = at(`node_modules/${name}`);
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
  if (file === undefined) throw new Error(`${name} has no licence file`);
  return `${name}\n\n${(await readFile(`${folder}/${file}`, "utf8")).trim()}\n`;
}));
await writeFile(at("dist/assets/LICENCES.txt"), licences.join(`\n${"-".repeat(72)}\n\n`));
