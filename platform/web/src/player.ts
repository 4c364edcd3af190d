import Hls, { Events, type ErrorData } from "hls.js";
import { Content } from "./content";
import { make, plural } from "./dom";
import { PlaybackError } from "./errors";
import { loaderFor } from "./loader";
import type { Hasher } from "./sha256";
import { Source, type SourceStats } from "./source";

// Reading further ahead wastes bandwidth when the viewer leaves or seeks; 20 s ride over a change of node (guess).
const READ_AHEAD_SECONDS = 20;
const KEEP_BEHIND_SECONDS = 30;
// `Source` makes its own attempts; hls.js adds one, on what it likes better by then.
const RETRY = { maxNumRetry: 1, retryDelayMs: 500, maxRetryDelayMs: 500 };
const POLICY = { default: { maxTimeToFirstByteMs: 60_000, maxLoadTimeMs: 180_000, timeoutRetry: RETRY, errorRetry: RETRY } };
// Two ranges of the audio buffer are one when no more than this lies between them: a few samples, never a segment.
const AUDIO_TOLERANCE_SECONDS = 0.1;
const MASTER_PLAYLIST = "master.m3u8";

export type PlayerStats = SourceStats & { readonly hash: Hasher["backend"]; readonly level: string | null; readonly hasAudio: boolean };

/** Menus, which are shown where there is something to choose. Subtitles are in the browser's own. */
export interface Menus {
  readonly quality: HTMLSelectElement;
  /** Languages, and commentaries. */
  readonly sound: HTMLSelectElement;
}

/** Plays one content in a video element, from verified blocks only. */
export class Player {
  readonly #video: HTMLVideoElement;
  readonly #quality: HTMLSelectElement;
  readonly #sound: HTMLSelectElement;
  readonly #proof: HTMLElement;
  readonly #hasher: Hasher;
  readonly #onTrouble: (error: PlaybackError) => void;
  #source: Source | null = null;
  #hls: Hls | null = null;
  #mediaSource: MediaSource | null = null;
  #audioBuffer: { readonly buffered: TimeRanges } | null = null;
  /** The reason of the latest failed load, which says more than hls.js's error about it. */
  #cause: PlaybackError | null = null;

