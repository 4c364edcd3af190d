// Bundles test/*.test.ts and runs them with node:test, so that Node 18 can.
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";

const root = new URL("..", import.meta.url).pathname;
const out = `${root}node_modules/.cache/imira-web-tests`;
const entryPoints = readdirSync(`${root}test`).filter((name) => name.endsWith(".test.ts")).map((name) => `${root}test/${name}`);

rmSync(out, { recursive: true, force: true });
await build({ entryPoints, outdir: out, bundle: true, format: "esm", platform: "node", target: "node18", outExtension: { ".js": ".mjs" }, sourcemap: "inline", logLevel: "warning" });
const files = readdirSync(out).map((name) => `${out}/${name}`);
const { status } = spawnSync(process.execPath, ["--enable-source-maps", "--test", ...files], { stdio: "inherit", cwd: root });
process.exit(status ?? 1);
