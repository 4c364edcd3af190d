import { chromium } from "playwright-core";

const FLAGS = [
  "--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
  "--autoplay-policy=no-user-gesture-required", "--mute-audio",
];

/** Chromium as the tests run it: $CHROMIUM or Debian's, as root. */
export function launch(moreFlags = []) {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: [...FLAGS, ...moreFlags] });
}

/** Collects what the page's console and its scripts complain about. */
export function complaintsOf(page) {
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(`page error: ${error.message}`));
  page.on("console", (message) => message.type() === "error" && complaints.push(`console: ${message.text()} (${message.location().url})`));
  return complaints;
}
