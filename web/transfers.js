// @ts-check
// Offers and transfers: one card each. Also what lasts as long as a transfer runs: the screen stays on and closing the page warns.

import { isOver, messages } from "./tallow.js";
import { FileTree } from "./tree.js";
import { byId, complaint, count, download, duration, el, notSaved, pickFolder, saveOptions, savingButtons, say, shorten, size, textRow, title } from "./view.js";

/**
 * @typedef {import("./tallow.js").Room} Room
 * @typedef {import("./tallow.js").Offer} Offer
 * @typedef {import("./tallow.js").Delivery} Delivery
 * @typedef {import("./tallow.js").DeliveryState} DeliveryState
 * @typedef {import("./tallow.js").IncomingTransfer} IncomingTransfer
 * @typedef {import("./tallow.js").OutgoingTransfer} OutgoingTransfer
 * @typedef {import("./tallow.js").ReceivedFile} ReceivedFile
 */

const LISTED = 100; // files per card
const GONE = 3; // offers of one sender that are gone and still shown
const KEPT = 60 * 60 * 1000; // ms that a browser's downloads, which tell nothing of themselves, have for reading what they were handed
const SAVED_BY_ITSELF = 20; // more downloads at once are left to "Save all", after which the browser asks

/** @typedef {import("./view.js").Saving} Saving */

/** Whether it can be tried again. @param {DeliveryState} state */
const repeatable = (state) => isOver(state) && state !== "done";
/** Whether something has arrived that the person does not have yet. @param {OutgoingTransfer | IncomingTransfer} transfer @returns {transfer is IncomingTransfer} */
const isUnsaved = (transfer) => "from" in transfer && transfer.available && !transfer.saved;
/** Whether it has ended with somebody because they are away, and goes on when they are back. @param {OutgoingTransfer | IncomingTransfer} transfer */
const isAway = (transfer) => transfer.stats().recipients.some(({ code }) => code === "peer-gone");
/** Whether it could still go on though it has ended: for that, or because the recipient's storage failed. @param {OutgoingTransfer | IncomingTransfer} transfer */
const mayGoOn = (transfer) => isAway(transfer) || transfer.stats().recipients.some(({ code }) => code === "storage-failed");
/** Bytes flow, or are to flow again by themselves: the screen stays on. @type {ReadonlySet<DeliveryState>} */
const MOVING = new Set(["transferring", "interrupted", "verifying", "saving"]);

export class Transfers {
  #offers = byId("offers", HTMLElement);
  #list = byId("transfer-list", HTMLElement);
  /** The transfers that are not over. @type {Set<OutgoingTransfer | IncomingTransfer>} */
  #open = new Set();
  /** Of these, those of which somebody has a part, paused or not: closing the page would interrupt them. @type {Map<OutgoingTransfer | IncomingTransfer, number>} percent */
  #running = new Map();
  /** Of these, those that are not paused. @type {Set<OutgoingTransfer | IncomingTransfer>} */
  #moving = new Set();
  /** The incoming ones. @type {Set<IncomingTransfer>} */
  #incoming = new Set();
  /** Of these, those that are written straight into a folder. @type {WeakSet<OutgoingTransfer | IncomingTransfer>} */
  #straight = new WeakSet();
  /** The one that this page is in. @type {Room | undefined} */
  #room;
  /** How many are being put where the person wants them: into a folder, which takes as long as copying them does, or a zip. */
  #saving = 0;
  /** @type {WeakSet<Promise<unknown>>} */
  #followed = new WeakSet();
  /** @type {WakeLockSentinel | undefined} */
  #wakeLock;
  /** The browser is being asked for the lock, or has said no. */
  #asking = false;
  #refused = false;
  #complain;
  #memoryLimit = Infinity;
  #askedToKeep = false;

