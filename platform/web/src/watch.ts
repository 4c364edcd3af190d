import { ApiError, contentInfo, publish, type ContentInfo } from "./api";
import { byId, clock } from "./dom";
import { EXPLANATIONS, PlaybackError, type Trouble } from "./errors";
import { Player } from "./player";
import { chooseHasher } from "./sha256";

// Shorter waits are nobody's concern: the browser shows its own wheel.
const STALL_MS = 3_000;
const STALL_LOOK_MS = 250;

const video = byId("video", HTMLVideoElement);
const heading = byId("title", HTMLHeadingElement);
const trouble = byId("trouble", HTMLElement);
const retry = byId("retry", HTMLButtonElement);
const stall = byId("stall", HTMLElement);
const player = new Player(video, { quality: byId("quality", HTMLSelectElement), sound: byId("sound", HTMLSelectElement) }, byId("proof", HTMLElement), chooseHasher(), show);

declare global {
  interface Window {
    /** For tests: what the player counted so far. */
    imira: { stats: () => ReturnType<Player["stats"]> };
  }
}
window.imira = { stats: () => player.stats() };

retry.addEventListener("click", () => {
  trouble.hidden = true;
  if (!player.resume()) void start();
});
void start();
let wantingSince: number | null = null;
setInterval(showStall, STALL_LOOK_MS);

/** The note over a video that wants data and gets none. */
function showStall(): void {
  // A paused one wants a picture, a playing one what comes next.
  const wanting = trouble.hidden && !video.ended && video.readyState < (video.paused ? HTMLMediaElement.HAVE_CURRENT_DATA : HTMLMediaElement.HAVE_FUTURE_DATA);
  wantingSince = wanting ? (wantingSince ?? performance.now()) : null;
  stall.hidden = wantingSince === null || performance.now() - wantingSince < STALL_MS;
}

async function start(): Promise<void> {
  try {
    const content = decodeURIComponent(location.pathname.split("/")[2] ?? "");
    if (!/^([0-9a-f]{32}|[0-9a-f]{64})$/.test(content)) throw new PlaybackError("not-found", "not a content key");
    const info = await contentInfo(content);
    describe(info);
    if (info.content_key === null || (content.length === 64 && info.content_key !== content)) throw notPlayable(info);
    await player.open(content, info.content_key);
  } catch (error) {
    show(asPlaybackError(error));
  }
}

function describe(info: ContentInfo): void {
  heading.textContent = info.title;
  document.title = `${info.title} – iMira`;
  byId("facts", HTMLElement).textContent = [info.owner, info.duration_ms === null ? "" : clock(info.duration_ms)].filter(Boolean).join(" · ");
  const preview = byId("preview", HTMLElement);
  preview.hidden = info.state !== "ready";
  byId("publish", HTMLButtonElement).onclick = async () => {
    try {
      const { content_key: key } = await publish(info.id);
      preview.hidden = true;
      showPublished(`${location.origin}/watch/${key ?? info.id}`);
    } catch (error) {
      byId("preview-note", HTMLElement).textContent = error instanceof Error ? error.message : String(error);
    }
  };
}

function showPublished(address: string): void {
  const link = Object.assign(byId("published-link", HTMLAnchorElement), { href: address, textContent: address });
  const copy = byId("copy", HTMLButtonElement);
  copy.onclick = async () => {
    try {
      await navigator.clipboard.writeText(address);
      copy.textContent = "Copied";
    } catch {
      // Not allowed, or the page is not secure and has no clipboard.
      getSelection()?.selectAllChildren(link);
      copy.textContent = "Selected: copy it";
    }
  };
  byId("published", HTMLElement).hidden = false;
}

function notPlayable(info: ContentInfo): PlaybackError {
  const waiting = info.state === "pending" || info.state === "processing";
  return new PlaybackError("broken", waiting ? "It is still being processed; come back when it is ready." : `Its state is ${info.state}.`);
}

function asPlaybackError(error: unknown): PlaybackError {
  if (error instanceof PlaybackError) return error;
  if (error instanceof ApiError) return new PlaybackError(troubleOf(error.status), error.message);
  return new PlaybackError("broken", error instanceof Error ? error.message : String(error));
}

function troubleOf(status: number): Trouble {
  return [400, 401, 403, 404, 410].includes(status) ? "not-found" : "platform";
}

function show(error: PlaybackError): void {
  const { title, advice } = EXPLANATIONS[error.trouble];
  byId("trouble-title", HTMLElement).textContent = title;
  byId("trouble-advice", HTMLElement).textContent = advice;
  byId("trouble-detail", HTMLElement).textContent = error.message;
  retry.hidden = error.trouble === "not-found" || error.trouble === "unsupported";
  trouble.dataset["trouble"] = error.trouble;
  trouble.hidden = false;
  byId("stage", HTMLElement).dataset["started"] = String(video.readyState > 0);
}
