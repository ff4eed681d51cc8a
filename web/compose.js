// @ts-check
// What is to be sent next: files and folders, chosen, dropped or pasted, and a text.

import { byId, count, el, size } from "./view.js";

/** @typedef {{ path: string, file: File, handle?: FileSystemFileHandle }} Chosen */

const SHOWN = 100; // of the chosen files; thousands of rows would only slow the page down

export class Compose {
  /** @type {Chosen[]} */
  #chosen = [];
  #list = byId("chosen", HTMLUListElement);
  #text = byId("text", HTMLTextAreaElement);
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
    if (this.#chosen.length) {
      const total = this.#chosen.reduce((sum, { file }) => sum + file.size, 0);
      parts.push(`${count(this.#chosen.length, "file")}, ${size(total)}`);
    }
    if (this.#text.value.trim()) parts.push("a text");
    return parts.join(" and ");
  }

  clear() {
    this.#chosen = [];
    this.#text.value = "";
    this.#show();
  }

  /** @param {Chosen[]} more */
  #add(more) {
    this.#chosen.push(...more);
    this.#show();
  }

  /** @param {string} buttonId @param {string} inputId */
  #chooser(buttonId, inputId) {
    const button = byId(buttonId, HTMLButtonElement);
    const input = byId(inputId, HTMLInputElement);
    button.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.#add([...(input.files ?? [])].map((file) => ({ path: file.webkitRelativePath || file.name, file })));
      input.value = ""; // the same files can be chosen again
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
      const taken = items.map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile(), handle: /** @type {any} */ (item).getAsFileSystemHandle?.() }));
      /** @type {Chosen[]} */
      const found = [];
      for (const { entry, file, handle } of taken) {
        const kept = await handle?.catch(() => undefined);
        if (entry?.isDirectory) await walk(entry, found);
        else if (file) found.push({ path: file.name, file, ...(kept?.kind === "file" && { handle: kept }) });
      }
      this.#add(found);
    });
  }

  #show() {
    const rows = this.#chosen.slice(0, SHOWN).map((item) =>
      el(
        "li",
        {},
        el("span", { class: "name" }, item.path),
        el("span", { class: "size" }, size(item.file.size)),
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

/**
 * The files under a dropped folder. What cannot be read is left out, as the browser's own folder chooser does.
 * @param {FileSystemEntry} entry
 * @param {Chosen[]} found
 */
async function walk(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve) => /** @type {FileSystemFileEntry} */ (entry).file(resolve, () => resolve(undefined)));
    if (file) found.push({ path: entry.fullPath.replace(/^\//, ""), file });
    return;
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const batch = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (batch.length === 0) return;
    for (const child of batch) await walk(child, found);
  }
}
