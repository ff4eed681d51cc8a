// @ts-check
// What is to be sent next: files and folders, chosen, dropped or pasted, and a text.

import { byId, count, el, say, size } from "./view.js";

/** @typedef {{ path: string, file: File, handle?: FileSystemFileHandle, folder?: FileSystemDirectoryHandle } | { path: string, directory: true }} Chosen */

const SHOWN = 100; // of the chosen files; thousands of rows would only slow the page down

export class Compose {
  /** @type {Chosen[]} */
  #chosen = [];
  #list = byId("chosen", HTMLUListElement);
  #text = byId("text", HTMLTextAreaElement);
  #lost = el("p", { class: "result bad", role: "alert" });
  #hint = el("p", { class: "hint", role: "status" });
  #changed;

  /** @param {() => void} changed called when there is something else to send */
  constructor(changed) {
    this.#changed = changed;
    this.#chooser("choose", "files");
    this.#chooser("choose-folder", "folder");
    this.#text.addEventListener("input", changed);
    this.#drops();
    document.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length === 0) return;
      event.preventDefault();
      this.#add(files.map((file) => ({ path: file.name, file })));
    });
  }

  /** What to send, in order; empty when there is nothing. @returns {(Chosen | string)[]} */
  get items() {
    const text = this.#text.value;
    return text.trim() ? [...this.#chosen, text] : [...this.#chosen];
  }

  /** In words: "3 files, 12 MB". */
  get summary() {
    const parts = [];
    const files = this.#chosen.filter((item) => "file" in item);
    const folders = this.#chosen.length - files.length;
    if (files.length) parts.push(`${count(files.length, "file")}, ${size(files.reduce((sum, { file }) => sum + file.size, 0))}`);
    if (folders) parts.push(count(folders, "empty folder"));
    if (this.#text.value.trim()) parts.push("a text");
    return parts.join(" and ");
  }

  clear() {
    this.#lost.remove();
    this.#hint.remove();
    this.#chosen = [];
    this.#text.value = "";
    this.#show();
  }

  /** @param {Chosen[]} more */
  #add(more) {
    this.#chosen = [...this.#chosen, ...more];
    this.#show();
  }

  /** @param {string} buttonId @param {string} inputId */
  #chooser(buttonId, inputId) {
    const button = byId(buttonId, HTMLButtonElement);
    const input = byId(inputId, HTMLInputElement);
    // Not showDirectoryPicker: Chromium leaves out, without a word, files whose names it finds unsafe (docs/decisions.md).
    button.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      const files = [...(input.files ?? [])];
      this.#add(files.map((file) => ({ path: file.webkitRelativePath || file.name, file })));
      input.value = ""; // the same files can be chosen again
      if (inputId !== "folder") return;
      say(this.#hint, `${files.length > 0 ? "" : "There are no files in it. "}Empty folders come along when you drop the folder here instead.`);
      this.#list.after(this.#hint);
    });
    // Phones have no folders to choose.
    button.hidden = inputId === "folder" && !("webkitdirectory" in input);
    button.disabled = false;
  }

  #drops() {
    const html = document.documentElement;
    document.addEventListener("dragover", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
      html.classList.add("dragging");
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) html.classList.remove("dragging");
    });
    document.addEventListener("drop", async (event) => {
      html.classList.remove("dragging");
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      // The items are gone after the event, the entries and files taken from them stay.
      const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
      // A handle, where the browser gives one, lets a later visit read the file again.
      const taken = items.map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile(), handle: /** @type {any} */ (item).getAsFileSystemHandle?.()?.catch(() => undefined) }));
      this.#reading(async (lost) => {
        /** @type {Chosen[]} */
        const found = [];
        for (const { entry, file, handle } of taken) {
          const kept = await handle;
          if (entry?.isDirectory) for (const item of await walk(entry.name, entryChildren(/** @type {FileSystemDirectoryEntry} */ (entry), kept?.kind === "directory" ? kept : undefined), lost)) found.push(item);
          else if (file) found.push({ path: file.name, file, ...(kept?.kind === "file" && { handle: kept }) });
          else lost.push(entry?.name ?? "");
        }
        return found;
      });
    });
  }

  /** Adds what a folder holds, and says what of it could not be read. With thousands of files that takes a moment. @param {(lost: string[]) => Promise<Chosen[]>} read */
  async #reading(read) {
    const note = el("p", { class: "hint", role: "status" }, "Reading the folder…");
    this.#list.after(note);
    /** @type {string[]} */
    const lost = [];
    try {
      this.#add(await read(lost));
    } finally {
      note.remove();
    }
    if (lost.length === 0) return;
    say(this.#lost, `${count(lost.length, "file or folder", "files or folders")} could not be read and will not be sent: ${lost[0]}${lost.length > 1 ? `, and ${lost.length - 1} more` : ""}.`);
    this.#list.after(this.#lost);
  }

  #show() {
    const rows = this.#chosen.slice(0, SHOWN).map((item) =>
      el(
        "li",
        {},
        el("span", { class: "name" }, item.path),
        el("span", { class: "size" }, "file" in item ? size(item.file.size) : "empty folder"),
        el("button", { type: "button", class: "small quiet", "aria-label": `Take ${item.path} out`, onclick: () => this.#takeOut(item) }, "Take out"),
      ),
    );
    if (this.#chosen.length > SHOWN) rows.push(el("li", { class: "hint" }, `and ${count(this.#chosen.length - SHOWN, "more file")}`));
    this.#list.replaceChildren(...rows);
    this.#changed();
  }

  /** @param {Chosen} item */
  #takeOut(item) {
    this.#chosen = this.#chosen.filter((other) => other !== item);
    this.#show();
    byId("choose", HTMLButtonElement).focus();
  }
}

