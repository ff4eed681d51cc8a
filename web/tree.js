// @ts-check
// The files of an offer as a tree with checkboxes. Of ten thousand files only those are in the page that can be looked at: a folder that is
// closed has no rows, and an open one shows a page of them. What is in a folder is sorted out when it is opened: a stranger's paths may be
// thousands of folders deep, each with others, and all of these would be millions.

import { count, el, size } from "./view.js";

/** @typedef {import("./tallow.js").FileInfo} FileInfo */

/**
 * A folder of the offer: everything under it, and how long the part of their paths is that leads there.
 * @typedef {{ name: string, files: readonly FileInfo[], prefix: number }} Folder
 */

const PAGE = 100; // rows

/** What lies right in a folder: folders, then files. @param {Folder} folder @returns {(Folder | FileInfo)[]} */
function inside({ files, prefix }) {
  /** @type {Map<string, { name: string, files: FileInfo[], prefix: number }>} */
  const folders = new Map();
  const own = [];
  for (const file of files) {
    const end = file.path.indexOf("/", prefix);
    if (end < 0) {
      own.push(file);
      continue;
    }
    const name = file.path.slice(prefix, end);
    let folder = folders.get(name);
    if (!folder) folders.set(name, (folder = { name, files: [], prefix: end + 1 }));
    folder.files.push(file);
  }
  return [...folders.values(), ...own];
}

export class FileTree {
  element = el("div", {});
  #files;
  /** @type {Uint8Array} 1: chosen */
  #chosen;
  #count;
  /** The files that a checkbox stands for. @type {WeakMap<HTMLInputElement, readonly FileInfo[]>} */
  #under = new WeakMap();
  #changed;

  /** @param {readonly FileInfo[]} files @param {() => void} changed called when others are chosen */
  constructor(files, changed) {
    this.#files = files;
    this.#changed = changed;
    this.#chosen = new Uint8Array(files.length).fill(1);
    this.#count = files.length;
    this.element.append(this.#list({ name: "Files", files, prefix: 0 }));
  }

  /** The indices of the chosen files; undefined when all are. */
  get chosen() {
    return this.#count === this.#files.length ? undefined : this.#files.filter(({ index }) => this.#chosen[index]).map(({ index }) => index);
  }

  /** In words: "3 of 10 files, 12 MB". */
  get summary() {
    const bytes = this.#files.reduce((sum, file) => sum + (this.#chosen[file.index] ? file.size : 0), 0);
    return `${this.#count} of ${count(this.#files.length, "item")}, ${size(bytes)}`;
  }

  get none() {
    return this.#count === 0;
  }

  /** @param {Folder} folder */
  #list(folder) {
    const list = el("ul", { class: "files", "aria-label": folder.name });
    this.#show(list, inside(folder), 0);
    return list;
  }

  /** @param {HTMLUListElement} list @param {(Folder | FileInfo)[]} rows @param {number} from */
  #show(list, rows, from) {
    list.replaceChildren(...rows.slice(from, from + PAGE).map((row) => ("files" in row ? this.#folderRow(row) : this.#fileRow(row))));
    if (rows.length <= PAGE) return;
    const step = (/** @type {string} */ label, /** @type {number} */ to) => {
      const button = el("button", { type: "button", class: "small", onclick: () => this.#show(list, rows, to) }, label);
      button.disabled = to < 0 || to >= rows.length;
      return button;
    };
    const where = `${from + 1} to ${Math.min(from + PAGE, rows.length)} of ${rows.length}`;
    list.append(el("li", { class: "hint" }, el("span", { class: "name" }, where), step("Previous", from - PAGE), step("Next", from + PAGE)));
  }

  /** @param {FileInfo} file */
  #fileRow(file) {
    const label = file.kind === "text" ? "Text" : file.name;
    const name = el("span", { class: "name" }, label);
    const bytes = el("span", { class: "size" }, file.kind === "directory" ? "folder" : size(file.size));
    if (this.#files.length === 1) return el("li", {}, name, bytes);
    return el("li", {}, el("label", { class: "name" }, this.#box([file]), " ", label), bytes);
  }

  /** @param {Folder} folder */
  #folderRow(folder) {
    const details = el("details", {}, el("summary", {}, count(folder.files.length, "item")));
    details.addEventListener("toggle", (event) => {
      if (event.target !== details) return; // one inside it
      details.querySelector("ul")?.remove();
      if (details.open) details.append(this.#list(folder));
    });
    return el("li", { class: "folder" }, el("label", { class: "name" }, this.#box(folder.files), " ", `${folder.name}/`), details);
  }

  /** @param {readonly FileInfo[]} files */
  #box(files) {
    const box = el("input", { type: "checkbox", onchange: () => this.#choose(files, box.checked) });
    this.#under.set(box, files);
    this.#mark(box);
    return box;
  }

  /** @param {readonly FileInfo[]} files @param {boolean} on */
  #choose(files, on) {
    for (const { index } of files) {
      if ((this.#chosen[index] === 1) === on) continue;
      this.#chosen[index] = on ? 1 : 0;
      this.#count += on ? 1 : -1;
    }
    for (const box of this.element.querySelectorAll("input")) this.#mark(box);
    this.#changed();
  }

  /** @param {HTMLInputElement} box */
  #mark(box) {
    const files = this.#under.get(box) ?? [];
    const chosen = files.reduce((sum, { index }) => sum + this.#chosen[index], 0);
    box.checked = chosen === files.length;
    box.indeterminate = chosen > 0 && chosen < files.length;
  }
}
