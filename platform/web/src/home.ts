import * as api from "./api";
import type { ContentInfo, Visibility } from "./api";
import { about, byId, clock, make } from "./dom";

// Processing takes minutes; a second is quick enough for the eye.
const POLL_MS = 1_000;
const POLL_AFTER_FAILURE_MS = 3_000;

const session = byId("session", HTMLElement);
const signInForm = byId("sign-in", HTMLFormElement);
const uploadForm = byId("upload", HTMLFormElement);
const uploadNote = byId("upload-note", HTMLElement);
const uploadBar = byId("upload-bar", HTMLProgressElement);
const note = byId("note", HTMLElement);
const ownNote = byId("own-note", HTMLElement);
const confirmation = byId("confirm", HTMLDialogElement);
const confirmNote = byId("confirm-note", HTMLElement);
/** What the open dialog asks about. */
let asked: ContentInfo | null = null;
let me: string | null = null;
let uploading = false;
/** The upload that the note by the form speaks of, and what the note says of it. */
let uploaded: string | null = null;
let told = "";
/** Whether something of the user's was being processed when last seen. */
let moving = false;
let pollTrouble = "";
let timer: ReturnType<typeof setTimeout> | undefined;

signInForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const key = byId("api-key", HTMLInputElement);
  void attempt(byId("sign-in-note", HTMLElement), async () => {
    await api.signIn(key.value.trim());
    key.value = "";
    await refreshLists();
  });
});
byId("sign-out", HTMLButtonElement).addEventListener("click", () => {
  void attempt(note, async () => {
    await api.signOut();
    await refreshLists();
  });
});
uploadForm.addEventListener("submit", (event) => {
  event.preventDefault();
  void attempt(uploadNote, upload);
});
byId("confirm-no", HTMLButtonElement).addEventListener("click", () => confirmation.close());
byId("confirm-yes", HTMLButtonElement).addEventListener("click", () => {
  const content = asked;
  if (content !== null) void attempt(confirmNote, () => removeConfirmed(content));
});
window.addEventListener("beforeunload", (event) => {
  if (uploading) event.preventDefault();
});
void attempt(note, refreshLists);

function showUser(name: string | null): void {
  me = name;
  byId("user", HTMLElement).textContent = me ?? "";
  session.hidden = me === null;
  signInForm.hidden = me !== null;
  byId("own", HTMLElement).hidden = me === null;
}

async function refreshLists(): Promise<void> {
  clearTimeout(timer);
  let pause = POLL_AFTER_FAILURE_MS;
  try {
    const { contents, me: name } = await api.contents();
    showUser(name);
    showLists(contents);
    pause = POLL_MS;
  } finally {
    // After a failed poll too: what moved before still does.
    clearTimeout(timer);
    if (moving) timer = setTimeout(() => void poll(), pause);
  }
}

function showLists(all: readonly ContentInfo[]): void {
  const own = all.filter((content) => me !== null && (content.owner === me || content.state !== "published"));
  const open = all.filter((content) => content.state === "published" && content.visibility === "public");
  fill(byId("own-list", HTMLUListElement), own.map(ownRow));
  fill(byId("list", HTMLUListElement), open.map((content) => make("li", {}, link(content), facts(content))));
  byId("own-empty", HTMLElement).hidden = own.length > 0;
  byId("empty", HTMLElement).hidden = open.length > 0;
  moving = own.some(moves);
  tellOutcome(own.find((content) => content.id === uploaded));
}

/** What became of the upload that the note by the form speaks of. */
function tellOutcome(content: ContentInfo | undefined): void {
  // Another message may have taken its place; that one stays.
  if (content === undefined || moves(content) || uploadNote.textContent !== told) return;
  const name = `“${content.title}”`;
  if (content.state === "rejected") told = `${name} was rejected; see why below.`;
  else told = content.state === "ready" ? `${name} is ready: look at it and publish it below.` : "";
  if (uploadNote.textContent !== told) uploadNote.textContent = told;
}

