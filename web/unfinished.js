// @ts-check
// What earlier visits have left unfinished, or not saved: one card each, to go on with it, to save it, or to discard it.

import { byId, complaint, count, el, notSaved, savingButtons, say, size, textRow, title } from "./view.js";

/** @typedef {import("./tallow.js").UnfinishedTransfer} UnfinishedTransfer */

const day = 24 * 60 * 60 * 1000;
/** How long what has arrived is kept for the person, in ms. */
const kept = 7 * day;

export class Unfinished {
  #section = byId("unfinished", HTMLElement);
  #list = byId("unfinished-list", HTMLElement);
  #complain;
  #enter;
  #continued;
  /** @type {import("./tallow.js").Tallow | undefined} */
  #tallow;
  /** Counts the looks, which may overlap. */
  #looks = 0;

  /**
   * @param {(error: unknown) => void} complain
   * @param {(link: string) => void} enter enters the room of a link
   * @param {(transfer: import("./tallow.js").OutgoingTransfer) => void} continued called with what goes on here
   */
  constructor(complain, enter, continued) {
    this.#complain = complain;
    this.#enter = enter;
    this.#continued = continued;
  }

  /** Lists what there is now. @param {import("./tallow.js").Tallow} tallow */
  async show(tallow) {
    this.#tallow = tallow;
    const look = ++this.#looks;
    try {
      const items = await tallow.unfinished();
      if (look !== this.#looks) return;
      this.#list.replaceChildren(...items.map((item) => (item.done ? this.#arrived(item) : this.#card(item))));
      this.#section.hidden = items.length === 0;
    } catch (error) {
      this.#complain(error);
    }
  }

  /** What has arrived, and the person does not have yet. @param {UnfinishedTransfer} item */
  #arrived(item) {
    const heading = `Received ${title(item.files)}${item.names[0] ? ` from ${item.names[0]}` : ""}`;
    const note = el("p", { class: "hint" }, `${notSaved(item.files.filter(({ complete }) => complete))} It stays here until you save or clear it, at most until ${new Date(item.when + kept).toLocaleString()}.`);
    const problem = el("p", { class: "result bad", role: "alert" });
    const texts = el("ul", { class: "files" });
    const run = async (/** @type {() => Promise<unknown>} */ act) => {
      say(problem, "");
      try {
        await act();
        if (this.#tallow) await this.show(this.#tallow);
      } catch (error) {
        say(problem, complaint(error));
      }
    };
    const showTexts = async () => {
      const { files } = await item.received();
      for (const file of files) if (file.kind === "text") texts.append(textRow(await file.text(), () => file.markSaved()));
    };
    if (item.files.some(({ kind, complete }) => kind === "text" && complete)) showTexts().catch((error) => say(problem, complaint(error)));
    const save = (/** @type {import("./view.js").Saving} */ saving) =>
      run(() => item.saveAll(saving === "files" ? {} : saving === "zip" ? { as: saving } : { directory: saving }));
    const clear = el("button", { type: "button", onclick: () => run(() => item.discard()) }, "Clear");
    const buttons = el("p", { class: "buttons" }, ...savingButtons(save, (error) => say(problem, complaint(error))), clear);
    return el("article", { class: "card", "aria-label": heading }, el("h3", {}, heading), note, texts, problem, buttons);
  }

  /** @param {UnfinishedTransfer} item */
  #card(item) {
    const whom = [...new Set(item.names.filter(Boolean))].join(", ");
    const incoming = item.direction === "incoming";
    const heading = `${incoming ? "Receiving" : "Sending"} ${title(item.files)} (${size(item.total)})${whom && `${incoming ? " from " : " to "}${whom}`}`;
    const note = el("p", { class: "hint" }, `${size(item.bytes)} of ${size(item.total)} · ${new Date(item.when).toLocaleString()}`);
    const problem = el("p", { class: "result bad", role: "alert" });
    // Texts and folders cannot be chosen; without the files, and with nothing in them, there is nothing to choose.
    const { lacking } = item;
    const choosable = item.entered && lacking.length > 0;
    const some = item.files.filter(({ kind, size }) => kind === "file" && size > 0).length > lacking.length;
    const choose = choosable && (some || !item.remembered);
    if (choose && !some) note.append(" · Choose the same files again to go on.");
    if (choose && some) {
      const named = lacking.slice(0, 3).map(({ path }) => path).join(", ");
      const more = lacking.length > 3 ? `, and ${lacking.length - 3} more` : "";
      note.append(` · ${count(lacking.length, "file is", "files are")} still missing: ${named}${more}.`);
    }
    const again = async () => this.#tallow && this.show(this.#tallow);
    const run = async (/** @type {() => Promise<unknown>} */ act) => {
      try {
        say(problem, "");
        await act();
        await again();
      } catch (error) {
        if (item.lacking.length < lacking.length) return again(); // some were among what was chosen
        const lacks = error instanceof Error && "code" in error && error.code === "invalid-argument";
        say(problem, lacks ? `None of what is missing was among those. Choose ${lacking.length > 1 ? `the ${lacking.length} files` : "the one"} that you were sending.` : complaint(error));
      }
    };
    /** @param {string} label @param {boolean} folder */
    const chooser = (label, folder) => {
      const input = el("input", { type: "file", multiple: true, hidden: true, webkitdirectory: folder });
      input.addEventListener("change", () => {
        const chosen = [...(input.files ?? [])].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
        input.value = "";
        run(async () => this.#continued(await item.continue(chosen)));
      });
      return [el("button", { type: "button", class: choose ? "primary" : "", onclick: () => input.click() }, label), input];
    };
    const go = () => {
      if (!item.entered) this.#enter(item.link);
      else run(async () => this.#continued(await item.continue()));
    };
    /** @type {Node[]} */
    const buttons = [];
    if (!choose) buttons.push(el("button", { type: "button", class: "primary", onclick: go }, "Continue"));
    // Several picks may be needed: one takes files of one folder, or one folder. Of what the browser has kept access to it may refuse some.
    if (choosable && lacking.some(({ path }) => !path.includes("/"))) buttons.push(...chooser("Choose the files", false));
    if (choosable && lacking.some(({ path }) => path.includes("/"))) buttons.push(...chooser("Choose the folder", true));
    if (choose && some)
      buttons.push(el("button", { type: "button", onclick: () => run(async () => this.#continued(await item.continue([], { without: true }))) }, `Go on without ${lacking.length > 1 ? "them" : "it"}`));
    buttons.push(el("button", { type: "button", onclick: () => run(() => item.discard()) }, "Discard"));
    return el(
      "article",
      { class: "card", "aria-label": heading },
      el("h3", {}, heading),
      note,
      problem,
      el("p", { class: "buttons" }, ...buttons),
    );
  }
}
