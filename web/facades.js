// @ts-check
// The classes that older code knows, as thin facades over a Room and its transfers: see tallow.d.ts. They use nothing but the public API.

import { TallowError, check } from "./errors.js";
import { isOver } from "./tallow.js"; // which imports this module: to be called, not read, while both are being loaded

/** What a room tells of the states of its members. */
const CHANGES = ["peerchange", "peerleave"];

/** @typedef {import("./tallow.js").Room} Room */
/** @typedef {import("./tallow.js").Peer} Peer */

/**
 * The options of a facade, with what it was given checked.
 * @param {any} options
 * @param {string[]} callbacks
 */
function optionsOf(options, callbacks) {
  check(typeof options === "object" && options !== null, "options is an object");
  check(options.room instanceof EventTarget && "peers" in options.room, "room is a Room");
  for (const name of callbacks) check(options[name] === undefined || typeof options[name] === "function", `${name} is a function`);
  return options;
}

/** @param {Room} room @param {string | Peer} peer */
function peerOf(room, peer) {
  const wanted = typeof peer === "string" ? peer : peer?.id;
  const found = room.peers.find(({ id }) => id === wanted);
  if (!found) throw new TallowError("unknown-peer", String(wanted));
  return found;
}

/**
 * Calls, and waits until look, asked after the call and after each event of the room, gives something. What look throws ends the wait, and so
 * does the signal.
 * @template T
 * @param {Room} room
 * @param {string[]} types
 * @param {(event?: any) => T | undefined} look
 * @param {() => Promise<unknown>} [call]
 * @param {AbortSignal} [signal]
 * @returns {Promise<T>}
 */
function waitFor(room, types, look, call, signal) {
  return new Promise((resolve, reject) => {
    /** @param {any} [event] */
    const listen = (event) => {
      try {
        const found = look(event);
        if (found !== undefined) end(() => resolve(found));
        else if (room.state === "closed") throw new TallowError("room-closed");
      } catch (error) {
        end(() => reject(error));
      }
    };
    /** @param {() => void} settle */
    const end = (settle) => {
      for (const type of [...types, "statechange"]) room.removeEventListener(type, listen);
      signal?.removeEventListener("abort", abort);
      settle();
    };
    const abort = () => end(() => reject(new TallowError("cancelled")));
    if (signal?.aborted) return abort();
    for (const type of [...types, "statechange"]) room.addEventListener(type, listen);
    signal?.addEventListener("abort", abort);
    if (!call) return listen();
    call().then(
      () => listen(),
      (error) => end(() => reject(error)),
    );
  });
}

/** Waits for what ends something; a room that closes meanwhile has ended it, too. @param {Promise<unknown> | undefined} ending */
async function ended(ending) {
  try {
    await ending;
  } catch (error) {
    if (!(error instanceof TallowError) || error.code !== "room-closed") throw error;
  }
}

const opened = Symbol("opened");

export class DataChannelManager {
  #room;
  #options;
  #destroyed = new AbortController();
  /** The last state told of each peer. @type {Map<string, string>} */
  #states = new Map();
  /** The events whose values somebody has: of several who wait, each gets the next one. @type {WeakSet<Event>} */
  #taken = new WeakSet();

