// @ts-check
// The files of an offer as a tree with checkboxes. Of ten thousand files only those are in the page that can be looked at: a folder that is
// closed has no rows, and an open one shows a page of them.

import { count, el, size } from "./view.js";

/** @typedef {import("./tallow.js").FileInfo} FileInfo */

const PAGE = 100; // rows

/** A folder of the offer. */
class Folder {
  /** @type {Map<string, Folder>} */
  folders = new Map();
  /** What lies right in it. @type {FileInfo[]} */
  files = [];
  total = 0;
  chosen = 0;
  /** Its checkbox, while it is shown. @type {HTMLInputElement | undefined} */
  box;

  /** @param {string} name @param {Folder | undefined} parent */
  constructor(name, parent) {
    this.name = name;
    this.parent = parent;
  }
}

export class FileTree {
  element = el("div", {});
  #files;
  #root = new Folder("", undefined);
  /** @type {Folder[]} by index of the file */
  #in = [];
  /** @type {Uint8Array} 1: chosen */
  #chosen;
  /** Checkboxes of files that are shown, by index. @type {Map<number, HTMLInputElement>} */
  #boxes = new Map();
  #changed;

  /** @param {readonly FileInfo[]} files @param {() => void} changed called when others are chosen */
  constructor(files, changed) {
    this.#files = files;
    this.#changed = changed;
    this.#chosen = new Uint8Array(files.length).fill(1);
    for (const file of files) {
      let folder = this.#root;
      for (const name of file.path.split("/").slice(0, -1)) {
        let inner = folder.folders.get(name);
        if (!inner) folder.folders.set(name, (inner = new Folder(name, folder)));
        folder = inner;
      }
      folder.files.push(file);
      this.#in[file.index] = folder;
      for (let f = /** @type {Folder | undefined} */ (folder); f; f = f.parent) {
        f.total++;
        f.chosen++;
      }
    }
    this.element.append(this.#list(this.#root, "Files"));
  }

  /** The indices of the chosen files; undefined when all are. */
  get chosen() {
    return this.#root.chosen === this.#root.total ? undefined : this.#files.filter(({ index }) => this.#chosen[index]).map(({ index }) => index);
  }

  /** What the chosen files have together. */
  get bytes() {
    return this.#files.reduce((sum, file) => sum + (this.#chosen[file.index] ? file.size : 0), 0);
  }

  /** In words: "3 of 10 files, 12 MB". */
  get summary() {
    return `${this.#root.chosen} of ${count(this.#root.total, "item")}, ${size(this.bytes)}`;
  }

  get none() {
    return this.#root.chosen === 0;
  }

  /** @param {Folder} folder @param {string} label */
  #list(folder, label) {
    const list = el("ul", { class: "files", "aria-label": label });
    this.#show(list, folder, 0);
    return list;
  }

  /** @param {HTMLUListElement} list @param {Folder} folder @param {number} from */
  #show(list, folder, from) {
    this.#forget(folder);
    const rows = [...folder.folders.values(), ...folder.files];
    list.replaceChildren(...rows.slice(from, from + PAGE).map((row) => (row instanceof Folder ? this.#folderRow(row) : this.#fileRow(row))));
    if (rows.length <= PAGE) return;
    const step = (/** @type {string} */ label, /** @type {number} */ to) => {
      const button = el("button", { type: "button", class: "small", onclick: () => this.#show(list, folder, to) }, label);
      button.disabled = to < 0 || to >= rows.length;
      return button;
    };
    const where = `${from + 1} to ${Math.min(from + PAGE, rows.length)} of ${rows.length}`;
    list.append(el("li", { class: "hint" }, el("span", { class: "name" }, where), step("Previous", from - PAGE), step("Next", from + PAGE)));
  }

  /** Lets go of the checkboxes under a folder, which are no longer shown. @param {Folder} folder */
  #forget(folder) {
    for (const { index } of folder.files) this.#boxes.delete(index);
    for (const inner of folder.folders.values()) {
      if (!inner.box) continue;
      inner.box = undefined;
      this.#forget(inner);
    }
  }

  /** @param {FileInfo} file */
  #fileRow(file) {
    const label = file.kind === "text" ? "Text" : file.name;
    const name = el("span", { class: "name" }, label);
    const bytes = el("span", { class: "size" }, file.kind === "directory" ? "folder" : size(file.size));
    if (this.#files.length === 1) return el("li", {}, name, bytes);
    const box = el("input", { type: "checkbox", onchange: () => this.#choose([file], box.checked) });
    box.checked = this.#chosen[file.index] === 1;
    this.#boxes.set(file.index, box);
    return el("li", {}, el("label", { class: "name" }, box, " ", label), bytes);
  }

  /** @param {Folder} folder */
  #folderRow(folder) {
    const box = el("input", { type: "checkbox", onchange: () => this.#choose(this.#all(folder), box.checked) });
    folder.box = box;
    this.#mark(folder);
    const inside = el("details", {}, el("summary", {}, count(folder.total, "item")));
    inside.addEventListener("toggle", (event) => {
      if (event.target !== inside) return; // one inside it
      inside.querySelector("ul")?.remove();
      if (inside.open) inside.append(this.#list(folder, folder.name));
      else this.#forget(folder);
    });
    return el("li", { class: "folder" }, el("label", { class: "name" }, box, " ", `${folder.name}/`), inside);
  }

  /** @param {Folder} folder @returns {FileInfo[]} */
  #all(folder) {
    const list = [];
    for (const todo = [folder]; todo.length > 0; ) {
      const next = /** @type {Folder} */ (todo.pop());
      for (const file of next.files) list.push(file);
      for (const inner of next.folders.values()) todo.push(inner);
    }
    return list;
  }

  /** @param {FileInfo[]} files @param {boolean} on */
  #choose(files, on) {
    /** @type {Set<Folder>} */
    const touched = new Set();
    for (const { index } of files) {
      if ((this.#chosen[index] === 1) === on) continue;
      this.#chosen[index] = on ? 1 : 0;
      const box = this.#boxes.get(index);
      if (box) box.checked = on;
      for (let f = /** @type {Folder | undefined} */ (this.#in[index]); f; f = f.parent) {
        f.chosen += on ? 1 : -1;
        touched.add(f);
      }
    }
    for (const folder of touched) this.#mark(folder);
    this.#changed();
  }

  /** @param {Folder} folder */
  #mark({ box, chosen, total }) {
    if (!box) return;
    box.checked = chosen === total;
    box.indeterminate = chosen > 0 && chosen < total;
  }
}