/** How many files of a folder are asked for at a time. */
const ATONCE = 32;

/**
 * What is in a folder: a file's way to be had, and to be had again, or a folder's own children.
 * @typedef {{ name: string, file: () => Promise<File>, again: () => Promise<{ handle: FileSystemFileHandle, folder: FileSystemDirectoryHandle } | undefined> } | { name: string, children: Children }} Child
 * @typedef {() => Promise<Child[]>} Children
 */

/**
 * The files under a folder, and the empty folders. What cannot be read is left out, and named.
 * @param {string} path
 * @param {Children} children
 * @param {string[]} lost the paths of what cannot be read are added to it
 * @returns {Promise<Chosen[]>}
 */
async function walk(path, children, lost) {
  const inside = await children().catch(() => undefined);
  if (!inside) {
    lost.push(path);
    return [];
  }
  inside.sort((a, b) => (a.name < b.name ? -1 : 1));
  if (inside.length === 0) return [{ path, directory: true }];
  /** @type {Chosen[]} */
  const found = [];
  for (let i = 0; i < inside.length; i += ATONCE) {
    const some = inside.slice(i, i + ATONCE).map(async (child) => {
      const under = `${path}/${child.name}`;
      if ("children" in child) return () => walk(under, child.children, lost);
      const [file, again] = await Promise.all([child.file().catch(() => void lost.push(under)), child.again().catch(() => undefined)]);
      return async () => /** @type {Chosen[]} */ (file ? [{ path: under, file, ...again }] : []);
    });
    // Folders one after another, in their order: as many at once as there are would be too many.
    for (const items of await Promise.all(some)) for (const item of await items()) found.push(item);
  }
  return found;
}

/**
 * By entries, for handles leave files out (as above). What a file's handle is for can do without.
 * @param {FileSystemDirectoryEntry} folder
 * @param {FileSystemDirectoryHandle} [handle] the same folder's
 * @param {FileSystemDirectoryHandle} [top] the one that was dropped
 * @returns {Children}
 */
const entryChildren = (folder, handle, top = handle) => async () => {
  const reader = folder.createReader();
  /** @type {FileSystemEntry[]} */
  const list = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (batch.length === 0) break;
    list.push(...batch);
  }
  return list.map((child) => {
    const { name } = child;
    if (child.isFile) {
      const again = async () => (handle && top ? { handle: await handle.getFileHandle(name), folder: top } : undefined);
      return { name, file: () => new Promise((resolve, reject) => /** @type {FileSystemFileEntry} */ (child).file(resolve, reject)), again };
    }
    const inner = async () => handle?.getDirectoryHandle(name).catch(() => undefined);
    return { name, children: async () => entryChildren(/** @type {FileSystemDirectoryEntry} */ (child), await inner(), top)() };
  });
};
