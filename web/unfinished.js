// @ts-check
// What earlier visits have left unfinished, or not saved: one card each, to go on with it, to save it, or to discard it.

import { byId, complaint, el, notSaved, savingButtons, say, size, textRow, title } from "./view.js";

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
    const wanted = item.files.filter(({ kind }) => kind === "file");
    const choosable = item.entered && !incoming && wanted.some((file) => file.size > 0);
    const choose = choosable && !item.remembered;
    if (choose) note.append(" · Choose the same files again to go on.");
    const run = async (/** @type {() => Promise<unknown>} */ act) => {
      try {
        say(problem, "");
        await act();
        if (this.#tallow) await this.show(this.#tallow);
      } catch (error) {
        const lacking = error instanceof Error && "code" in error && error.code === "invalid-argument";
        say(problem, lacking ? `Not all of the files are among those. Choose ${wanted.length > 1 ? `all ${wanted.length} of them` : "the one that was sent"}.` : complaint(error));
      }
    };
    const files = el("input", { type: "file", multiple: true, hidden: true, webkitdirectory: wanted.every(({ path }) => path.includes("/")) });
    files.addEventListener("change", () => {
      const chosen = [...(files.files ?? [])].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
      files.value = "";
      run(async () => this.#continued(await item.continue(chosen)));
    });
    const go = () => {
      if (!item.entered) this.#enter(item.link);
      else run(async () => this.#continued(await item.continue()));
    };
    const buttons = [el("button", { type: "button", onclick: () => run(() => item.discard()) }, "Discard")];
    // The browser may refuse what it has kept access to: then the person can still choose.
    if (choosable) buttons.unshift(el("button", { type: "button", class: choose ? "primary" : "", onclick: () => files.click() }, "Choose the files"));
    if (!choose) buttons.unshift(el("button", { type: "button", class: "primary", onclick: go }, "Continue"));
    return el(
      "article",
      { class: "card", "aria-label": heading },
      el("h3", {}, heading),
      note,
      problem,
      files,
      el("p", { class: "buttons" }, ...buttons),
    );
  }
}
