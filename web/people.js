// @ts-check
// The people in the room: who they are, how well they are connected, whether they are picked, and their safety words.

import { Figures } from "./figures.js";
import { byId, count, el, say } from "./view.js";

/** @typedef {import("./tallow.js").Room} Room @typedef {import("./tallow.js").Peer} Peer */

const STATES = { connecting: "Connecting", open: "Connected", closing: "Leaving", closed: "Disconnected", failed: "No connection" };

export class People {
  #list = byId("peers", HTMLUListElement);
  #requests = byId("requests", HTMLUListElement);
  /** @type {Map<string, Row>} */
  #rows = new Map();
  #changed;
  #complain;
  /** @type {Room | undefined} */
  #room;

  /**
   * @param {() => void} changed called when who is picked may have changed
   * @param {(error: unknown) => void} complain
   */
  constructor(changed, complain) {
    this.#changed = changed;
    this.#complain = complain;
  }

  /** Those who get what is sent next. */
  get picked() {
    return this.pickable.filter((peer) => this.#rows.get(peer.id)?.picked);
  }

  /** Everybody who could be picked. @returns {Peer[]} */
  get pickable() {
    return (this.#room?.peers ?? []).filter((peer) => this.#rows.get(peer.id)?.pickable);
  }

  /** @param {Room | undefined} room */
  show(room) {
    this.#room = room;
    this.#rows.clear();
    this.#list.replaceChildren();
    this.#requests.replaceChildren();
    if (room) {
      const update = () => room === this.#room && this.#update();
      room.addEventListener("peerjoin", update);
      room.addEventListener("peerleave", update);
      room.addEventListener("peerchange", update);
      room.addEventListener("joinrequest", (event) => room === this.#room && this.#ask(room, event.detail));
    }
    this.#update();
  }

  #update() {
    const room = this.#room;
    const peers = room?.peers ?? [];
    for (const [id, row] of this.#rows) {
      if (peers.some((peer) => peer.id === id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    for (const peer of peers) {
      let row = this.#rows.get(peer.id);
      if (!row) {
        row = new Row(peer, this.#changed, this.#complain, room?.self.owner ? () => room.remove(peer.id) : undefined);
        this.#rows.set(peer.id, row);
        this.#list.append(row.element);
      }
      row.update(peer);
    }
    byId("nobody", HTMLElement).hidden = peers.length > 0 || !room;
    document.body.classList.toggle("alone", peers.length === 0);
    say(byId("people-count", HTMLElement), peers.length ? String(peers.length) : "");
    this.#changed();
  }

  /** @param {Room} room @param {{ id: string, name: string }} request */
  #ask(room, { id, name }) {
    for (const old of this.#requests.children) if (old instanceof HTMLElement && old.dataset.id === id) old.remove();
    const answer = (/** @type {boolean} */ admit) => () => {
      item.remove();
      room.approve(id, admit).catch(this.#complain);
    };
    const item = el(
      "li",
      { "data-id": id },
      el("span", {}, el("strong", {}, name), " wants to come in"),
      el(
        "span",
        { class: "buttons" },
        el("button", { type: "button", class: "small", onclick: answer(true), "aria-label": `Let ${name} in` }, "Let in"),
        el("button", { type: "button", class: "small", onclick: answer(false), "aria-label": `Refuse ${name}` }, "Refuse"),
      ),
    );
    this.#requests.append(item);
  }
}

/** One person. */
class Row {
  #box;
  #name = el("span");
  #avatar = el("span", { class: "avatar", "aria-hidden": "true" });
  #state = el("p", { class: "state" });
  #words = el("p", { class: "words" });
  #match = el("button", { type: "button", class: "small" });
  #verify = el("summary");
  #details;
  #figures = new Figures(() => this.#peer);
  #remove;
  #met = false;
  /** @type {Peer} */
  #peer;

  /**
   * @param {Peer} peer
   * @param {() => void} changed
   * @param {(error: unknown) => void} complain
   * @param {(() => Promise<void>) | undefined} remove
   */
  constructor(peer, changed, complain, remove) {
    this.#peer = peer;
    this.#box = el("input", { type: "checkbox", onchange: changed });
    this.#box.checked = true;
    this.#match.addEventListener("click", () => this.#peer.markVerified(!this.#peer.verified).catch(complain));
    this.#details = el(
      "details",
      {},
      this.#verify,
      el("p", { class: "hint" }, "Read these words to each other, by phone or face to face. If they are the same, nobody sits between you."),
      this.#words,
      this.#match,
    );
    this.element = el("li", {}, el("label", {}, this.#box, this.#avatar, this.#name));
    if (remove) {
      this.#remove = el("button", { type: "button", class: "small quiet" }, "Remove");
      this.#remove.addEventListener("click", () => {
        const name = this.#peer.name || "this person";
        if (confirm(`Remove ${name} from the room? Whoever has the link can come back as somebody new; lock the room to prevent that.`)) remove().catch(complain);
      });
      this.element.append(this.#remove);
    }
    this.element.append(this.#state, this.#details, this.#figures.element);
    // A hue of its own tells namesakes apart; it follows the identity, not the name.
    this.#avatar.style.setProperty("--hue", String(parseInt(peer.id.slice(0, 4), 16) % 360));
  }

  get picked() {
    return this.#box.checked;
  }

  /** Whether there is a connection, or one that is being made anew. */
  get pickable() {
    return this.#met && (this.#peer.state === "open" || this.#peer.state === "connecting");
  }

  /** @param {Peer} peer */
  update(peer) {
    this.#peer = peer;
    const name = peer.name || "Somebody";
    this.element.dataset.state = peer.state;
    this.element.dataset.quality = peer.quality;
    this.#met ||= peer.state === "open";
    this.#box.disabled = !this.pickable;
    say(this.#name, name);
    say(this.#avatar, initials(name));
    this.#remove?.setAttribute("aria-label", `Remove ${name}`);
    const silent = peer.state === "open" && peer.quality === "disconnected";
    const facts = [silent ? "Not answering" : STATES[peer.state]];
    if (peer.state === "open") {
      if (!silent) facts.push(peer.quality);
      if (peer.route === "relay") facts.push("relayed");
    }
    if (peer.owner) facts.push("made this room");
    if (peer.verified) facts.push("verified");
    say(this.#state, facts.join(" · "));
    this.#figures.update(name);
    this.#details.hidden = peer.safetyWords.length === 0;
    say(this.#words, peer.safetyWords.join(" "));
    say(this.#verify, peer.verified ? "Verified" : "Verify");
    this.#verify.setAttribute("aria-label", `${peer.verified ? "Verified:" : "Verify"} ${name}`);
    say(this.#match, peer.verified ? "Not verified after all" : "They match");
  }
}

/** @param {string} name */
const initials = (name) =>
  name
    .split(/\s+/)
    .slice(0, 2)
    .map((word) => [...word][0] ?? "")
    .join("")
    .toUpperCase();

/** What is to happen next, in words. @param {Peer[]} picked @param {Peer[]} pickable @param {boolean} later whether whoever joins later gets it too */
export function toWhom(picked, pickable, later) {
  if (picked.length === 0) return later ? "to whoever joins later" : pickable.length === 0 ? "" : "nobody is picked";
  const others = later ? " and whoever joins later" : "";
  if (picked.length === 1) return `to ${picked[0].name || "somebody"}${others}`;
  return (picked.length === pickable.length ? `to all ${picked.length} people` : `to ${picked.length} of ${count(pickable.length, "person", "people")}`) + others;
}