  constructor(video: HTMLVideoElement, { quality, sound }: Menus, proof: HTMLElement, hasher: Hasher, onTrouble: (error: PlaybackError) => void) {
    this.#video = video;
    this.#quality = quality;
    this.#sound = sound;
    this.#proof = proof;
    this.#hasher = hasher;
    this.#onTrouble = onTrouble;
    quality.addEventListener("change", () => {
      if (this.#hls !== null) this.#hls.nextLevel = Number(quality.value);
    });
    sound.addEventListener("change", () => {
      if (this.#hls !== null) this.#hls.audioTrack = Number(sound.value);
    });
    for (const event of ["timeupdate", "seeked"]) video.addEventListener(event, () => this.#endAudio());
  }

  /** `content` is as in the page's address; the index block must hash to `contentKey`. */
  async open(content: string, contentKey: string): Promise<void> {
    if (!Hls.isSupported()) throw new PlaybackError("unsupported", "no Media Source Extensions");
    this.#source = new Source({ content, hasher: this.#hasher, platform: location.origin, onChange: () => this.#showProof() });
    const opened = await Content.open(this.#source, contentKey, new AbortController().signal);
    const prefix = `${location.origin}/play/${content}/files/`;
    this.#hls?.destroy();
    this.#hls = new Hls({
      loader: loaderFor(opened, prefix, (error) => this.#loadFailed(error)),
      // CMAF segments are handed on as they are: nothing to do for a worker, and no blob: script for the CSP to allow.
      enableWorker: false,
      maxBufferLength: READ_AHEAD_SECONDS,
      maxMaxBufferLength: READ_AHEAD_SECONDS,
      backBufferLength: KEEP_BEHIND_SECONDS,
      manifestLoadPolicy: POLICY,
      playlistLoadPolicy: POLICY,
      fragLoadPolicy: POLICY,
    });
    this.#hls.on(Events.MANIFEST_PARSED, () => this.#offerLevels());
    for (const event of [Events.AUDIO_TRACKS_UPDATED, Events.AUDIO_TRACK_SWITCHED] as const) this.#hls.on(event, () => this.#offerSounds());
    this.#hls.on(Events.LEVEL_SWITCHED, () => this.#showLevel());
    this.#hls.on(Events.MEDIA_ATTACHED, (_, { mediaSource }) => (this.#mediaSource = mediaSource ?? null));
    this.#hls.on(Events.BUFFER_CREATED, (_, { tracks }) => (this.#audioBuffer = tracks.audio?.buffer ?? this.#audioBuffer));
    this.#hls.on(Events.FRAG_BUFFERED, () => this.#endAudio());
    this.#hls.on(Events.ERROR, (_, data) => this.#failed(data));
    this.#hls.loadSource(prefix + MASTER_PLAYLIST);
    this.#hls.attachMedia(this.#video);
  }

  /** Goes on after trouble, where it stopped. False when there is nothing to go on with. */
  resume(): boolean {
    if (this.#hls === null || this.#hls.levels.length === 0) return false;
    this.#cause = null;
    this.#hls.startLoad(this.#video.currentTime);
    return true;
  }

  stats(): PlayerStats {
    const none: SourceStats = { blocksVerified: 0, blocksRefused: 0, renewals: 0, switches: 0, node: null, tokens: [] };
    const level = this.#hls?.levels[this.#hls.currentLevel];
    return { ...(this.#source?.stats ?? none), hash: this.#hasher.backend, level: level === undefined ? null : nameOf(level), hasAudio: this.#hasAudio() };
  }

  #hasAudio(): boolean {
    return this.#hls !== null && (this.#hls.audioTracks.length > 0 || this.#hls.levels.some((level) => level.audioCodec !== undefined));
  }

  #loadFailed(error: PlaybackError): void {
    this.#cause = error;
    // Neither another try nor another rung makes these good.
    if (error.trouble !== "tampered" && error.trouble !== "not-found") return;
    this.#hls?.stopLoad();
    this.#onTrouble(error);
  }

  #failed(data: ErrorData): void {
    if (!data.fatal) return;
    this.#hls?.stopLoad();
    this.#onTrouble(this.#cause ?? new PlaybackError("broken", data.error.message || data.details));
  }

  /**
   * hls.js 1.7 takes a segment of less than 4 ms for a gap, and waits for ever when the last one of the audio is (encoder padding,
   * trimmed): the video stood still at its end without an `ended` event. So the end of the audio is told here, again after each seek back:
   * whatever is appended then takes back the end that was told before.
   */
  #endAudio(): void {
    if (this.#hls === null || this.#mediaSource?.readyState !== "open") return;
    const details = this.#hls.audioTracks[this.#hls.audioTrack]?.details;
    const last = details?.fragments.at(-1);
    if (details === undefined || details.live || last?.gap !== true) return;
    if (bufferedTo(this.#audioBuffer?.buffered, this.#video.currentTime) >= last.start - AUDIO_TOLERANCE_SECONDS) this.#hls.trigger(Events.BUFFER_EOS, { type: "audio" });
  }

  #offerLevels(): void {
    const levels = this.#hls?.levels ?? [];
    const options = levels.map((level, i) => new Option(nameOf(level), String(i))).reverse();
    this.#quality.replaceChildren(new Option("Auto", "-1"), ...options);
    this.#quality.disabled = levels.length < 2;
  }

  #offerSounds(): void {
    const tracks = this.#hls?.audioTracks ?? [];
    this.#sound.replaceChildren(...tracks.map((track, i) => new Option(track.name, String(i))));
    this.#sound.value = String(this.#hls?.audioTrack ?? 0);
    this.#sound.disabled = tracks.length < 2;
  }

  #showLevel(): void {
    const auto = this.#quality.options[0];
    const level = this.stats().level;
    if (auto !== undefined && this.#hls !== null) auto.text = this.#hls.autoLevelEnabled && level !== null ? `Auto (${level})` : "Auto";
  }

  #showProof(): void {
    const { blocksVerified, blocksRefused, renewals, node, hash } = this.stats();
    this.#proof.dataset["refused"] = String(blocksRefused > 0);
    const bad = blocksRefused === 0 ? "" : `; ${plural(blocksRefused, "bad one")} refused`;
    const verdict = blocksVerified === 0 ? `Checking every block${bad}` : `Every block verified${bad}`;
    const facts = [
      `${plural(blocksVerified, "block")} checked`,
      `${blocksRefused.toLocaleString("en")} refused`,
      node === null ? "" : `node ${node.length > 12 ? `…${node.slice(-8)}` : node}`,
      plural(renewals, "renewal"),
      `SHA-256 by ${hash === "javascript" ? "JavaScript (page not secure)" : hash}`,
    ];
    if (this.#proof.childElementCount === 0) this.#proof.append(make("summary"), make("ul"));
    const [summary, list] = this.#proof.children;
    if (summary !== undefined && summary.textContent !== verdict) summary.textContent = verdict;
    list?.replaceChildren(...facts.filter(Boolean).map((fact) => make("li", { textContent: fact })));
  }
}

/** Where the buffer that holds `time` ends; -1 when none does. */
function bufferedTo(ranges: TimeRanges | undefined, time: number): number {
  let end = -1;
  for (let i = 0; ranges !== undefined && i < ranges.length; i++) {
    if (ranges.start(i) > Math.max(time, end) + AUDIO_TOLERANCE_SECONDS) break;
    if (ranges.end(i) >= time - AUDIO_TOLERANCE_SECONDS) end = ranges.end(i);
  }
  return end;
}

function nameOf(level: { height: number; bitrate: number }): string {
  return level.height > 0 ? `${String(level.height)}p` : `${String(Math.round(level.bitrate / 1_000))} kb/s`;
}
