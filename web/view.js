// @ts-check
// How the page builds elements and puts numbers into words. Text from strangers only ever becomes text nodes.

/**
 * An element. A property that is a function is the listener of the event named after "on"; the others are attributes.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | boolean | ((event: Event) => void) | undefined>} [properties]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (typeof value === "string") element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/**
 * The element of the page with that id.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function byId(id, type) {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`no #${id} in the page`);
  return element;
}

/** Sets text only where it changes, so that nothing is read out or selected anew. @param {Element} element @param {string} text */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const number = (/** @type {number} */ digits) => new Intl.NumberFormat("en", { maximumSignificantDigits: digits });
const threeDigits = number(3);

/** 1500000 → "1.5 MB". @param {number} bytes */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  for (; bytes >= 999.5 && unit < units.length - 1; unit++) bytes /= 1000;
  return `${threeDigits.format(bytes)} ${units[unit]}`;
}

/** 75 → "1 min 15 s". @param {number} seconds */
export function duration(seconds) {
  const s = Math.max(1, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s < 600 && s % 60 ? ` ${s % 60} s` : ""}`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

/** (3, "file") → "3 files". @param {number} n @param {string} one @param {string} [many] */
export const count = (n, one, many = one + "s") => `${n} ${n === 1 ? one : many}`;

/**
 * What a list of files is called in one line: "a.txt and 4 more files".
 * @param {readonly { kind?: string, name: string }[]} files
 */
export function title(files) {
  const first = files.find((file) => file.kind !== "text");
  if (!first) return files.length === 1 ? "a text" : count(files.length, "text");
  const rest = files.length - 1;
  if (rest === 0) return first.name;
  return `${first.name} and ${rest} more`;
}

/** What an error says to a person. @param {unknown} error */
export function complaint(error) {
  if (error instanceof Error && "code" in error) return error.message;
  return "Something went wrong. Reload the page and try again.";
}

/**
 * Copies text, also where the page was not loaded securely and the clipboard API is missing.
 * @param {string} text
 * @param {HTMLButtonElement} button says "Copied" for a moment
 * @returns {Promise<boolean>} whether it could
 */
export async function copy(text, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = el("textarea", { class: "offscreen", readonly: true, "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    done = document.execCommand("copy");
    field.remove();
    button.focus();
  }
  const label = button.dataset.label ?? button.textContent ?? "";
  button.dataset.label = label;
  button.textContent = done ? "Copied" : "Copy it by hand";
  setTimeout(() => (button.textContent = label), 1500);
  return done;
}

/**
 * A text that was received.
 * @param {string} text
 * @param {() => void} copied
 */
export function textRow(text, copied) {
  const button = el("button", { type: "button", class: "small" }, "Copy");
  button.addEventListener("click", async () => {
    if (await copy(text, button)) copied();
  });
  return el("li", {}, el("span", { class: "name" }, "Text"), button, el("pre", {}, text));
}

/** How what is received is to be saved. @typedef {"files" | "zip" | FileSystemDirectoryHandle} Saving */

/** What saveAll() takes for that. @param {Saving} saving @returns {import("./tallow.js").SaveOptions} */
export const saveOptions = (saving) => (typeof saving === "string" ? { as: saving } : { directory: saving });

/** Asks for a folder, where the browser can; undefined when none was picked. @type {(() => Promise<FileSystemDirectoryHandle | undefined>) | undefined} */
export const pickFolder =
  "showDirectoryPicker" in globalThis
    ? async () => {
        try {
          return await /** @type {any} */ (globalThis).showDirectoryPicker({ id: "receive", mode: "readwrite" });
        } catch (error) {
          if (error instanceof DOMException && error.name === "AbortError") return undefined;
          throw error;
        }
      }
    : undefined;

/**
 * The buttons that save what has arrived.
 * @param {(saving: Saving) => void} save
 * @param {(error: unknown) => void} complain
 */
export function savingButtons(save, complain) {
  const button = (/** @type {string} */ label, /** @type {() => void} */ onclick) => el("button", { type: "button", class: "small", onclick }, label);
  const buttons = [button("Save all", () => save("files")), button("Save as one zip", () => save("zip"))];
  const pick = pickFolder;
  if (pick) buttons.push(button("Save into a folder…", () => pick().then((folder) => folder && save(folder), complain)));
  return buttons;
}

/** Says that what has arrived is not saved, and what it takes. @param {readonly { kind: string, name: string, size: number }[]} files */
export const notSaved = (files) => `Verified, not saved yet: ${title(files)} (${size(files.reduce((sum, file) => sum + file.size, 0))}).`;

/** As much of a text as that many bytes of UTF-8 take. @param {string} text @param {number} bytes */
export function shorten(text, bytes) {
  const characters = [...text.trim()];
  while (new TextEncoder().encode(characters.join("")).length > bytes) characters.pop();
  return characters.join("").trim();
}

/** Hands something made here to the browser's downloads. @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const href = URL.createObjectURL(blob);
  const anchor = el("a", { href, download: name, hidden: true });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(href), 60_000); // it has begun by then
}