function moves(content: ContentInfo): boolean {
  return content.state === "pending" || content.state === "processing";
}

async function upload(): Promise<void> {
  const file = byId("file", HTMLInputElement).files?.[0];
  if (file === undefined) throw new Error("Choose a file first.");
  if (file.size === 0) throw new Error("This file is empty (0 bytes). Choose another.");
  // The ending says nothing about the film.
  const title = byId("upload-title", HTMLInputElement).value.trim() || file.name.replace(/(?<=.)\.\w{1,5}$/, "");
  const visibility = byId("visibility", HTMLSelectElement).value as Visibility;
  const button = byId("upload-button", HTMLButtonElement);
  uploading = button.disabled = true;
  uploadBar.hidden = false;
  try {
    uploaded = null;
    const created = await api.createContent(title, visibility, file.size);
    const started = performance.now();
    await api.sendFile(created.upload, file, {
      onProgress: (sent) => {
        uploadBar.value = sent / file.size;
        uploadNote.textContent = sendingNote(sent, file.size, performance.now() - started);
      },
      onBreak: () => (uploadNote.textContent = "The connection broke. The upload goes on where it was as soon as the node answers; leave this page open."),
    });
    uploadNote.textContent = told = "Uploaded. The node is processing it now; see below.";
    uploaded = created.id;
    uploadForm.reset();
  } finally {
    uploading = button.disabled = false;
    uploadBar.hidden = true;
    uploadBar.value = 0;
    // After an error too: an upload that broke off stands in the list.
    moving = true;
    await poll();
  }
}

function sendingNote(sent: number, size: number, elapsedMs: number): string {
  const percent = `Sending: ${String(Math.floor((100 * sent) / size))} %`;
  const remaining = ((elapsedMs / 1_000) * (size - sent)) / Math.max(sent, 1);
  return elapsedMs > 2_000 && sent < size ? `${percent}, ${about(remaining)} left` : percent;
}

function ownRow(content: ContentInfo): HTMLLIElement {
  const row = make("li", {}, content.content_key === null ? make("span", { className: "name", textContent: content.title }) : link(content));
  row.append(make("span", { className: `badge ${content.state}`, textContent: content.state }), facts(content));
  if (moves(content)) row.append(progress(content), make("p", { className: "actions" }, removal(content, "Cancel upload")));
  if (content.state === "rejected") row.append(make("p", { className: "trouble-line", textContent: api.messageOf(content.error, 0) }), dismissal(content));
  if (content.state === "ready" || content.state === "published") row.append(actions(content));
  return row;
}

function progress(content: ContentInfo): HTMLElement {
  const now = content.progress;
  if (now === undefined || now === null || now.phase === "waiting") return make("p", { className: "facts", textContent: "waiting for the file" });
  const remaining = now.remaining_seconds === null ? "" : `, ${about(now.remaining_seconds)} left`;
  const bar = make("progress", { max: 100, value: now.percent, ariaLabel: `${content.title}: ${now.phase}` });
  return make("div", { className: "progress" }, bar, make("p", { className: "facts", textContent: `${now.phase} ${String(Math.floor(now.percent))} %${remaining}` }));
}

function actions(content: ContentInfo): HTMLElement {
  const row = make("p", { className: "actions" });
  if (content.state === "ready") {
    row.append(make("a", { className: "button", href: `/watch/${content.id}`, textContent: "Preview", ariaLabel: `Preview ${content.title}` }));
    row.append(action("Publish", "", content, () => api.publish(content.id)));
  }
  row.append(removal(content, "Delete"));
  return row;
}

function dismissal(content: ContentInfo): HTMLElement {
  return make("p", { className: "actions" }, action("Dismiss", "plain", content, () => api.remove(content.id)));
}