  /** @param {import("./tallow.js").DataChannelManagerOptions} options */
  constructor(options) {
    this.#options = optionsOf(options, ["onIceCandidate", "onConnectionStateChange"]);
    this.#room = options.room;
    const { onIceCandidate, onConnectionStateChange } = options;
    const { signal } = this.#destroyed;
    if (onIceCandidate) {
      this.#room.addEventListener("signal", ({ detail }) => detail.candidate && onIceCandidate(detail.peer, detail.value), { signal });
    }
    if (!onConnectionStateChange) return;
    for (const { id, state } of this.#room.peers) this.#states.set(id, state);
    for (const type of CHANGES) {
      this.#room.addEventListener(type, ({ detail: { id, state } }) => {
        const before = this.#states.get(id);
        if (type === "peerleave") this.#states.delete(id);
        else this.#states.set(id, state);
        if (state !== before) onConnectionStateChange(id, state);
      }, { signal });
    }
  }

  /** @param {string | Peer} peer */
  async createConnection(peer) {
    return this.#next(peer, (options) => this.#room.connect(peer, options));
  }
  /** @param {string | Peer} peer @param {string} value */
  async acceptConnection(peer, value) {
    return this.#next(peer, (options) => this.#room.takeSignal(peer, value, options));
  }
  /** @param {string | Peer} peer @param {string} value */
  async completeConnection(peer, value) {
    return this.#next(peer, (options) => this.#room.takeSignal(peer, value, options));
  }
  /** @param {string | Peer} peer @param {string} value */
  async addIceCandidate(peer, value) {
    await this.#room.takeSignal(peer, value, this.#trickle());
  }
  /** @param {string | Peer} peer */
  async disconnectPeer(peer) {
    await this.#disconnect(peer, this.#destroyed.signal);
  }
  getConnectedPeers() {
    return this.#room.peers.filter(({ state }) => state === "open");
  }
  /** @param {string | Peer} peer */
  async getStats(peer) {
    return peerOf(this.#room, peer).stats();
  }
  async destroy() {
    this.#destroyed.abort();
    if (this.#room.state === "closed") return;
    await Promise.all(this.#room.peers.filter(({ state }) => state !== "closed").map((peer) => this.#disconnect(peer)));
  }

  /** @param {string | Peer} peer @param {AbortSignal} [signal] */
  async #disconnect(peer, signal) {
    const { id, state: before } = peerOf(this.#room, peer);
    // Where somebody wants another link already, closed need not be told.
    let leaves = false;
    const gone = (state = this.#room.peers.find((p) => p.id === id)?.state ?? "closed") => {
      leaves ||= state === "closing" || state === "closed";
      return (leaves && state !== "closing") || undefined;
    };
    gone(before);
    await ended(waitFor(this.#room, CHANGES, () => gone(), () => this.#room.disconnect(id), signal));
  }

  #trickle() {
    return { trickle: this.#options.onIceCandidate !== undefined };
  }

  /**
   * What is to be carried next, or undefined when the link is open.
   * @param {string | Peer} peer
   * @param {(options: { trickle: boolean }) => Promise<void>} call
   * @returns {Promise<string | undefined>}
   */
  async #next(peer, call) {
    const { id, state: before } = peerOf(this.#room, peer);
    // What is told before the attempt has begun is about the one before.
    let begun = before === "connecting";
    const found = await waitFor(
      this.#room,
      ["signal", ...CHANGES],
      (event) => {
        if (event?.type === "signal") {
          if (event.detail.peer !== id || event.detail.candidate || this.#taken.has(event)) return undefined;
          this.#taken.add(event);
          return event.detail.value;
        }
        if (this.#room.peers.find((p) => p.id === id)?.state === "open") return opened;
        if (event?.detail.id !== id) return undefined; // the call's own change may not have been told yet
        const { state, code } = event.detail;
        if (event.type === "peerleave" || (begun && (state === "closed" || state === "closing"))) throw new TallowError("peer-gone", undefined, id);
        if (begun && state === "failed") throw new TallowError(code ?? "connection-failed", undefined, id);
        begun ||= state === "connecting";
        return undefined;
      },
      () => call(this.#trickle()),
      this.#destroyed.signal,
    );
    return found === opened ? undefined : found;
  }
}

export class GroupTransferManager {
  #room;
  #options;
  #channels;
  /** @type {any[]} */
  #files = [];
  /** @type {string[]} */
  #recipients = [];
  /** @type {import("./tallow.js").OutgoingTransfer | undefined} */
  #transfer;
  #destroyed = false;

  /** @param {import("./tallow.js").GroupTransferManagerOptions} options */
  constructor(options) {
    this.#options = optionsOf(options, ["onRecipientProgress", "onComplete"]);
    this.#room = options.room;
    this.#channels = new DataChannelManager({ room: options.room });
  }

  /** @param {any} items @param {Iterable<string | Peer>} [recipients] */
  initializeGroupTransfer(items, recipients) {
    check(!this.#destroyed, "it was destroyed");
    check(!this.#transfer || isOver(this.#transfer.state), "a transfer is running");
    this.#recipients = [...(recipients ?? this.#channels.getConnectedPeers())].map((peer) => peerOf(this.#room, peer).id);
    if (this.#recipients.length === 0) throw new TallowError("no-recipients");
    const single = typeof items === "string" || items instanceof Blob || (typeof items?.path === "string" && (items.file instanceof Blob || items.directory === true));
    this.#files = single ? [items] : [...items];
    this.#transfer = undefined;
  }

  /** The keys of each recipient are those of its link: this waits until each has one, or cannot have one. */
  async startKeyExchange() {
    check(this.#recipients.length > 0, "initializeGroupTransfer comes first");
    const outcomes = await Promise.allSettled(this.#recipients.map((id) => this.#keys(id)));
    const failed = outcomes.flatMap((outcome, i) => (outcome.status === "rejected" ? [{ id: this.#recipients[i], code: outcome.reason.code }] : []));
    const ready = this.#recipients.filter((id) => !failed.some((f) => f.id === id));
    return Object.freeze({ ready: Object.freeze(ready), failed: Object.freeze(failed) });
  }

  /** @param {string} id */
  async #keys(id) {
    await waitFor(this.#room, CHANGES, () => {
      const peer = peerOf(this.#room, id);
      if (peer.state === "failed") throw new TallowError(peer.code ?? "connection-failed", undefined, id);
      if (peer.state === "closed" || peer.state === "closing") throw new TallowError("peer-gone", undefined, id);
      return peer.state === "open" || undefined;
    });
  }

  async sendToAll() {
    check(this.#recipients.length > 0, "initializeGroupTransfer comes first");
    check(!this.#transfer, "it was sent already");
    const { onRecipientProgress, onComplete, bandwidthLimitPerRecipient } = this.#options;
    const transfer = this.#room.send(this.#files, { to: this.#recipients, bandwidthLimitPerRecipient });
    this.#transfer = transfer;
    const told = new Map();
    transfer.addEventListener("progress", ({ detail }) => {
      for (const { peer, percent, speed } of this.#destroyed ? [] : detail.recipients) {
        const now = `${percent} ${speed}`;
        if (told.get(peer) === now) continue;
        told.set(peer, now);
        onRecipientProgress?.(peer, percent, speed);
      }
    });
    const results = await transfer.finished;
    if (!this.#destroyed) queueMicrotask(() => onComplete?.(results)); // what it throws is not the transfer's
    return results;
  }

  getGroupId() {
    return this.#transfer?.id ?? "";
  }
  getDataChannelManager() {
    return this.#channels;
  }
  getConnectedPeerCount() {
    return this.#channels.getConnectedPeers().length;
  }
  /** @param {string | Peer} peer */
  getPeerQuality(peer) {
    return peerOf(this.#room, peer).quality;
  }
  async destroy() {
    this.#destroyed = true;
    this.#recipients = this.#files = [];
    if (this.#room.state !== "closed") await ended(this.#transfer?.cancel());
  }
}

export class SignalingClient {
  #room;
  #options;
  /** @type {(event: any) => void} */
  #listen;
  /** Transfers that were made or joined here. @type {Set<any>} */
  #groups = new Set();

  /** @param {import("./tallow.js").SignalingClientOptions} options */
  constructor(options) {
    this.#options = optionsOf(options, ["onGroupInvite", "onGroupJoined", "onGroupLeft", "onGroupOffer", "onGroupAnswer", "onGroupIceCandidate"]);
    this.#room = options.room;
    this.#listen = ({ type, detail }) => {
      const { onGroupInvite, onGroupLeft, onGroupOffer, onGroupAnswer, onGroupIceCandidate } = this.#options;
      if (type === "offer") {
        onGroupInvite?.(Object.freeze({ groupId: detail.id, from: detail.from, recipientCount: detail.recipients, files: detail.files, totalSize: detail.totalSize }));
      } else if (type === "offerwithdrawn") {
        onGroupLeft?.(detail.id, detail.id.slice(0, 32), detail.code); // a transfer's id begins with its sender's
      } else {
        const tell = { offer: onGroupOffer, answer: onGroupAnswer, candidate: onGroupIceCandidate }[/** @type {"offer"} */ (detail.kind)];
        tell?.(detail.peer, detail.value);
      }
    };
    for (const type of ["offer", "offerwithdrawn", "signalarrived"]) this.#room.addEventListener(type, this.#listen);
  }

  /** @param {any} items @param {import("./tallow.js").SendOptions} [options] */
  createGroupTransfer(items, options) {
    return this.#watch(this.#room.send(items, options));
  }
  /** @param {string} groupId @param {import("./tallow.js").AcceptOptions} [options] */
  joinGroupTransfer(groupId, options) {
    const offer = this.#room.offers.find(({ id }) => id === groupId);
    if (!offer) throw new TallowError("unknown-transfer");
    return this.#watch(offer.accept(options));
  }
  /** @param {string} groupId @param {string} [reason] */
  async leaveGroupTransfer(groupId, reason) {
    const offer = this.#room.offers.find(({ id }) => id === groupId);
    if (offer) return offer.decline(reason);
    const transfer = this.#room.transfers.find(({ id }) => id === groupId);
    if (!transfer) throw new TallowError("unknown-transfer");
    await transfer.cancel();
  }
  /** @param {string | Peer} peer @param {string} value */
  async sendGroupOffer(peer, value) {
    await this.#room.relaySignal(peer, value);
  }
  /** @param {string | Peer} peer @param {string} value */
  async sendGroupAnswer(peer, value) {
    await this.#room.relaySignal(peer, value);
  }
  /** @param {string | Peer} peer @param {string} value */
  async sendGroupIceCandidate(peer, value) {
    await this.#room.relaySignal(peer, value);
  }
  /** Tells no more. Transfers go on. */
  destroy() {
    for (const type of ["offer", "offerwithdrawn", "signalarrived"]) this.#room.removeEventListener(type, this.#listen);
    this.#groups.clear();
  }

  /**
   * Tells who joins a transfer and who leaves it.
   * @template {import("./tallow.js").OutgoingTransfer | import("./tallow.js").IncomingTransfer} T
   * @param {T} transfer
   * @returns {T}
   */
  #watch(transfer) {
    this.#groups.add(transfer);
    /** @type {Map<string, string>} */
    const told = new Map();
    const look = () => {
      for (const { peer, state, code } of this.#groups.has(transfer) ? transfer.stats().recipients : []) {
        const now = state === "offered" ? "invited" : isOver(state) && state !== "done" ? "left" : "joined";
        const before = told.get(peer) ?? "invited";
        if (now === before) continue;
        told.set(peer, now);
        if (now === "joined") this.#options.onGroupJoined?.(transfer.id, peer);
        else if (now === "left") this.#options.onGroupLeft?.(transfer.id, peer, code);
      }
    };
    /** @type {EventTarget} */ (transfer).addEventListener("progress", look);
    const end = () => {
      look();
      this.#groups.delete(transfer);
    };
    transfer.finished.then(end, end);
    return transfer;
  }
}
