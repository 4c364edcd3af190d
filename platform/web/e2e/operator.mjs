// Looks at a running node's operator page at phone and desktop width, light and dark. Exit status 0 only if it shows the node and fits.
//   node e2e/operator.mjs --url <control listener> [--screenshots folder]
import { parseArgs } from "node:util";
import { complaintsOf, launch } from "./browser.mjs";

const { values: options } = parseArgs({ options: { url: { type: "string" }, screenshots: { type: "string" } } });
if (options.url === undefined) {
  console.error("usage: node e2e/operator.mjs --url <control listener> [--screenshots folder]");
  process.exit(2);
}

const SIZES = [[390, 844], [1280, 800]];
const TIMEOUT_MS = 30_000;
const problems = [];
const expect = (holds, message) => holds || problems.push(message);

const node = await (await fetch(`${options.url}/v1/node`)).json();
const browser = await launch();
try {
  for (const [width, height] of SIZES) {
    for (const colorScheme of ["light", "dark"]) await look(width, height, colorScheme);
  }
} catch (error) {
  problems.push(error instanceof Error ? error.message : String(error));
} finally {
  await browser.close();
}
for (const problem of problems) console.error(`operator.mjs: ${problem}`);
process.exit(problems.length === 0 ? 0 : 1);

async function look(width, height, colorScheme) {
  const where = `${String(width)} pixels, ${colorScheme}`;
  const page = await browser.newPage({ viewport: { width, height }, colorScheme });
  const complaints = complaintsOf(page);
  const foreign = [];
  page.on("request", (request) => !request.url().startsWith("data:") && new URL(request.url()).origin !== new URL(options.url).origin && foreign.push(request.url()));
  await page.goto(`${options.url}/`);
  await page.waitForFunction(() => document.getElementById("blocks").textContent !== "–" && document.getElementById("rate").textContent !== "–", null, { timeout: TIMEOUT_MS });
  const text = (id) => page.textContent(`#${id}`);
  expect((await text("peer-id")) === node.peer_id, `${where}: the node's id is ${String(await text("peer-id"))}`);
  expect(Number((await text("blocks")).replaceAll(",", "")) === node.storage.blocks, `${where}: ${String(await text("blocks"))} blocks, and the node has ${String(node.storage.blocks)}`);
  expect((await page.locator("#peers tr").count()) === node.peers, `${where}: not ${String(node.peers)} peers`);
  expect(["all is well", "needs attention"].includes(await text("state")), `${where}: the node is ${String(await text("state"))}`);
  const beyond = await page.evaluate(() => {
    const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
    return wide ? [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > window.innerWidth).map((one) => one.id || one.tagName) : null;
  });
  expect(beyond === null, `${where}: the page is wider than the window: ${String(beyond)}`);
  // What a phone does to small text, and a person to small targets: nothing here is below 11 pixels.
  const small = await page.evaluate(() => [...document.querySelectorAll("body *")].filter((one) => one.childElementCount === 0 && one.textContent.trim() !== "" && one.checkVisibility() && Number.parseFloat(window.getComputedStyle(one).fontSize) < 11 && !["SCRIPT", "STYLE"].includes(one.tagName)).map((one) => one.textContent));
  expect(small.length === 0, `${where}: too small to read: ${small.join(", ")}`);
  problems.push(...complaints.map((complaint) => `${where}: ${complaint}`), ...foreign.map((url) => `${where}: the page asked ${url}`));
  if (options.screenshots !== undefined) await page.screenshot({ path: `${options.screenshots}/${String(width)}-${colorScheme}.png`, fullPage: true });
  await page.close();
}
