// @ts-check
// What earlier visits have left unfinished, or not saved: one card each, to go on with it, to save it, or to discard it.

import { byId, complaint, count, el, notSaved, saveOptions, savingButtons, say, size, textRow, title } from "./view.js";

/** @typedef {import("./tallow.js").UnfinishedTransfer} UnfinishedTransfer */

const day = 24 * 60 * 60 * 1000;
/** How long what is unfinished is kept after it was last gone on with, and for the person what has arrived, in ms. */
const keptFor = 7 * day;

export class Unfinished {
  #section = byId("unfinished", HTMLElement);
  #list = byId("unfinished-list", HTMLElement);
  #complain;
  #enter;
  #continued;
  #hold;
  /** @type {import("./tallow.js").Tallow | undefined} */
  #tallow;
  /** Counts the looks, which may overlap. */
  #looks = 0;
  /** How many cards are doing what they were asked to; and that a look waits for them, which would put others in their place. */
  #acting = 0;
  #due = false;

  /**
   * @param {(error: unknown) => void} complain
   * @param {(link: string) => void} enter enters the room of a link
   * @param {(transfer: import("./tallow.js").OutgoingTransfer) => void} continued called with what goes on here
   * @param {(saving: Promise<unknown>) => void} hold called with what the page must stay for
   */
  constructor(complain, enter, continued, hold) {
    this.#complain = complain;
    this.#enter = enter;
    this.#continued = continued;
    this.#hold = hold;
  }

  /** Lists what there is now. @param {import("./tallow.js").Tallow} tallow */
  async show(tallow) {
    this.#tallow = tallow;
    const look = ++this.#looks;
    try {
      const items = await tallow.unfinished();
      if (look !== this.#looks) return;
      this.#due = this.#acting > 0;
      if (this.#due) return;
      this.#list.replaceChildren(...items.map((item) => (item.done ? this.#arrived(item) : this.#card(item))));
      this.#section.hidden = items.length === 0;
      this.#section.setAttribute("aria-busy", "false");
    } catch (error) {
      this.#complain(error);
    }
  }

  /**
   * Does what a card was asked to. Until it is done nothing else can be asked of it.
   * @param {Element} card @param {() => Promise<unknown>} act @param {(error: unknown) => void} failed
   */
  async #run(card, act, failed) {
    const buttons = card.querySelectorAll("button");
    const disable = (/** @type {boolean} */ disabled) => buttons.forEach((button) => (button.disabled = disabled));
    this.#acting++;
    disable(true);
    try {
      await act();
      this.#due = true;
    } catch (error) {
      disable(false);
      failed(error);
    }
    if (--this.#acting === 0 && this.#due && this.#tallow) await this.show(this.#tallow);
  }

  /** What has arrived, and the person does not have yet. @param {UnfinishedTransfer} item */
  #arrived(item) {
    const heading = `Received ${title(item.files)}${item.names[0] ? ` from ${item.names[0]}` : ""}`;
    const kept = `${notSaved(item.files.filter(({ complete }) => complete))} It stays here until you save or clear it, at most until ${new Date(item.when + keptFor).toLocaleString()}.`;
    const note = el("p", { class: "hint" }, kept);
    const texts = el("ul", { class: "files" });
    const run = async (/** @type {string} */ what, /** @type {() => Promise<unknown>} */ act) => {
      say(note, what);
      await this.#run(card, act, (error) => {
        say(note, kept);
        this.#complain(error); // not in the card, which the next look takes away
      });
    };
    const showTexts = async () => {
      const { files } = await item.received();
      for (const file of files) if (file.kind === "text") texts.append(textRow(await file.text(), () => file.markSaved()));
    };
    if (item.files.some(({ kind, complete }) => kind === "text" && complete)) showTexts().catch(this.#complain);
    const save = (/** @type {import("./view.js").Saving} */ saving) => this.#hold(run("Saving…", () => item.saveAll(saveOptions(saving))));
    const clear = el("button", { type: "button", onclick: () => run("Clearing…", () => item.discard()) }, "Clear");
    const buttons = el("p", { class: "buttons" }, ...savingButtons(save, this.#complain), clear);
    const card = el("article", { class: "card", "aria-label": heading }, el("h3", {}, heading), note, texts, buttons);
    return card;
  }

  /** @param {UnfinishedTransfer} item */
  #card(item) {
    const whom = [...new Set(item.names.filter(Boolean))].join(", ");
    const incoming = item.direction === "incoming";
    const heading = `${incoming ? "Receiving" : "Sending"} ${title(item.files)} (${size(item.total)})${whom && `${incoming ? " from " : " to "}${whom}`}`;
    const note = el("p", { class: "hint" }, `${size(item.bytes)} of ${size(item.total)} · ${new Date(item.when).toLocaleString()} · Deleted on ${new Date(item.when + keptFor).toLocaleString()} unless it goes on`);
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
    const run = (/** @type {() => Promise<unknown>} */ act) => {
      say(problem, "");
      this.#run(card, act, (error) => {
        if (item.lacking.length < lacking.length) return (this.#due = true); // some were among what was chosen
        const lacks = error instanceof Error && "code" in error && error.code === "invalid-argument";
        say(problem, lacks ? `None of what is missing was among those. Choose ${lacking.length > 1 ? `the ${lacking.length} files` : "the one"} that you were sending.` : complaint(error));
      });
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
    const card = el(
      "article",
      { class: "card", "aria-label": heading },
      el("h3", {}, heading),
      note,
      problem,
      el("p", { class: "buttons" }, ...buttons),
    );
    return card;
  }
}