/** A button that does its work at once. */
function action(name: string, className: string, content: ContentInfo, work: () => Promise<unknown>): HTMLButtonElement {
  const button = make("button", { type: "button", className, textContent: name, ariaLabel: `${name} ${content.title}` });
  button.addEventListener("click", () => {
    button.disabled = true;
    void attempt(note, async () => {
      await work();
      await refreshLists();
    }).finally(() => (button.disabled = false));
  });
  return button;
}

/** A button that asks first. */
function removal(content: ContentInfo, name: string): HTMLButtonElement {
  const button = make("button", { type: "button", className: "plain danger", textContent: name, ariaLabel: `${name}: ${content.title}` });
  button.addEventListener("click", () => ask(content));
  return button;
}

function ask(content: ContentInfo): void {
  asked = content;
  const name = `“${content.title}”`;
  const [heading, text, no, yes] = moves(content)
    ? [`Cancel the upload of ${name}?`, "What has been sent and processed so far is thrown away. You can upload the film again.", "Go on", "Cancel the upload"]
    : [
        `Delete ${name}?`,
        "Links to it end at once, and whoever is watching is cut off within half a minute. The storage nodes remove it: those that are " +
          "running within seconds, others as soon as they are back. This cannot be undone, but you can upload the film again.",
        "Keep it",
        "Delete it",
      ];
  byId("confirm-heading", HTMLElement).textContent = heading;
  byId("confirm-text", HTMLElement).textContent = text;
  byId("confirm-no", HTMLButtonElement).textContent = no;
  byId("confirm-yes", HTMLButtonElement).textContent = yes;
  confirmNote.textContent = "";
  confirmation.showModal();
}

async function removeConfirmed(content: ContentInfo): Promise<void> {
  const button = byId("confirm-yes", HTMLButtonElement);
  button.disabled = true;
  try {
    await api.remove(content.id);
  } finally {
    button.disabled = false;
  }
  confirmation.close();
  const name = `“${content.title}”`;
  ownNote.textContent = moves(content) ? `The upload of ${name} is cancelled.` : `${name} is deleted: it plays no more, and the storage nodes remove it.`;
  // The button that was pressed is gone with its row.
  byId("own-heading", HTMLElement).focus();
  await attempt(note, refreshLists);
}

function link(content: ContentInfo): HTMLElement {
  const name = content.state === "published" ? (content.content_key ?? content.id) : content.id;
  return make("a", { className: "name", href: `/watch/${name}`, textContent: content.title });
}

function facts(content: ContentInfo): HTMLElement {
  const length = content.duration_ms === null ? "" : clock(content.duration_ms);
  const day = new Date(content.created * 1_000).toLocaleDateString(undefined, { dateStyle: "medium" });
  const visibility = content.visibility === "public" ? "" : content.visibility === "owner" ? "only me" : "unlisted";
  return make("p", { className: "facts", textContent: [length, content.owner, day, visibility].filter(Boolean).join(" · ") });
}

/** Leaves a list alone that would not change, so that polling does not take the keyboard focus from a button in it. */
function fill(list: HTMLUListElement, rows: HTMLLIElement[]): void {
  const fresh = make("ul", {}, ...rows);
  if (fresh.innerHTML !== list.innerHTML) list.replaceChildren(...rows);
}

async function attempt(where: HTMLElement, work: () => Promise<void>): Promise<void> {
  where.textContent = "";
  try {
    await work();
  } catch (error) {
    where.textContent = messageOf(error);
  }
}

/** Its message is set once, so that it is not read aloud at each poll, and goes when a poll succeeds; others stay. */
async function poll(): Promise<void> {
  let trouble = "";
  try {
    await refreshLists();
  } catch (error) {
    trouble = `The list is not up to date. ${messageOf(error)}`;
  }
  if (trouble === pollTrouble) return;
  if (trouble !== "" || note.textContent === pollTrouble) note.textContent = trouble;
  pollTrouble = trouble;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
