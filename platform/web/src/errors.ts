/** Why playback cannot go on, in the words of the page. */
export type Trouble = "not-found" | "no-node" | "tampered" | "platform" | "unsupported" | "broken";

export class PlaybackError extends Error {
  override name = "PlaybackError";
  readonly trouble: Trouble;
  constructor(trouble: Trouble, detail: string) {
    super(detail);
    this.trouble = trouble;
  }
}

export const EXPLANATIONS: Readonly<Record<Trouble, { title: string; advice: string }>> = {
  "not-found": {
    title: "Video not found",
    advice: "The address may be mistyped, or the video was removed or is not published.",
  },
  "no-node": {
    title: "No storage node answers",
    advice: "The nodes that hold this video cannot be reached right now. Try again in a moment.",
  },
  tampered: {
    title: "Tampered data, and no honest copy",
    advice: "Every node that answers sent data that does not match the video's fingerprints. It was refused; nothing of it was played.",
  },
  platform: { title: "The platform does not answer", advice: "Check your connection and try again." },
  unsupported: {
    title: "This browser cannot play it",
    advice: "Verified playback needs Media Source Extensions. A current Chrome, Firefox, Edge or Safari has them.",
  },
  broken: { title: "The video cannot be played", advice: "Its data is as published, but the player cannot make sense of it." },
};

export function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}