  /** @param {(error: unknown) => void} complain */
  constructor(complain) {
    this.#complain = complain;
    window.addEventListener("beforeunload", (event) => {
      if (!this.#running.size && !this.#saving && !this.#losing) return;
      event.preventDefault();
      event.returnValue = true; // for browsers that want this one
    });
    document.addEventListener("visibilitychange", () => {
      this.#refused = false;
      this.#holdScreen();
    });
  }

  /**
   * @param {Room} room
   * @param {number} memoryLimit the most that can be received, in bytes; Infinity where there is a disk
   */
  show(room, memoryLimit) {
    this.#memoryLimit = memoryLimit;
    this.#room = room;
    this.#offers.replaceChildren();
    /** @type {Map<string, { card: HTMLElement, from: string }>} */
    const cards = new Map();
    /** Of offers that are gone, by sender, the oldest first. @type {Map<string, HTMLElement[]>} */
    const gone = new Map();
    const add = (/** @type {Offer} */ offer) => {
      cards.get(offer.id)?.card.remove(); // an offer that is repeated takes the place of the earlier one
      const card = this.#offerCard(room, offer);
      cards.set(offer.id, { card, from: offer.from.id });
      this.#offers.append(card);
    };
    room.addEventListener("offer", (event) => add(event.detail));
    room.addEventListener("offerwithdrawn", ({ detail }) => {
      const { card, from } = cards.get(detail.id) ?? {};
      cards.delete(detail.id);
      if (!card?.isConnected || !from) return;
      // The list can be large, and a member can make and withdraw offers without end.
      card.replaceChildren(
        ...card.querySelectorAll("h2"),
        el("p", { class: "result" }, `The offer is gone. ${detail.code ? messages[detail.code] : ""}`),
        el("p", { class: "buttons" }, el("button", { type: "button", onclick: () => card.remove() }, "Dismiss")),
      );
      const shown = [...(gone.get(from) ?? []).filter((other) => other.isConnected), card];
      for (const oldest of shown.splice(0, shown.length - GONE)) oldest.remove();
      gone.set(from, shown);
    });
    for (const offer of room.offers) add(offer);
    // What an earlier page was receiving goes on; what it was sending waits for its files (unfinished.js).
    const resumed = (/** @type {OutgoingTransfer | IncomingTransfer} */ transfer) => {
      if ("from" in transfer) this.#track(transfer, new IncomingCard(transfer, transfer.from.name || "Somebody", this.#complain, usual(transfer.files), this.hold, this.#memoryLimit === Infinity));
    };
    room.addEventListener("transfer", ({ detail }) => resumed(detail));
    for (const transfer of room.transfers) resumed(transfer);
  }

  /** Whether something is under way, or waits in that room and could go on there. @param {Room | undefined} room */
  busy(room) {
    return this.#open.size > 0 || this.#saving > 0 || Boolean(room && (this.unfinished(room) || room.transfers.some(isUnsaved)));
  }

  /** Whether something is under way in that room, or could go on there: leaving ends it. @param {Room} room */
  unfinished(room) {
    return room.transfers.some((transfer) => !isOver(transfer.state) || mayGoOn(transfer));
  }

  /** The room is being left: no later page comes back to what has arrived there. */
  left() {
    this.#room = undefined;
  }

  /**
   * Whether something has arrived that is not saved, and that no later page comes back to: its room was left, or keeps nothing, or there is no disk; or is half in
   * a folder, and waits for its sender.
   */
  get #losing() {
    const here = this.#room?.transfers ?? [];
    const keeping = this.#memoryLimit === Infinity && this.#room?.resumable ? here : [];
    return [...this.#incoming].some((transfer) => isUnsaved(transfer) && !keeping.includes(transfer)) || here.some((transfer) => this.#straight.has(transfer) && isAway(transfer));
  }

  /** What has arrived in a room and was not saved, in bytes. @param {Room} room */
  async unsaved(room) {
    const lists = await Promise.all(room.transfers.filter(isUnsaved).map(({ state, finished }) => (isOver(state) ? finished : undefined)));
    return total(lists.flatMap((result) => (result?.files ?? []).filter(({ saved }) => !saved)));
  }

  /** @param {OutgoingTransfer} transfer */
  sent(transfer) {
    const card = new OutgoingCard(transfer, this.#complain, () => this.#follow(transfer, card));
    this.#track(transfer, card);
  }

  /** Asks the browser, once, not to clear what is received when space gets short. It may ask the person in turn; nothing waits for that. */
  #keepStorage() {
    if (this.#askedToKeep) return;
    this.#askedToKeep = true;
    navigator.storage?.persist?.().catch(() => {});
  }

  /** @param {Room} room @param {Offer} offer */
  #offerCard(room, offer) {
    const from = offer.from.name || "Somebody";
    const heading = el("h2", { tabindex: "-1" }, el("strong", {}, from), ` wants to send you ${what(offer.files, offer.totalSize)}`);
    const problem = el("p", { class: "result bad", role: "alert" });
    // The answer did not get through, for want of space say: the offer can still be answered.
    const again = (/** @type {unknown} */ error) => {
      if (!room.offers.includes(offer)) return false;
      say(problem, complaint(error));
      this.#offers.append(card);
      return true;
    };
    const summary = el("p", { class: "hint" });
    const space = el("p", { class: "result bad", role: "status" });
    // An estimate, so it refuses nothing: what finds no room waits for it.
    const lookForSpace = async () => {
      const onDisk = this.#memoryLimit === Infinity;
      const free = onDisk ? await freeSpace() : Infinity;
      const need = tree.bytes;
      straight.hidden = !pickFolder || (onDisk ? free >= 2 * need : need <= this.#memoryLimit);
      const unsaved = await this.unsaved(room);
      const taken = unsaved > 0 ? ` ${size(unsaved)} is taken by what you have not saved yet: save it, then clear it. What your browser downloads takes its space here for an hour more.` : "";
      say(space, free < 2 * need ? `The browser says that ${size(free)} is free here, and this needs ${size(need)}, and as much again to be saved from here.${taken} Accept less of it, or all: what finds no room waits for some.` : "");
    };
    const tree = new FileTree(offer.files, () => {
      say(summary, tree.chosen ? `Chosen: ${tree.summary}` : "");
      void lookForSpace();
      yes.disabled = tree.none;
    });
    const how = howToSave(offer);
    /** @param {() => Promise<Saving | undefined>} choose @param {boolean} [directly] into the folder that is chosen */
    const accept = async (choose, directly = false) => {
      /** @type {Saving | undefined} */
      let saving;
      try {
        saving = await choose();
      } catch (error) {
        return say(problem, complaint(error));
      }
      if (!saving || !card.isConnected) return;
      card.remove();
      if (!directly) this.#keepStorage();
      try {
        const transfer = offer.accept({ files: tree.chosen, ...(directly && { ...saveOptions(saving), directly }) });
        const running = new IncomingCard(transfer, from, this.#complain, saving, this.hold, this.#memoryLimit === Infinity, directly);
        if (directly) this.#straight.add(transfer);
        this.#track(transfer, running);
        transfer.finished.catch((error) => again(error) && running.clear());
      } catch (error) {
        if (!again(error)) this.#complain(error);
      }
    };
    const why = el("input", { type: "text", class: "why", maxlength: "200", placeholder: "Why not? They see it.", "aria-label": "Why not, if you decline", autocomplete: "off" });
    const decline = () => {
      card.remove();
      offer.decline(shorten(why.value, 200)).catch((error) => again(error) || this.#complain(error));
    };
    const yes = el("button", { type: "button", class: "primary", onclick: () => accept(how.saving) }, "Accept");
    // For what finds no room here. Where it cannot be done it is never shown.
    const straight = el("p", { class: "hint", hidden: true });
    const pick = pickFolder;
    if (pick) {
      const button = el("button", { type: "button", onclick: () => accept(pick, true) }, "Save straight into a folder…");
      straight.append(button, " This takes no room here, but cannot be gone on with after a reload or a crash of this page.");
    }
    const buttons = el("p", { class: "buttons" }, yes, el("button", { type: "button", onclick: decline }, "Decline"), how.element, why);
    const card = el("section", { class: "card offer", "aria-label": `Offer from ${from}` }, heading, tree.element, summary, space, straight, problem, buttons);
    void lookForSpace();
    if (!offer.from.verified) buttons.before(el("p", { class: "hint" }, "Accept only what you expect from someone you know."));
    if (offer.totalSize > this.#memoryLimit)
      buttons.before(el("p", { class: "result bad" }, `This browser can hold ${size(this.#memoryLimit)} here, which is less than this.`));
    return card;
  }

  /** @param {OutgoingTransfer | IncomingTransfer} transfer @param {OutgoingCard | IncomingCard} card */
  #track(transfer, card) {
    byId("transfers", HTMLElement).hidden = false;
    this.#list.prepend(card.element);
    if ("from" in transfer) this.#incoming.add(transfer);
    const update = () => {
      this.#follow(transfer, card);
      const stats = transfer.stats();
      card.update(stats.recipients);
      this.#note(transfer, !isOver(stats.state), stats); // a retry makes an ended transfer run again
    };
    transfer.addEventListener("progress", update);
    update();
  }

  /** Shows how a transfer ends; a retry has an end of its own, and so has one that goes on because the other end is back. @param {OutgoingTransfer | IncomingTransfer} transfer @param {OutgoingCard | IncomingCard} card */
  #follow(transfer, card) {
    if (this.#followed.has(transfer.finished)) return;
    this.#followed.add(transfer.finished);
    transfer.finished.then(
      (result) => card.finish(result),
      (error) => {
        card.fail(error);
        this.#note(transfer, false, transfer.stats());
      },
    );
  }

  /**
   * Notes what a transfer does, for all that lasts as long as it.
   * @param {OutgoingTransfer | IncomingTransfer} transfer
   * @param {boolean} open
   * @param {import("./tallow.js").TransferStats} stats
   */
  #note(transfer, open, { recipients, percent }) {
    const moving = open && recipients.some(({ state }) => MOVING.has(state));
    if (open) this.#open.add(transfer);
    else this.#open.delete(transfer);
    if (moving || (open && recipients.some(({ state }) => state === "paused"))) this.#running.set(transfer, percent);
    else this.#running.delete(transfer);
    if (moving) this.#moving.add(transfer);
    else this.#moving.delete(transfer);
    this.#holdScreen();
    this.#showTitle();
  }

  /** Keeps the screen on, and has closing warn, while what was received is being saved. @param {Promise<unknown>} saving */
  hold = async (saving) => {
    this.#saving++;
    this.#holdScreen();
    try {
      await saving;
    } finally {
      this.#saving--;
      this.#holdScreen();
    }
  };

  #showTitle() {
    const percents = [...this.#running.values()];
    document.title = percents.length ? `${Math.floor(Math.min(...percents))} % – Tallow` : "Tallow";
  }

  /** Keeps the screen on while something moves. Whoever hides the page takes the lock away: it is asked for again when the page is back. */
  async #holdScreen() {
    if (!("wakeLock" in navigator) || this.#asking) return;
    const needed = () => this.#moving.size > 0 || this.#saving > 0;
    if (needed() && !this.#refused && document.visibilityState === "visible" && (this.#wakeLock?.released ?? true)) {
      this.#asking = true;
      try {
        this.#wakeLock = await navigator.wakeLock.request("screen");
      } catch {
        this.#refused = true; // by battery saver say: the transfer goes on, the screen may go dark
      }
      this.#asking = false;
    }
    if (needed()) return;
    this.#refused = false;
    this.#wakeLock?.release();
    this.#wakeLock = undefined;
  }
}

/** What both kinds of card share. */
class Card {
  #list = el("ul", { class: "deliveries" });
  /** @type {Map<string, DeliveryRow>} */
  #rows = new Map();
  result = el("p", { class: "result", role: "status" });
  files;
  #pause = el("button", { type: "button", class: "small" }, "Pause");
  #cancel;
  #clear = el("button", { type: "button", class: "small quiet" }, "Clear");
  #transfer;
  /** What the button does is resume. */
  #paused = false;
  #held = 0;
  /** The one other is the sender. */
  incoming;

  /**
   * @param {OutgoingTransfer | IncomingTransfer} transfer
   * @param {string} heading
   * @param {(error: unknown) => void} complain
   * @param {(id: string) => DeliveryActions} actions
   * @param {string} cancel what the button is called that ends all of it
   */
  constructor(transfer, heading, complain, actions, cancel) {
    this.actions = actions;
    this.#transfer = transfer;
    this.incoming = "from" in transfer;
    this.#cancel = el("button", { type: "button", class: "small" }, cancel);
    this.files = fileList(transfer.files);
    this.#pause.addEventListener("click", () => (this.#paused ? transfer.resume() : transfer.pause()).catch(complain));
    this.#cancel.addEventListener("click", () => transfer.cancel().catch(complain));
    this.#clear.addEventListener("click", () => this.clear());
    this.element = el(
      "article",
      { class: "card transfer", "aria-label": heading },
      el("header", {}, el("h3", {}, heading), el("span", { class: "buttons" }, this.#pause, this.#cancel, this.#clear)),
      this.#list,
      this.result,
      el("details", {}, el("summary", {}, count(transfer.files.length, "item")), this.files),
    );
  }

  clear() {
    this.element.remove();
    const section = byId("transfers", HTMLElement);
    section.hidden = !section.querySelector("article");
  }

  /** @param {readonly Delivery[]} deliveries @param {boolean} [waits] for others who may come */
  update(deliveries, waits = false) {
    for (const delivery of deliveries) {
      let row = this.#rows.get(delivery.peer);
      if (!row) {
        row = new DeliveryRow(delivery, this.actions(delivery.peer));
        row.incoming = this.incoming;
        this.#rows.set(delivery.peer, row);
        this.#list.append(row.element);
      }
      row.update(delivery);
    }
    const running = deliveries.filter((d) => !isOver(d.state));
    if (running.length > 0) {
      say(this.result, "");
      this.result.classList.remove("bad");
    }
    // Nobody but the recipient can do something about its disk: to go on then means to try again.
    this.#paused = this.#transfer.paused || (this.incoming && running.some((d) => d.state === "paused" && d.code === "disk-full"));
    say(this.#pause, this.#paused ? "Resume" : "Pause");
    const pausable = running.some((d) => d.state === "transferring" || d.state === "paused" || d.state === "interrupted");
    this.#pause.hidden = running.length === 0 || !(pausable || this.#paused);
    this.#cancel.hidden = running.length === 0;
    this.#clear.hidden = waits || running.length > 0;
  }

  /** Keeps it from being cleared. @param {boolean} held */
  holdClear(held) {
    this.#held += held ? 1 : -1;
    this.#clear.disabled = this.#held > 0;
  }

  /** Says something else of a delivery than its state. @param {string} peer @param {string} text */
  note(peer, text) {
    this.#rows.get(peer)?.note(text);
  }

  /** @param {unknown} error */
  fail(error) {
    say(this.result, complaint(error));
    this.result.classList.add("bad");
    this.#pause.hidden = this.#cancel.hidden = true;
    this.#clear.hidden = false;
  }
}

class OutgoingCard extends Card {
  #limit = el("input", { type: "number", min: "0", step: "any", inputmode: "decimal", placeholder: "none" });
  #limitRow = el("p", { class: "limit" }, el("label", {}, "Limit speed ", this.#limit, " MB/s"));
  #stop = el("button", { type: "button", class: "small" }, "Stop offering");
  #receipt = el("button", { type: "button", class: "small" }, "Save the receipt");
  #transfer;

  /** @param {OutgoingTransfer} transfer @param {(error: unknown) => void} complain @param {() => void} retried */
  constructor(transfer, complain, retried) {
    const actions = (/** @type {string} */ id) => ({
      cancel: () => transfer.cancel(id).catch(complain),
      retry: () => transfer.retry(id).then(retried).catch(complain),
    });
    super(transfer, `Sending ${what(transfer.files, total(transfer.files))}`, complain, actions, "Cancel all");
    this.#limit.addEventListener("change", () => {
      if (!this.#limit.reportValidity()) return; // the limit stays as it was
      const bytes = (this.#limit.valueAsNumber || 0) * 1e6; // nothing is no limit
      if (bytes === 0) this.#limit.value = "";
      transfer.setTotalBandwidthLimit(bytes).catch(complain);
    });
    this.#stop.addEventListener("click", () => transfer.stopOffering().catch(complain));
    this.#receipt.addEventListener("click", () => this.#saveReceipt().catch(complain));
    this.result.before(this.#limitRow);
    this.result.after(el("p", { class: "buttons" }, this.#stop, this.#receipt));
    this.#transfer = transfer;
  }

  /** @override @param {readonly Delivery[]} deliveries */
  update(deliveries) {
    const waits = this.#transfer.lateJoiners;
    super.update(deliveries, waits);
    const done = deliveries.filter((d) => d.state === "done").length;
    const over = deliveries.every((d) => isOver(d.state));
    const some = deliveries.length > 0;
    this.#limitRow.hidden = over;
    this.#stop.hidden = !waits;
    this.#receipt.hidden = !over || !some;
    const lines = [];
    if (over && some) lines.push(`${done} of ${count(deliveries.length, "recipient")} received everything.`);
    if (this.#transfer.notKept && (waits || !over)) lines.push("Keep this page open: the browser could not store what it takes to go on after a reload.");
    if (waits) lines.push("Whoever joins while this page is open is offered it.");
    else if (!some) lines.push("Nobody joined while it was offered.");
    say(this.result, lines.join(" "));
    this.result.classList.remove("bad");
  }

  /** The ledger, for whoever wants to check later who got what. */
  async #saveReceipt() {
    const ledger = await this.#transfer.ledger();
    const name = `Receipt ${title(this.#transfer.files)} ${new Date(ledger.made).toISOString().slice(0, 10)}.json`;
    download(new Blob([JSON.stringify(ledger, null, 2)], { type: "application/json" }), name);
  }

  /** @override */
  clear() {
    this.#transfer.cancel().catch(() => {}); // for whom it could still go on
    super.clear();
  }

  finish() {}
}

class IncomingCard extends Card {
  #transfer;
  #complain;
  #saving;
  #hold;
  #onDisk;
  #directly;
  /** When something of it was last handed to the browser's downloads, in ms of performance.now(). */
  #handed = -Infinity;
  /** It had arrived before this page was loaded, so nothing is saved unasked. */
  #left;
  /** Says what did not arrive; "" if all did. */
  #lacking = "";
  /** For saving. */
  #buttons = el("p", { class: "buttons" });

  /**
   * @param {IncomingTransfer} transfer @param {string} from @param {(error: unknown) => void} complain @param {Saving} saving
   * @param {(saving: Promise<unknown>) => Promise<void>} hold called with what the page must stay for
   * @param {boolean} onDisk where what is deleted breaks downloads; in memory it lives as long as they do
   * @param {boolean} [directly] it is written into the folder of saving while it arrives
   */
  constructor(transfer, from, complain, saving, hold, onDisk, directly = false) {
    super(transfer, `Receiving ${what(transfer.files, total(transfer.files))} from ${from}`, complain, () => ({}), "Cancel");
    this.#transfer = transfer;
    this.#complain = complain;
    this.#saving = saving;
    this.#hold = hold;
    this.#onDisk = onDisk;
    this.#directly = directly;
    this.#left = isOver(transfer.state);
  }

  /** @override @param {readonly Delivery[]} deliveries */
  update(deliveries) {
    super.update(deliveries);
    if (this.#buttons.isConnected && !this.#transfer.available) {
      this.#buttons.remove();
      this.files.replaceChildren(...fileList(this.#transfer.files).children);
      say(this.result, "The copy kept here is deleted.");
    }
  }

  /** What a download may still be reading stays for a while, as what the person has: should the page end before, another deletes it. @override */
  clear() {
    const discard = () => this.#transfer.discard().catch(this.#complain);
    const wait = this.#handed + KEPT - performance.now();
    if (this.#onDisk && wait > 0) {
      setTimeout(discard, wait);
      this.#letGo().catch(this.#complain);
    } else discard();
    super.clear();
  }

  /** No later page is to come back to it. */
  async #letGo() {
    const { files } = await this.#transfer.finished;
    for (const file of files) if (!file.saved) await file.markSaved();
  }

  /** @param {import("./tallow.js").OutgoingResult | import("./tallow.js").IncomingResult} result */
  async finish(result) {
    if ("failed" in result) await this.#hold(this.#show(result));
  }

  /** @param {import("./tallow.js").IncomingResult} result */
  async #show(result) {
    const files = result.files.filter((file) => file.kind === "file");
    const rows = await Promise.all(result.files.slice(0, LISTED).map((file) => this.#row(file)));
    for (const file of result.failed.slice(0, LISTED))
      rows.push(el("li", {}, el("span", { class: "name" }, file.path), el("span", { class: "result bad" }, file.code ? messages[file.code] : "Failed.")));
    this.files.replaceChildren(...rows);
    const details = this.files.closest("details");
    if (details) details.open = true;

    // Part of it is never shown as success, and is saved only by whom it is of use to.
    const lacking = (this.#lacking = result.failed.length ? `${count(result.failed.length, "file")} of ${result.failed.length + result.files.length} did not arrive.` : "");
    if (lacking) {
      this.note(this.#transfer.from.id, `Incomplete: ${lacking}`);
      this.result.classList.add("bad");
    }
    const inFolder = (/** @type {FileSystemDirectoryHandle} */ { name }) => ` and saved in the folder “${name}”`;
    if (this.#directly && typeof this.#saving === "object") return say(this.result, `Verified${inFolder(this.#saving)}: ${count(files.length, "file")}. ${lacking}`);
    const savable = result.files.filter((file) => file.kind !== "text"); // a text is read here
    const saveAll = async (/** @type {Saving} */ saving) => {
      say(this.result, "Verified. Saving…");
      this.holdClear(true); // which would delete what is being copied
      this.result.classList.toggle("bad", lacking !== "");
      again.hidden = true;
      if (!lacking) this.note(this.#transfer.from.id, "Verified; being saved");
      try {
        await this.#transfer.saveAll({ files: savable, ...saveOptions(saving) });
      } catch (error) {
        say(this.result, `Verified, but not saved: ${count(files.length, "file")}. ${lacking}`);
        this.result.classList.add("bad");
        if (!lacking) this.note(this.#transfer.from.id, "Verified, but not saved");
        again.onclick = () => this.#hold(saveAll(saving));
        again.hidden = false;
        return this.#complain(error);
      } finally {
        this.holdClear(false);
        if (saving === "files" || saving === "zip") this.#handed = performance.now();
      }
      const handed = "handed to your browser’s downloads";
      const how = saving === "files" ? `, and ${handed}` : saving === "zip" ? `, and ${handed} as one zip` : inFolder(saving);
      say(this.result, `Verified${how}: ${count(files.length, "file")}. ${lacking}`);
      if (!lacking) this.update(this.#transfer.stats().recipients);
    };
    const again = el("button", { type: "button", class: "small", hidden: true }, "Save again");
    this.#buttons.append(again);
    if (savable.length > 1 || (this.#left && savable.length > 0)) this.#buttons.append(...savingButtons((saving) => this.#hold(saveAll(saving)), this.#complain));
    this.result.after(this.#buttons);
    if (this.#left) say(this.result, `${notSaved(result.files)} It stays here until you save or clear it, for 7 days. ${lacking}`);
    else if (lacking) say(this.result, `${lacking} The rest is verified${files.length ? "; save what is of use" : ""}.`);
    else if (savable.length === 0) say(this.result, "Verified.");
    else if (this.#saving !== "files" || files.length <= SAVED_BY_ITSELF) await saveAll(this.#saving);
    else say(this.result, `Verified: ${count(files.length, "file")}. Press “Save all” to save them.`);
  }

  /** @param {ReceivedFile} file */
  async #row(file) {
    const taken = async (/** @type {Promise<void>} */ saving) => {
      const before = this.#transfer.saved;
      await saving.catch(this.#complain);
      if (!before && this.#transfer.saved) say(this.result, `${this.#handed > 0 ? "Verified, and handed to your browser’s downloads." : "Verified."} ${this.#lacking}`);
    };
    if (file.kind === "text") return textRow(await file.text(), () => taken(file.markSaved()));
    const row = el("li", {}, el("span", { class: "name" }, file.path), el("span", { class: "size" }, file.kind === "file" ? size(file.size) : "folder"));
    if (file.kind === "file") {
      const save = () => {
        this.#handed = performance.now();
        taken(file.save());
      };
      row.append(el("button", { type: "button", class: "small", "aria-label": `Save ${file.path}`, onclick: save }, "Save"));
    }
    return row;
  }
}

/** @typedef {{ cancel?: () => void, retry?: () => void }} DeliveryActions */

/** One recipient of a transfer, or the sender of one. */
class DeliveryRow {
  /** The other is the sender. */
  incoming = false;
  #note = el("span", { class: "note" });
  #progress = el("progress", { max: "100" });
  #cancel;
  #retry;

  /** @param {Delivery} delivery @param {DeliveryActions} actions */
  constructor(delivery, actions) {
    const name = delivery.name || "Somebody";
    this.#progress.setAttribute("aria-label", `Progress: ${name}`);
    const buttons = el("span", { class: "buttons" });
    if (actions.cancel) {
      this.#cancel = el("button", { type: "button", class: "small", "aria-label": `Cancel for ${name}`, onclick: actions.cancel }, "Cancel");
      buttons.append(this.#cancel);
    }
    if (actions.retry) {
      this.#retry = el("button", { type: "button", class: "small", "aria-label": `Try again for ${name}`, onclick: actions.retry }, "Try again");
      buttons.append(this.#retry);
    }
    this.element = el("li", {}, el("span", { class: "who" }, name), this.#progress, this.#note, buttons);
  }

  /** @param {string} text */
  note(text) {
    say(this.#note, text);
  }

  /** @param {Delivery} delivery */
  update(delivery) {
    this.element.dataset.state = delivery.state;
    this.#progress.value = delivery.state === "done" ? 100 : delivery.percent;
    this.#progress.hidden = delivery.state === "offered" || repeatable(delivery.state);
    say(this.#note, describe(delivery, this.incoming));
    if (this.#cancel) this.#cancel.hidden = isOver(delivery.state);
    if (this.#retry) this.#retry.hidden = !repeatable(delivery.state);
  }
}

/** The state of a delivery in words. @param {Delivery} d @param {boolean} incoming */
function describe(d, incoming) {
  const part = `${Math.floor(d.percent)} % of ${size(d.total)}`;
  if (d.code === "disk-full" && !isOver(d.state) && d.state !== "interrupted")
    return `${incoming ? "Your" : `${d.name || "Somebody"}’s`} disk is full; goes on when there is room · ${part}`;
  switch (d.state) {
    case "offered":
      return "Waiting for an answer";
    case "transferring": {
      const pace = d.speed > 0 ? ` · ${size(d.speed)}/s` : "";
      const left = d.eta >= 0 && d.percent < 100 ? ` · ${duration(d.eta)} left` : "";
      return `Transferring · ${part}${pace}${left}`;
    }
    case "paused":
      return `Paused · ${part}`;
    case "interrupted":
      return `Connection lost; goes on by itself when it is back · ${part}`;
    case "verifying":
      return "Verifying";
    case "saving":
      return "Saving";
    case "done":
      if (!d.inMemory) return "Done: verified on disk";
      return incoming ? "Done: verified" : "Done: verified, but only in their browser’s memory until they save it";
    case "declined":
      return d.reason ? `Declined: ${d.reason}` : "Declined";
    case "cancelled":
      return d.code === "cancelled-by-peer" ? messages[d.code] : "Cancelled";
    case "failed":
      if (d.code === "storage-failed")
        return incoming
          ? "Failed: what came could not be stored. Check the disk, then reload this page, or ask the sender to try again"
          : `Failed: ${d.name || "somebody"} could not store what came. Try again when that works; what was kept there is not sent again`;
      return `Failed: ${d.code ? messages[d.code] : messages.internal}`;
  }
}

/** How files are saved unless the person says otherwise. @param {readonly { path: string, kind: string }[]} files @returns {"files" | "zip"} */
const usual = (files) => (files.length > SAVED_BY_ITSELF || files.some(({ path, kind }) => kind === "directory" || path.includes("/")) ? "zip" : "files");

/**
 * The choice of how to save an offer's files, where there is one.
 * @param {Offer} offer
 * @returns {{ element: Node | string, saving: () => Promise<Saving | undefined> }} saving: may ask for a folder, and is undefined when none was picked
 */
function howToSave(offer) {
  const normal = usual(offer.files);
  if (offer.files.length === 1 && normal === "files") return { element: "", saving: async () => "files" };
  const choices = [el("option", { value: "files" }, "single files"), el("option", { value: "zip" }, "one zip")];
  if (pickFolder) choices.push(el("option", { value: "folder" }, "a folder of mine…"));
  const select = el("select", {}, ...choices);
  select.value = normal;
  const saving = async () => (select.value === "folder" ? pickFolder?.() : /** @type {"files" | "zip"} */ (select.value));
  return { element: el("label", { class: "saving" }, "Save as ", select), saving };
}

/** How much the browser says that this page can still store, in bytes; Infinity where it does not say. */
async function freeSpace() {
  const { quota, usage } = (await navigator.storage?.estimate?.().catch(() => undefined)) ?? {};
  return quota === undefined || usage === undefined ? Infinity : Math.max(0, quota - usage);
}

/** @param {readonly { size: number }[]} files */
const total = (files) => files.reduce((sum, file) => sum + file.size, 0);

/** @param {readonly { kind: string, name: string }[]} files @param {number} bytes */
const what = (files, bytes) => `${title(files)} (${size(bytes)})`;

/** @param {readonly { kind: string, path: string, size: number }[]} files */
function fileList(files) {
  const rows = files
    .slice(0, LISTED)
    .map((file) => el("li", {}, el("span", { class: "name" }, file.kind === "text" ? "Text" : file.path), el("span", { class: "size" }, size(file.size))));
  if (files.length > LISTED) rows.push(el("li", { class: "hint" }, `and ${files.length - LISTED} more`));
  return el("ul", { class: "files", "aria-label": "Files" }, ...rows);
}
