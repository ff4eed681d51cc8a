// @ts-check
// The JavaScript API: see tallow.d.ts. The classes here are thin. They check arguments, keep snapshots, and turn the core's events into
// theirs; everything else is Go (internal/core), reached through boot.js.

import { boot } from "./boot.js";
import { DirectFolder } from "./direct.js";
import { TallowError, check, messages } from "./errors.js";
import { distinct, saveInto } from "./folder.js";
import * as identity from "./identity.js";
import { journals, received, remove } from "./journals.js";
import { zip } from "./zip.js";

export { TallowError, messages };
export { DataChannelManager, GroupTransferManager, SignalingClient } from "./facades.js";

/** @typedef {import("./tallow.js").RoomOptions & import("./tallow.js").OwnerOptions & import("./tallow.js").JoinOptions} EnterOptions */

// The state of each object, out of the reach and sight of the page; and the proof that a constructor was called from here.
const own = Symbol("own");

/** @param {unknown} token */
function internal(token) {
  if (token !== own) throw new TypeError("Illegal constructor");
}

/**
 * Gives a class getters for what is in its snapshot.
 * @param {Function} type
 * @param {string[]} names
 */
function snapshot(type, names) {
  for (const name of names) {
    Object.defineProperty(type.prototype, name, {
      get() {
        return this[own].data[name];
      },
      enumerable: true,
      configurable: true,
    });
  }
}

const utf8 = new TextEncoder();
const maxName = 64;
const maxReason = 200;
const maxText = 1 << 20;
const maxPath = 4096;
const maxType = 255;
const maxFiles = 100_000;

/** @param {import("./tallow.js").LoadOptions} [options] */
export async function load(options = {}) {
  const wasmURL = url(options.wasmURL ?? new URL("./tallow.wasm", import.meta.url), "wasmURL", ["http:", "https:"]);
  const workerURL = url(options.workerURL ?? new URL("./storage-worker.js", import.meta.url), "workerURL", ["http:", "https:"]);
  if (typeof WebAssembly === "undefined" || typeof RTCPeerConnection === "undefined") {
    throw new TallowError(globalThis.isSecureContext === false ? "insecure-origin" : "unsupported-browser");
  }
  /** @type {any} */
  const state = { rooms: new Map(), newcomers: new Map(), lastRoom: 0, closing: undefined };
  state.core = await boot(
    { wasmURL, workerURL },
    (event) => state.rooms.get(event.room)?.[own].apply(event),
    () => {
      for (const room of [...state.rooms.values()]) {
        room[own].apply({ type: "state", state: "closed", code: "internal" });
        room[own].apply({ type: "gone", code: "internal" });
      }
    },
  );
  void identity.expire();
  const { version, features } = await state.core.call("open");
  state.unwatch = watchNetwork(() => state.core.call("nudge").catch(() => {})); // a closed instance has nothing to connect
  state.data = { version, wasmSHA256: state.core.wasmSHA256, features: Object.freeze({ ...features, memoryLimit: features.memoryLimit ?? Infinity }) };
  return new Tallow(own, state);
}

/**
 * Calls back when the network may have changed or come back: the browser says so, or the page has slept. Waits between attempts can be long.
 * @param {() => void} back
 */
function watchNetwork(back) {
  const visible = () => document.visibilityState === "visible" && back();
  addEventListener("online", back);
  addEventListener("pageshow", back);
  const connection = /** @type {any} */ (navigator).connection; // not in every browser
  let type = connection?.type;
  const changed = () => {
    if (connection.type === type) return; // only what it guesses of rate and delay, which our own load changes
    type = connection.type;
    back();
  };
  connection?.addEventListener("change", changed);
  document.addEventListener("visibilitychange", visible);
  return () => {
    removeEventListener("online", back);
    removeEventListener("pageshow", back);
    connection?.removeEventListener("change", changed);
    document.removeEventListener("visibilitychange", visible);
  };
}

export class Tallow {
  /** @type {any} */
  [own];

  /** @param {symbol} token @param {any} state */
  constructor(token, state) {
    internal(token);
    this[own] = state;
  }

  /** @param {EnterOptions} [options] */
  async createRoom(options = {}) {
    return enter(this[own], undefined, options);
  }

  /** @param {string | URL} link @param {EnterOptions} [options] */
  async joinRoom(link, options = {}) {
    check(typeof link === "string" || link instanceof URL, "link is a string or URL");
    return enter(this[own], String(link), options);
  }

  async remembered() {
    const identities = await identity.idle();
    return identities.map(({ fragment, pageURL, owner, name, entered }) =>
      Object.freeze({ link: `${pageURL}#${fragment}`, owner, name, entered }),
    );
  }

  /** @param {string} link */
  async forget(link) {
    check(typeof link === "string" || /** @type {unknown} */ (link) instanceof URL, "link is a string");
    const { room } = await this[own].core.call("parseLink", { link: String(link) });
    await identity.forget(room, (/** @type {identity.Identity} */ { storage }) => remove(storage));
  }

  async unfinished() {
    const state = this[own];
    /** @type {UnfinishedTransfer[]} */
    const list = [];
    for (const { [own]: room } of state.rooms.values()) {
      for (const transfer of room.transfers) if (transfer[own].waiting && !transfer[own].over) list.push(await waitingHere(transfer));
    }
    for (const found of await identity.idle()) {
      for (const { delivery, journal } of await journals(found.storage)) {
        try {
          list.push(await leftBehind(state.core, found, delivery, await described(state.core, journal)));
        } catch {
          // It has just ended, or says nothing that can be gone on with.
        }
      }
    }
    return list;
  }

  async close() {
    const state = this[own];
    state.closing ??= (async () => {
      state.unwatch();
      await Promise.all([...state.rooms.values()].map((room) => room.leave()));
      await state.core.call("close");
      state.core.stop();
    })();
    await state.closing;
  }
}
snapshot(Tallow, ["version", "wasmSHA256", "features"]);

/** What an identity comes from: 32 bytes, in hexadecimal. */
function randomSeed() {
  return Array.from(crypto.getRandomValues(new Uint8Array(32)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * What both ways into a room share.
 * @param {any} tallow
 * @param {string | undefined} link
 * @param {EnterOptions} options
 */
async function enter(tallow, link, options) {
  if (tallow.closing) throw new TallowError("room-closed");
  check(typeof options === "object" && options !== null, "options is an object");
  const { name = "", remember = true, signal, onpending } = options;
  check(typeof name === "string" && utf8.encode(name).length <= maxName, `name is a string of at most ${maxName} bytes`);
  const { connections = "auto" } = options;
  check(connections === "auto" || connections === "manual", 'connections is "auto" or "manual"');
  const { maxRecipients: most, admission: how } = options;
  check(most === undefined || (Number.isInteger(most) && most >= 1 && most <= 63), "maxRecipients is 1 to 63");
  check(how === undefined || how === "auto" || how === "approval", 'admission is "auto" or "approval"');
  const { reconnectAttempts = 4 } = options;
  check(Number.isInteger(reconnectAttempts) && reconnectAttempts >= 1 && reconnectAttempts <= 20, "reconnectAttempts is 1 to 20");
  check(onpending === undefined || typeof onpending === "function", "onpending is a function");
  const quality = thresholds(options.qualityThresholds);
  checkSignal(signal);
  const serverURL = url(options.serverURL ?? defaultServer(), "serverURL", ["ws:", "wss:"]);
  const pageURL = url(options.pageURL ?? globalThis.location?.href, "pageURL", ["http:", "https:", "file:"]);
  const iceServers = iterable(options.iceServers ?? [], "iceServers").map(iceServer);
  throwIfAborted(signal);

  // Who we are in that room, if we were there before.
  const parsed = link === undefined ? undefined : await tallow.core.call("parseLink", { link });
  const known = parsed && remember ? await identity.recall(parsed.room) : undefined;
  // Whoever was not let in comes again as the same newcomer: the server may still keep a place for it.
  const seed = known?.identity.seed ?? tallow.newcomers.get(parsed?.room) ?? randomSeed();
  tallow.newcomers.delete(parsed?.room);
  // Where what is unfinished outlives the page, as our part in the room does.
  const storage = remember && identity.supported() ? known?.identity.storage ?? randomSeed().slice(0, 32) : "";
  const { members, removed, locked = false } = known?.identity ?? {};
  const admission = how ?? known?.identity.admission ?? "auto";
  const relayOnly = Boolean(options.relayOnly ?? known?.identity.relayOnly ?? false);
  const maxRecipients = most ?? known?.identity.maxRecipients ?? 10;
  let held = known?.held;
  /** What is kept of the options. @param {boolean} owner */
  const settings = (owner) => ({ relayOnly, storage, ...(owner && { admission, maxRecipients, locked }) });
  const number = ++tallow.lastRoom;
  const room = new Room(own, tallow, number);
  room[own].onpending = onpending;
  tallow.rooms.set(number, room);
  let kept = false;
  let abort = () => {};
  try {
    // Before the room is there, because what it tells first must find somebody listening, and the page may be left at once.
    if (known) await known.held.update(settings(known.identity.owner)).catch(() => {});
    throwIfAborted(signal);
    const aborted = new Promise((_, reject) => {
      abort = () => reject(reason(signal));
      signal?.addEventListener("abort", abort, { once: true });
    });
    const entered = await Promise.race([
      aborted,
      tallow.core.call(link === undefined ? "createRoom" : "joinRoom", {
        room: number, link, name, serverURL, iceServers, relayOnly, reconnectAttempts, maxRecipients, admission, manual: connections === "manual", quality,
        seed, storage, members, removed, locked,
      }),
    ]);
    const { fragment, self } = entered;
    if (!held && remember) {
      held = await identity.keep({
        member: self.id, room: entered.room, seed: entered.seed, fragment, pageURL, name, owner: self.owner, members: [], entered: Date.now(), ...settings(self.owner),
      });
    }
    signal?.removeEventListener("abort", abort);
    room[own].data.resumable = Boolean(held) && entered.resumable;
    room[own].entered(`${pageURL}#${fragment}`, self, self.owner && locked, held);
    return room;
  } catch (error) {
    signal?.removeEventListener("abort", abort);
    const left = tallow.core.call("leave", { room: number }).catch(() => {});
    const unwanted = error instanceof TallowError && (error.code === "removed" || error.code === "join-denied");
    if (unwanted && known) {
      await left;
      await room[own].gone; // until then the core has its storage open
      if (await anythingDone(tallow.core, storage)) kept = true; // which an owner's word does not take away
      else await remove(storage).catch(() => {}); // what cannot be deleted now ages out
    }
    tallow.rooms.delete(number);
    if (unwanted && !kept) await held?.forget();
    else if (held) held.release();
    else if (parsed) tallow.newcomers.set(parsed.room, seed);
    throw error;
  }
}

export class Room extends EventTarget {
  /** @type {any} */
  [own];

  /** @param {symbol} token @param {any} tallow @param {number} number */
  constructor(token, tallow, number) {
    super();
    internal(token);
    this[own] = new RoomState(this, tallow, number);
  }

  get peers() {
    return Object.freeze([...this[own].peers.values()]);
  }
  get offers() {
    return Object.freeze([...this[own].offers.values()]);
  }
  get transfers() {
    return Object.freeze([...this[own].transfers]);
  }

  /** @param {any} items @param {import("./tallow.js").SendOptions} [options] */
  send(items, options = {}) {
    const state = this[own];
    check(typeof options === "object" && options !== null, "options is an object");
    const { to, bandwidthLimitPerRecipient = 0, bandwidthLimit = 0, lateJoiners = false, compression = true, signal } = options;
    checkLimit(bandwidthLimitPerRecipient);
    checkLimit(bandwidthLimit);
    check(typeof compression === "boolean", "compression is true or false");
    checkSignal(signal);
    throwIfAborted(signal);
    const files = (isSendable(items) ? [items] : iterable(items, "files")).map(sendable);
    check(files.length > 0, "there is nothing to send");
    if (files.length > maxFiles) throw new TallowError("too-large", `more than ${maxFiles} files`);
    state.checkOpen();
    /** @type {any[]} */
    let recipients;
    if (to === undefined) {
      recipients = [...state.peers.values()].filter((peer) => peer.state === "open" || peer.state === "connecting");
    } else {
      check(typeof to !== "string", "to is a list");
      const ids = new Set(iterable(to, "to").map(peerID));
      recipients = [...ids].map((id) => {
        const peer = state.peers.get(id);
        if (!peer) throw new TallowError("unknown-peer", id);
        return peer;
      });
    }
    const late = Boolean(lateJoiners);
    if (recipients.length === 0 && !late) throw new TallowError("no-recipients");
    // Whoever is neither open nor connecting is a late joiner, unless others were picked.
    const ids = late && to === undefined ? undefined : recipients.map((peer) => peer.id);
    const answer = offered(state, files, { to: ids, limit: bandwidthLimitPerRecipient, total: bandwidthLimit, lateJoiners: late, plain: !compression });
    const transfer = new OutgoingTransfer(own, state, files.map(({ info }, index) => info(index)), recipients, answer, signal);
    transfer[own].late = late;
    return transfer;
  }

  /** @param {number} total */
  async setTotalBandwidthLimit(total) {
    checkLimit(total);
    await this[own].call("setRoomLimit", { limit: total });
  }
  /** @param {Iterable<RTCIceServer>} servers */
  async setIceServers(servers) {
    await this[own].call("setIceServers", { iceServers: iterable(servers, "servers").map(iceServer) });
  }
  async lock(locked = true) {
    await this[own].lock(Boolean(locked));
  }
  /** @param {string} id */
  async approve(id, admit = true) {
    await this[own].call("approve", { peer: peerID(id), admit: Boolean(admit) });
  }
  /** @param {string | Peer} id */
  async remove(id) {
    await this[own].call("remove", { peer: peerID(id) });
  }
  /** @param {string | Peer} peer */
  async connect(peer, { trickle = false } = {}) {
    await this[own].call("connect", { peer: peerID(peer), trickle: Boolean(trickle) });
  }
  /** @param {string | Peer} peer */
  async disconnect(peer) {
    await this[own].call("disconnect", { peer: peerID(peer) });
  }
  /** @param {string | Peer} peer @param {string} value */
  async takeSignal(peer, value, { trickle = false } = {}) {
    check(typeof value === "string", "value is a string");
    await this[own].call("signal", { peer: peerID(peer), value, trickle: Boolean(trickle) });
  }
  /** @param {string | Peer} peer @param {string} value */
  async relaySignal(peer, value) {
    check(typeof value === "string", "value is a string");
    await this[own].call("relay", { peer: peerID(peer), value });
  }
  async exposure() {
    return Object.freeze((await this[own].call("exposure")).map(Object.freeze));
  }
  async stats() {
    return Object.freeze(((await this[own].call("stats")) ?? []).map(Object.freeze));
  }
  async leave() {
    await this[own].leave();
  }
}
snapshot(Room, ["link", "self", "state", "locked", "relayOnly", "resumable"]);

/** What a room knows. It applies the core's events, in order. */
class RoomState {
  /** @param {Room} room @param {any} tallow @param {number} number */
  constructor(room, tallow, number) {
    this.room = room;
    this.tallow = tallow;
    this.number = number;
    /** @type {any} */
    this.data = { link: "", self: undefined, state: "connecting", locked: false, relayOnly: false, resumable: false };
    /** @type {Map<string, any>} */
    this.peers = new Map();
    /** @type {Map<string, any>} */
    this.offers = new Map();
    /** @type {any[]} */
    this.transfers = [];
    /** Offers whose answer is on its way, by id. @type {Map<string, any>} */
    this.answering = new Map();
    /** Transfers by id; ended ones too, since a retry makes them run again. @type {Map<string, any>} */
    this.known = new Map();
    /** Events of transfers that are being sent and whose id is on its way here. @type {any[]} */
    this.early = [];
    this.sending = 0;
    /** @type {identity.Held | undefined} */
    this.held = undefined;
    /** @type {(() => void) | undefined} */
    this.onpending = undefined;
    /** @type {Promise<void> | undefined} */
    this.leaving = undefined;
    /** Resolves when nothing of it runs any more. @type {Promise<void>} */
    this.gone = new Promise((resolve) => (this.ended = resolve));
  }

  /** @param {string} link @param {any} self @param {boolean} locked @param {identity.Held | undefined} held */
  entered(link, self, locked, held) {
    this.data.link = link;
    this.data.locked = locked;
    this.data.self = Object.freeze({ id: self.id, name: self.name, owner: self.owner });
    this.held = held;
    if (this.data.state === "closed") this.letGo();
    else this.keepRoom();
  }

  /** Owner: keeps who is in the room, who may not come back, and the lock, so that a reload changes nothing. */
  async keepRoom() {
    const held = this.held;
    if (!held || !this.data.self?.owner || this.leaving) return;
    try {
      await held.update(await this.call("saved"));
    } catch {
      // Without it the members join again.
    }
  }

  /** @param {boolean} locked */
  async lock(locked) {
    await this.call("lock", { locked });
    this.data.locked = locked;
    await this.keepRoom();
  }

  /** @param {string} method @param {object} [args] */
  call(method, args) {
    if (this.data.state === "closed") return Promise.reject(new TallowError("room-closed"));
    return this.tallow.core.call(method, { room: this.number, ...args });
  }

  checkOpen() {
    if (this.data.state === "closed" || this.leaving) throw new TallowError("room-closed");
  }

  leave() {
    this.leaving ??= (async () => {
      try {
        await this.tallow.core.call("leave", { room: this.number });
      } catch (error) {
        if (!(error instanceof TallowError) || error.code !== "room-closed") throw error;
      }
      await this.held?.forget();
    })();
    return this.leaving;
  }

  letGo() {
    // What the person does not have yet is found by the identity.
    const unsaved = this.transfers.some((transfer) => transfer[own].kept && transfer[own].stored.unsaved);
    if (this.data.code === "removed" && !unsaved) void this.held?.forget();
    else this.held?.release();
  }

  /** @param {string} type @param {unknown} detail */
  dispatch(type, detail) {
    this.room.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** @param {any} event */
  apply(event) {
    switch (event.type) {
      case "state": {
        const { state, code } = event;
        this.data.state = state;
        this.data.relayOnly = event.relayOnly ?? this.data.relayOnly;
        this.data.code = code;
        if (state === "pending") this.onpending?.();
        if (state === "closed") {
          for (const offer of [...this.offers.values(), ...this.answering.values()]) offer[own].gone = true;
          this.offers.clear();
          if (!this.leaving) this.letGo();
        }
        return this.dispatch("statechange", Object.freeze({ state, code }));
      }
      case "gone": // the room has ended, and nothing of it runs any more
        for (const transfer of this.transfers) {
          transfer[own].fail(new TallowError(event.code ?? "room-closed"));
        }
        this.tallow.rooms.delete(this.number);
        return this.ended?.();
      case "peerjoin":
      case "peerchange":
      case "peerleave": {
        const peer = new Peer(own, this, event.peer);
        if (event.type === "peerleave") this.peers.delete(event.peer.id);
        else this.peers.set(event.peer.id, peer);
        if (event.type !== "peerchange") this.keepRoom();
        return this.dispatch(event.type, peer);
      }
      case "joinrequest":
        return this.dispatch("joinrequest", Object.freeze({ id: event.id, name: event.name }));
      case "signal":
        return this.dispatch("signal", Object.freeze({ peer: event.peer, value: event.value, candidate: event.candidate }));
      case "signalarrived":
        return this.dispatch("signalarrived", Object.freeze({ peer: event.peer, value: event.value, kind: event.kind }));
      case "offer": {
        const offer = new Offer(own, this, event.offer);
        this.offers.set(event.offer.id, offer);
        return this.dispatch("offer", offer);
      }
      case "offerwithdrawn": {
        const { id, code } = event;
        const answering = this.answering.get(id);
        if (answering) answering[own].gone = true;
        const offer = this.offers.get(id);
        if (!offer) return; // answered meanwhile
        offer[own].gone = true;
        this.offers.delete(id);
        return this.dispatch("offerwithdrawn", Object.freeze({ id, code }));
      }
      case "resumed": {
        const [first] = event.deliveries; // none, if nobody has joined one for whoever comes
        const from = event.incoming && (this.peers.get(first.peer) ?? stranger(this, first.peer, first.name));
        const answer = Promise.resolve({ id: event.id });
        const transfer = event.incoming
          ? new IncomingTransfer(own, this, { from, id: event.id, files: event.files }, answer, undefined)
          : new OutgoingTransfer(own, this, event.files, event.deliveries.map((/** @type {any} */ d) => ({ ...d, id: d.peer })), answer, undefined);
        // At once, since events about it may follow in this very task.
        Object.assign(transfer[own], { id: event.id, waiting: event.waiting, opened: event.opened, before: event.bytes });
        transfer[own].update(event);
        this.known.set(event.id, transfer);
        return this.dispatch("transfer", transfer);
      }
      case "progress":
      case "finished": {
        const transfer = this.known.get(event.id);
        if (transfer) transfer[own].apply(event);
        else if (this.sending > 0) this.early.push(event);
        return;
      }
      case "expired":
        for (const transfer of this.transfers) if (transfer[own].delivery === event.delivery) transfer[own].gone();
        return;
      case "problem":
        return this.dispatch("error", new TallowError(event.code, undefined, event.peer || undefined));
    }
  }
}

export class Peer {
  /** @type {any} */
  [own];

  /** @param {symbol} token @param {RoomState} room @param {any} data */
  constructor(token, room, data) {
    internal(token);
    this[own] = { room, data: { ...data, safetyWords: Object.freeze(data.safetyWords ?? []) } };
  }

  async markVerified(verified = true) {
    const { room, data } = this[own];
    await room.call("markVerified", { peer: data.id, verified: Boolean(verified) });
  }
  async stats() {
    const { room, data } = this[own];
    return Object.freeze(await room.call("stats", { peer: data.id }));
  }
}
snapshot(Peer, ["id", "name", "owner", "state", "quality", "rtt", "route", "protocol", "safetyWords", "verified", "code"]);

/** A member that is not here now. @param {RoomState} room @param {string} id @param {string} name */
function stranger(room, id, name) {
  return new Peer(own, room, { id, name, owner: false, state: "closed", quality: "disconnected", rtt: 0, route: "", protocol: "", verified: false });
}

export class Offer {
  /** @type {any} */
  [own];

  /** @param {symbol} token @param {RoomState} room @param {any} data */
  constructor(token, room, data) {
    internal(token);
    const from = room.peers.get(data.from) ?? stranger(room, data.from, "");
    this[own] = { room, data: { ...data, from, files: frozen(data.files) }, answered: false, gone: false };
  }

  /** @param {import("./tallow.js").AcceptOptions} [options] */
  accept(options = {}) {
    const { room, data } = this[own];
    check(typeof options === "object" && options !== null, "options is an object");
    checkOpen(this);
    const { files, directory, directly = false, signal } = options;
    checkDirectory(directory);
    check(typeof directly === "boolean" && (directory || !directly), "directly is true only with a directory");
    checkSignal(signal);
    throwIfAborted(signal);
    /** @type {number[] | undefined} */
    let wanted;
    if (files !== undefined) {
      wanted = [...new Set(iterable(files, "files").map((file) => (typeof file === "number" ? file : file?.index)))];
      check(wanted.every((index) => Number.isInteger(index) && index >= 0 && index < data.files.length), "files are indices of the offer's files");
      check(wanted.length > 0, "nothing is accepted; use decline()");
    }
    const direct = directory && directly ? directFolder(directory, data.files, wanted) : undefined;
    const into = direct && room.tallow.core.attach(direct);
    const accepted = answered(this, room.call("accept", { id: data.id, files: wanted, into }));
    const transfer = new IncomingTransfer(own, room, this, accepted, signal);
    if (direct) {
      const state = transfer[own];
      state.direct = direct;
      state.save = async () => {
        const { files } = state.stored.arrived;
        await direct.keep(files.map((/** @type {ReceivedFile} */ { index }) => index));
        await state.stored.handOver(files);
      };
    } else if (directory) {
      transfer[own].save = () =>
        transfer.saveAll({ directory, signal }).catch((/** @type {unknown} */ error) => {
          throw signal?.aborted ? new TallowError("cancelled", error) : error;
        });
    }
    return transfer;
  }

  async decline(reason = "") {
    const { room, data } = this[own];
    checkOpen(this);
    check(typeof reason === "string" && utf8.encode(reason).length <= maxReason, `reason is a string of at most ${maxReason} bytes`);
    await answered(this, room.call("decline", { id: data.id, reason }));
  }
}
snapshot(Offer, ["id", "from", "recipients", "files", "totalSize"]);

/** @param {FileSystemDirectoryHandle} directory @param {any[]} files @param {number[]} [wanted] */
function directFolder(directory, files, wanted) {
  const chosen = new Set(wanted ?? files.map(({ index }) => index));
  const list = files.filter(({ index }) => chosen.has(index));
  return new DirectFolder(directory, list.map((file) => ({ index: file.index, path: savedAs(file), directory: file.kind === "directory", size: file.size })));
}

/** Throws unless the offer can be answered. @param {Offer} offer */
function checkOpen(offer) {
  const state = offer[own];
  state.room.checkOpen();
  if (state.gone) throw new TallowError("unknown-transfer");
  check(!state.answered, "the offer was answered already");
}

/**
 * Takes an offer from the open ones while its answer is on the way. One that does not get through, for want of disk space say, leaves the offer open:
 * it can be answered again, unless it is gone.
 * @param {Offer} offer
 * @param {Promise<any>} answer
 */
async function answered(offer, answer) {
  const state = offer[own];
  const { room, data } = state;
  state.answered = true;
  room.offers.delete(data.id);
  room.answering.set(data.id, offer);
  try {
    return await answer;
  } catch (error) {
    if (error instanceof TallowError && error.code === "unknown-transfer") state.gone = true;
    if (!state.gone && room.data.state !== "closed") {
      state.answered = false;
      // Offered anew meanwhile, it is another one.
      if (!room.offers.has(data.id)) room.offers.set(data.id, offer);
    }
    throw error;
  } finally {
    if (room.answering.get(data.id) === offer) room.answering.delete(data.id);
  }
}

export class Transfer extends EventTarget {
  /** @type {any} */
  [own];

  /** @param {symbol} token @param {TransferState} state */
  constructor(token, state) {
    super();
    internal(token);
    this[own] = state;
    state.transfer = this;
  }

  get files() {
    return this[own].files;
  }
  get state() {
    return this[own].stats().state;
  }
  get finished() {
    return this[own].finished;
  }
  get paused() {
    return this[own].paused;
  }
  async pause() {
    await this[own].call("setPaused", { paused: true });
  }
  async resume() {
    await this[own].call("setPaused", { paused: false });
  }
  stats() {
    return this[own].stats();
  }
}

export class OutgoingTransfer extends Transfer {
  /**
   * @param {symbol} token
   * @param {RoomState} room
   * @param {any[]} files
   * @param {any[]} recipients
   * @param {Promise<any>} answer the core's
   * @param {AbortSignal | undefined} signal
   */
  constructor(token, room, files, recipients, answer, signal) {
    internal(token);
    const state = new TransferState(room, files, recipients, outgoingResult);
    super(own, state);
    state.begin(answer, signal);
  }

  get id() {
    return this[own].id;
  }
  get recipients() {
    return this[own].deliveries;
  }
  get lateJoiners() {
    return this[own].late;
  }
  get notKept() {
    return this[own].notKept;
  }
  async stopOffering() {
    await this[own].call("stopOffering");
  }
  async ledger() {
    const state = this[own];
    await state.started;
    // Once it is over the room may be, too, or may have forgotten it.
    if (state.over && state.ledger) return state.ledger;
    return ledgerOf(await state.room.call("ledger", { id: this.id }));
  }
  /** @param {string | Peer} [peer] */
  async cancel(peer) {
    if (peer === undefined) await this[own].call("cancel");
    else await this[own].call("cancelDelivery", { peer: this[own].recipient(peer) });
  }
  /** @param {string | Peer} peer */
  async retry(peer) {
    const state = this[own];
    const id = state.recipient(peer);
    await state.started;
    await state.retry(id);
  }
  /** @param {number} perRecipient */
  async setBandwidthLimit(perRecipient) {
    checkLimit(perRecipient);
    await this[own].limit("setLimit", perRecipient);
  }
  /** @param {number} total */
  async setTotalBandwidthLimit(total) {
    checkLimit(total);
    await this[own].limit("setTotalLimit", total);
  }
}

/**
 * Has the core offer files. What the browser gave to read them again is kept for a page after this one.
 * @param {RoomState} room @param {any[]} files @param {{ to: string[] | undefined, limit: number, total: number, lateJoiners: boolean }} options
 */
async function offered(room, files, options) {
  room.sending++;
  try {
    for (const { blob } of files) if (blob?.size === 0) await checkEmpty(blob);
    room.checkOpen(); // what is attached is Go's to release
    const event = await room.call("send", { ...options, files: attached(room, files) });
    const handles = files.flatMap(({ file, handle, folder }) => (handle ? [{ path: file.path, handle, folder }] : []));
    if (handles.length > 0 && room.held) void identity.keepHandles(event.id, handles);
    return { ...event, handles };
  } finally {
    room.sending--;
  }
}

/** What the core takes as files. @param {RoomState} room @param {any[]} files */
function attached(room, files) {
  return files.map(({ blob, file }) => (blob ? { ...file, handle: room.tallow.core.attach(blob) } : file));
}

export class IncomingTransfer extends Transfer {
  /**
   * @param {symbol} token
   * @param {RoomState} room
   * @param {any} offer
   * @param {Promise<any>} accepted
   * @param {AbortSignal | undefined} signal
   */
  constructor(token, room, offer, accepted, signal) {
    internal(token);
    const { from, id, files } = offer;
    const state = new TransferState(room, files, [from], incomingResult);
    super(own, state);
    state.id = id;
    state.from = from;
    state.begin(accepted, signal);
  }

  get id() {
    return this[own].id;
  }
  get from() {
    return this[own].from;
  }
  async cancel() {
    await this[own].call("cancel");
  }
  get saved() {
    return Boolean(this[own].stored && !this[own].stored.unsaved);
  }
  get available() {
    return this[own].kept;
  }
  /** @param {import("./tallow.js").SaveOptions} [options] */
  async saveAll(options = {}) {
    const { stored } = this[own];
    check(stored, "nothing has arrived yet");
    await stored.saveAll(options);
  }
  async discard() {
    const state = this[own];
    check(state.over, "the transfer is not over");
    // One that ended because its sender was gone, or the storage failed, could still go on.
    if (state.suspended()) await state.room.call("cancel", { id: state.id }).catch(() => {});
    state.kept = false;
    if (state.delivery) await state.room.tallow.core.call("discard", { room: state.room.number, delivery: state.delivery });
  }
}

/** What was received in a delivery. */
class Stored {
  /** What the person does not have yet. Folders come with their files. @type {Set<ReceivedFile>} */
  #lacking;

  /**
   * @param {any} result as it is told: files, code
   * @param {number[] | undefined} offsets where each of the files begins
   * @param {() => Promise<Blob>} whole gives all of them, one after another
   * @param {() => Promise<void>} settle notes that the person has all of them
   */
  constructor({ files: wanted, code }, offsets, whole, settle) {
    const list = frozen(wanted);
    const complete = list.flatMap((file, i) => (file.complete ? [{ ...file, at: offsets?.[i] ?? 0 }] : []));
    if (code && complete.length === 0) throw new TallowError(code);
    this.whole = whole;
    this.settle = settle;
    this.arrived = Object.freeze({
      files: Object.freeze(complete.map((file) => new ReceivedFile(own, this, file))),
      failed: Object.freeze(list.filter((file) => !file.complete)),
    });
    const solid = this.arrived.files.filter(({ kind }) => kind !== "directory");
    this.#lacking = new Set(solid.length > 0 ? solid : this.arrived.files);
  }

  /** The bytes of one of them. @type {(data: any) => Promise<Blob>} */
  read = async ({ at, size }) => (await this.whole()).slice(at, at + size);

  get unsaved() {
    return this.#lacking.size > 0;
  }

  /** @param {ReceivedFile} file */
  lacks(file) {
    return this.#lacking.has(file);
  }

  /** Notes that the person has these. @param {readonly ReceivedFile[]} files */
  async handOver(files) {
    for (const file of files) this.#lacking.delete(file);
    await this.renew();
  }

  /** Once the person has all of it: the hour until it is deleted begins anew, for whoever reads it again. */
  async renew() {
    // Where it cannot be noted, the person is asked once more by a later page.
    if (!this.unsaved) await this.settle().catch(() => {});
  }

  /** @param {import("./tallow.js").SaveOptions} options */
  async saveAll(options) {
    check(typeof options === "object" && options !== null, "options is an object");
    const { as = "files", directory, signal } = options;
    check(as === "files" || as === "zip", 'as is "files" or "zip"');
    checkDirectory(directory);
    checkSignal(signal);
    throwIfAborted(signal);
    const { arrived } = this;
    const files = options.files === undefined ? arrived.files : iterable(options.files, "files");
    check(files.every((/** @type {any} */ file) => arrived.files.includes(file)), "files are those that have arrived");
    const { name = archiveName(files) } = options;
    check(typeof name === "string" && name !== "" && !/[/\\]/.test(name), "name is that of a file");
    if (!directory && as === "files") {
      for (const file of files) {
        signal?.throwIfAborted();
        if (file.kind !== "directory") await file.save();
      }
      // There is no more to do for folders; where nothing else has arrived, they are what the person has now.
      const folders = files.filter((/** @type {ReceivedFile} */ { kind }) => kind === "directory");
      if (folders.length > 0) await this.handOver(folders);
      return;
    }
    await this.renew();
    try {
      const whole = await this.whole();
      const list = files.map((/** @type {ReceivedFile} */ file) => file[own].data);
      if (directory) {
        const blob = (/** @type {any} */ data) => async () => whole.slice(data.at, data.at + data.size);
        await saveInto(directory, list.map((/** @type {any} */ data) => ({ path: savedAs(data), file: data.kind === "directory" ? undefined : blob(data) })), signal);
        return this.handOver(files);
      }
      const paths = distinct(list.map(savedAs));
      const entries = list.map((/** @type {any} */ data, /** @type {number} */ i) => ({ ...data, path: paths[i], directory: data.kind === "directory" }));
      await download(await zip(whole, entries.sort((/** @type {any} */ a, /** @type {any} */ b) => a.at - b.at || a.index - b.index), signal), name);
      await this.handOver(files);
    } catch (error) {
      if (error instanceof TallowError || signal?.aborted) throw error;
      throw new TallowError(error instanceof DOMException && error.name === "QuotaExceededError" ? "disk-full" : "storage-failed", error);
    }
  }
}

/** What a transfer knows. */
class TransferState {
  /**
   * @param {RoomState} room
   * @param {any[]} files
   * @param {any[]} others
   * @param {(event: any, state: TransferState) => any} result makes the result of a finished event, or throws the failure
   */
  constructor(room, files, others, result) {
    this.room = room;
    this.id = "";
    /** @type {Peer | undefined} */
    this.from = undefined;
    this.files = frozen(files);
    const total = files.reduce((sum, file) => sum + file.size, 0);
    this.deliveries = frozen(
      others.map(({ id, name, quality }) => ({ peer: id, name, state: "offered", total, bytes: 0, percent: 0, speed: 0, eta: -1, repeated: 0, inMemory: false, quality, code: undefined, reason: "" })),
    );
    this.result = result;
    /** What reads the files again after a reload. @type {import("./identity.js").Kept[]} */
    this.handles = [];
    /** The name of what was received, in storage. @type {string | undefined} */
    this.delivery = undefined;
    /** Incoming: what has arrived, and whether it is still there. @type {Stored | undefined} */
    this.stored = undefined;
    this.kept = false;
    /** Incoming: where it is written instead of to storage. @type {DirectFolder | undefined} */
    this.direct = undefined;
    /** Incoming: what else has to be done with it before that. @type {(() => Promise<void>) | undefined} */
    this.save = undefined;
    /** Incoming: that is being done. */
    this.saving = false;
    /** @type {AbortSignal | undefined} */
    this.signal = undefined;
    this.aborted = () => void this.call("cancel").catch(() => {});
    /** @type {Transfer} */
    this.transfer = /** @type {any} */ (undefined);
    /** @type {Promise<void>} */
    this.started = Promise.resolve();
    this.over = false;
    /** Outgoing: whoever is admitted later is offered it. */
    this.late = false;
    /** This end has paused it. */
    this.paused = false;
    /** Outgoing: how it ended, when it did. @type {any} */
    this.ledger = undefined;
    /** Outgoing: no other page can go on with it. */
    this.notKept = false;
    /** Of an earlier page: it waits for its files; when it was begun or gone on with last, in ms since 1970; about what had been transferred. */
    this.waiting = false;
    /** Which of them it still lacks; undefined: none was given. @type {any[] | undefined} */
    this.lacking = undefined;
    this.opened = 0;
    this.before = 0;
    /** @type {Promise<any> | undefined} */
    this.finished = undefined;
    this.renew();
  }

  /** A new end to wait for. */
  renew() {
    this.over = false;
    this.heed();
    this.finished = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.finished.catch(() => {});
  }

  /** @param {any[]} files @param {boolean} without those that are lacking */
  async continue(files, without) {
    const { lacking } = await this.room.call("continue", { id: this.id, files: attached(this.room, files), without });
    this.lacking = (lacking ?? []).map((/** @type {number} */ index) => this.files[index]);
    this.waiting = this.lacking.length > 0 && !without;
  }

  /** @param {string} peer */
  async retry(peer) {
    if (this.deliveries.find((delivery) => delivery.peer === peer)?.state === "done") return;
    const { over, finished } = this;
    // Before the call: for one who has left, the new end comes before the call's own.
    if (over) this.renew();
    try {
      await this.room.call("retry", { id: this.id, peer });
      if (over && this.handles.length > 0 && this.room.held) void identity.keepHandles(this.id, this.handles); // they were forgotten at the end
    } catch (error) {
      if (over && !this.over) {
        this.fail(error);
        this.finished = finished;
      }
      throw error;
    }
  }

  /**
   * @param {Promise<any>} answer the core's, to send or accept
   * @param {AbortSignal | undefined} signal
   */
  begin(answer, signal) {
    const { room } = this;
    room.transfers.push(this.transfer);
    if (this.id) room.known.set(this.id, this.transfer);
    this.started = answer.then(
      (event) => {
        this.id = event.id;
        this.handles = event.handles ?? [];
        room.known.set(this.id, this.transfer);
        if (!this.over && event.files) this.update(event);
        const early = room.early.filter((e) => e.id === this.id);
        room.early = room.sending > 0 ? room.early.filter((e) => e.id !== this.id) : [];
        for (const e of early) this.apply(e);
      },
      (error) => {
        this.fail(error);
        throw error;
      },
    );
    this.started.catch(() => {});
    this.signal = signal;
    if (!this.over) this.heed();
  }

  /** Heeds the signal, while it is not over for good. */
  heed() {
    this.signal?.addEventListener("abort", this.aborted);
  }

  /** No longer, once it is. */
  ignore() {
    if (!this.suspended()) this.signal?.removeEventListener("abort", this.aborted);
  }

  /** Whether it is over, but may go on: when the other end is back, or the recipient's storage works again. */
  suspended() {
    return this.deliveries.some(({ code }) => code === "peer-gone" || code === "storage-failed");
  }

  /** @param {string} method @param {object} [args] */
  async call(method, args) {
    await this.ask(() => this.over && !this.suspended(), method, args);
  }

  /** A limit outlasts the end, since a retry may follow: but not that of the room. @param {string} method @param {number} limit */
  async limit(method, limit) {
    await this.ask(() => this.over && this.room.data.state === "closed", method, { limit });
  }

  /** @param {() => boolean} vain whether there is nothing to ask any more @param {string} method @param {object} [args] */
  async ask(vain, method, args) {
    if (vain()) return;
    try {
      await this.started;
    } catch {
      return; // it never began; finished says why
    }
    if (vain()) return;
    try {
      await this.room.call(method, { id: this.id, ...args });
    } catch (error) {
      // It may have ended while the call was on its way.
      if (!(error instanceof TallowError && error.code === "unknown-transfer")) throw error;
    }
  }

  /** @param {unknown} peer */
  recipient(peer) {
    const id = peerID(peer);
    if (!this.deliveries.some((delivery) => delivery.peer === id)) throw new TallowError("unknown-peer", id);
    return id;
  }

  stats() {
    const recipients = this.saving ? frozen(this.deliveries.map((d) => ({ ...d, state: "saving" }))) : this.deliveries;
    const sum = (/** @type {(d: any) => number} */ value) => recipients.reduce((n, d) => n + value(d), 0);
    const total = sum((d) => d.total);
    const bytes = sum((d) => d.bytes);
    const active = recipients.filter((d) => !isOver(d.state));
    const state = this.late && active.length === 0 ? "offered" : leading(recipients.map((d) => d.state));
    return Object.freeze({
      state,
      total,
      bytes,
      percent: total > 0 ? (100 * bytes) / total : state === "done" ? 100 : 0,
      speed: sum((d) => d.speed),
      eta: active.length === 0 ? (this.over ? 0 : -1) : active.some((d) => d.eta < 0) ? -1 : Math.max(...active.map((d) => d.eta)),
      recipients,
    });
  }

  /** @param {any} event */
  update(event) {
    if (event.files) this.files = frozen(event.files);
    if (event.changed) {
      const files = [...this.files];
      for (const file of event.changed) files[file.index] = frozen([file])[0];
      this.files = Object.freeze(files);
    }
    this.late = Boolean(event.lateJoiners);
    this.paused = Boolean(event.paused);
    this.notKept = Boolean(event.notKept);
    this.deliveries = frozen(event.deliveries.map((/** @type {any} */ d) => ({ ...d, reason: d.reason ?? "" })));
  }

  /** @param {any} event */
  apply(event) {
    if (this.over) this.renew(); // a retry that crossed the end, or the other end is back
    this.update(event);
    if (event.type === "finished") {
      this.delivery = event.delivery;
      this.over = true;
      this.ignore();
      if (!this.suspended()) void identity.forgetHandles(this.id);
      try {
        const result = this.result(event, this);
        const { head, files, earlier = [], ledger: last = [] } = event.result;
        if (head) this.ledger = ledgerOf({ ...head, files, finished: true, entries: [...earlier, ...last] });
        this.resolve?.(this.save ? this.saved(this.save()).then(() => result) : result);
      } catch (error) {
        this.reject?.(error);
      }
    }
    this.transfer.dispatchEvent(new CustomEvent("progress", { detail: this.stats() }));
  }

  /** What was received and handed over is deleted. */
  gone() {
    this.kept = false;
    this.transfer.dispatchEvent(new CustomEvent("progress", { detail: this.stats() }));
  }

  /** @param {Promise<void>} saving */
  async saved(saving) {
    this.saving = true;
    try {
      await saving;
    } finally {
      this.saving = false;
      this.transfer.dispatchEvent(new CustomEvent("progress", { detail: this.stats() }));
    }
  }

  /** @param {unknown} error */
  fail(error) {
    if (this.over) return;
    this.over = true;
    this.late = false;
    this.signal?.removeEventListener("abort", this.aborted);
    this.reject?.(error);
  }
}

const running = ["transferring", "verifying", "saving", "interrupted", "paused", "offered"];
const ended = ["done", "declined", "cancelled", "failed"];

/** @param {string} state */
export function isOver(state) {
  return ended.includes(state);
}

/** The state that stands for several; for none, if nobody came before it was ended. @param {string[]} states */
function leading(states) {
  return [...running, ...ended].find((state) => states.includes(state)) ?? "cancelled";
}

/** The entries of a ledger. @param {any[] | null | undefined} list */
function entries(list) {
  const given = (/** @type {any} */ entry) => ({ keys: "", reason: "", root: "", signed: "", signature: "", ...entry, files: frozen(entry.files) });
  return frozen((list ?? []).map(given));
}

/** @param {any} told */
const ledgerOf = (told) => Object.freeze({ ...told, sender: Object.freeze(told.sender), files: frozen(told.files), entries: entries(told.entries) });

/** @param {any} event */
function outgoingResult({ result }) {
  const ledger = entries(result.ledger);
  const outcomes = (/** @type {boolean} */ done) =>
    frozen(ledger.filter((entry) => (entry.state === "done") === done).map(({ peer, name, code, reason, inMemory }) => ({ id: peer, name, code, reason, inMemory })));
  return Object.freeze({
    totalRecipients: ledger.length,
    successfulRecipients: outcomes(true),
    failedRecipients: outcomes(false),
    files: frozen(result.files),
    ledger,
  });
}

/** @param {any} event @param {TransferState} state */
function incomingResult({ result, delivery, offsets }, state) {
  const { tallow, number } = state.room;
  const { direct } = state;
  if (direct) {
    const reading = async (/** @type {number[]} */ indices) => {
      if (!state.kept) throw new TallowError("storage-failed");
      return direct.read(indices);
    };
    const arrived = result.files.filter((/** @type {any} */ { complete }) => complete).map((/** @type {any} */ { index }) => index);
    let at = 0;
    const places = result.files.map((/** @type {any} */ { complete, size }) => (complete ? (at += size) - size : 0));
    state.stored = new Stored(result, places, () => reading(arrived), async () => {
      await tallow.core.call("discard", { room: number, delivery }); // nobody needs it for what the folder has
    });
    state.stored.read = ({ index }) => reading([index]);
  } else {
    const whole = async () => {
      const { handle } = await tallow.core.call("file", { delivery });
      return tallow.core.take(handle);
    };
    state.stored = new Stored(result, offsets, whole, async () => {
      await tallow.core.call("handedOver", { room: number, delivery });
    });
  }
  state.kept = true;
  return state.stored.arrived;
}

/** A transfer that an earlier page has begun. */
export class UnfinishedTransfer {
  /** @type {any} */
  [own];

  /** @param {symbol} token @param {any} data @param {any} where */
  constructor(token, data, where) {
    internal(token);
    this[own] = { data, ...where };
  }

  get lacking() {
    const { data, transfer } = this[own];
    if (data.direction === "incoming") return Object.freeze([]);
    return Object.freeze(transfer?.[own].lacking ?? data.files.filter((/** @type {any} */ { kind, size }) => kind === "file" && size > 0));
  }

  /** @param {any} [items] @param {{ without?: boolean }} [options] */
  async continue(items, { without = false } = {}) {
    const { data, transfer } = this[own];
    check(!data.done, "it has arrived: received() has it");
    if (!transfer) throw new TallowError("room-closed", "enter the room of its link first");
    const files = (items === undefined ? await remembered(data.id) : isSendable(items) ? [items] : iterable(items, "files")).map(sendable);
    // A browser says "now" of a file whose time it does not know.
    for (const { file, handle } of files) if (!handle && Math.abs(Date.now() - file.lastModified) < 2000) file.lastModified = 0;
    await transfer[own].continue(files, Boolean(without));
    if (transfer[own].waiting) throw new TallowError("invalid-argument", `${this.lacking.length} of its files are lacking`);
    return transfer;
  }

  async received() {
    const { data, identity: found, delivery, about, core } = this[own];
    check(data.done, "it has not arrived yet");
    // Each look is short: another page may enter the room at any time, and comes back to it there.
    const free = async (/** @type {() => Promise<void>} */ work) => {
      if (!(await identity.whileFree(found.member, work))) throw new TallowError("unknown-transfer", "it is in another page");
    };
    const whole = async () => {
      /** @type {File | undefined} */
      let file;
      await free(async () => {
        try {
          file = await received(found.storage, delivery);
        } catch (error) {
          throw new TallowError("storage-failed", error);
        }
      });
      return /** @type {any} */ (file);
    };
    this[own].stored ??= new Stored(about, about.offsets, whole, () => free(() => core.call("handedOver", { storage: found.storage, delivery })));
    return this[own].stored.arrived;
  }

  /** @param {import("./tallow.js").SaveOptions} [options] */
  async saveAll(options = {}) {
    await this.received();
    await this[own].stored.saveAll(options);
  }

  async discard() {
    const { data, transfer, identity: found, delivery } = this[own];
    if (transfer) await transfer.cancel();
    else if (!(await identity.whileFree(found.member, () => remove(found.storage, delivery)))) throw new TallowError("unknown-transfer", "it goes on in another page");
    await identity.forgetHandles(data.id);
  }
}
snapshot(UnfinishedTransfer, ["id", "direction", "done", "link", "entered", "names", "files", "total", "bytes", "when", "remembered"]);

/** One in a room that this page is in. @param {Transfer} transfer */
async function waitingHere(transfer) {
  const { id, room, files, deliveries, opened, before } = transfer[own];
  const recipients = /** @type {any[]} */ (deliveries);
  const data = {
    id,
    direction: "outgoing",
    done: false,
    link: room.data.link,
    entered: true,
    names: Object.freeze(recipients.map(({ name }) => name)),
    files,
    total: files.reduce((/** @type {number} */ sum, /** @type {any} */ file) => sum + file.size, 0),
    bytes: Math.max(before, ...recipients.map(({ bytes }) => bytes)),
    when: opened,
    remembered: await someRemembered(id, files),
  };
  return new UnfinishedTransfer(own, data, { transfer });
}

/** What a journal tells. It rejects for one that tells nothing. @param {import("./boot.js").Core} core @param {File} journal */
const described = (core, journal) => core.call("describe", { handle: core.attach(journal) });

/** Whether something has arrived in a directory that the person does not have yet. @param {import("./boot.js").Core} core @param {string} directory */
async function anythingDone(core, directory) {
  for (const { journal } of await journals(directory)) {
    if (await described(core, journal).then(({ done }) => done, () => true)) return true; // one that cannot be read may be such
  }
  return false;
}

/** One in a room that no page is in. @param {import("./boot.js").Core} core @param {identity.Identity} found @param {string} delivery @param {any} about */
async function leftBehind(core, found, delivery, about) {
  const { id, incoming, names, files, total, bytes, opened } = about;
  const data = {
    id,
    direction: incoming ? "incoming" : "outgoing",
    done: about.done,
    link: `${found.pageURL}#${found.fragment}`,
    entered: false,
    names: Object.freeze(names),
    files: frozen(files),
    total,
    bytes,
    when: opened,
    remembered: !incoming && (await someRemembered(id, files)),
  };
  return new UnfinishedTransfer(own, data, { identity: found, delivery, about, core });
}

/** Whether going on needs no files of the person, or not all: the browser has kept access to some. @param {string} id @param {any[]} files */
async function someRemembered(id, files) {
  return !files.some(({ kind, size }) => kind === "file" && size > 0) || identity.hasHandles(id);
}

/** Whether what is behind a handle may be read, which the person is asked for if need be. @param {any} handle */
async function allowed(handle) {
  try {
    return !handle.queryPermission || (await handle.queryPermission({ mode: "read" })) === "granted" || (await handle.requestPermission({ mode: "read" })) === "granted";
  } catch {
    return false; // it may not ask now: the person has not just pressed something
  }
}

/** How many files are opened at a time. */
const ATONCE = 32;

/** The files of a transfer that are still there, by what the browser gave to read them again. It may ask the person, once for each folder. @param {string} id */
async function remembered(id) {
  const kept = await identity.recallHandles(id);
  if (kept.length > 0) void identity.keepHandles(id, kept); // from now on
  /** @type {Map<any, boolean>} by handle */
  const may = new Map();
  for (const { handle, folder } of kept) {
    const asked = folder ?? handle;
    if (!may.has(asked)) may.set(asked, await allowed(asked));
  }
  const readable = kept.filter(({ handle, folder }) => may.get(folder ?? handle));
  if (kept.length > 0 && readable.length === 0) throw new TallowError("file-unreadable", "the person, or the browser, said no");
  /** @type {{ path: string, file: File }[]} */
  const files = [];
  for (let i = 0; i < readable.length; i += ATONCE) {
    const some = readable.slice(i, i + ATONCE).map(async ({ path, handle }) => {
      try {
        return [{ path, file: await handle.getFile() }];
      } catch {
        return []; // it is lacking
      }
    });
    for (const found of await Promise.all(some)) files.push(...found);
  }
  return files;
}

/** When the next download may begin, in ms of performance.now(), which nobody sets. */
let nextDownload = 0;

/** Waits its turn to begin a download: Chromium drops, in silence, what a page begins beyond 10 in a second. */
async function downloadTurn() {
  const now = performance.now();
  const turn = Math.max(nextDownload, now);
  nextDownload = turn + 120;
  if (turn > now) await new Promise((resolve) => setTimeout(resolve, turn - now));
}

/** The path that a file is saved under. @param {any} data */
const savedAs = ({ kind, path }) => (kind === "text" && !path.endsWith(".txt") ? `${path}.txt` : path);

/** What a zip of these is called: as the one folder in which all of them lie, if there is one. @param {readonly ReceivedFile[]} files */
function archiveName(files) {
  const tops = new Set(files.map(({ kind, path }) => (kind === "directory" ? `${path}/` : path).split("/", 2)).map(([top, rest]) => (rest === undefined ? "" : top)));
  const [top] = tops;
  return `${(tops.size === 1 && top) || "files"}.zip`;
}

/** Hands bytes to the browser's downloads. @param {Blob} blob @param {string} name */
async function download(blob, name) {
  await downloadTurn();
  // Never the stranger's media type: a browser that ignores the download attribute must not open a document of this origin.
  const href = URL.createObjectURL(new File([blob], name, { type: "application/octet-stream" }));
  const anchor = document.createElement("a");
  anchor.href = href;
  anchor.download = name;
  anchor.style.display = "none";
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  // The download has hold of the bytes once it has begun; when that is, nobody says.
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

export class ReceivedFile {
  /** @type {any} */
  [own];

  /** @param {symbol} token @param {Stored} stored @param {any} data */
  constructor(token, stored, data) {
    internal(token);
    this[own] = { stored, data };
  }

  get saved() {
    return !this[own].stored.lacks(this);
  }

  async file() {
    const { stored, data } = this[own];
    check(data.kind !== "directory", "a directory has no bytes");
    const type = data.type || (data.kind === "text" ? "text/plain;charset=utf-8" : "");
    // A File of a slice copies nothing: both stand for the same bytes on disk.
    return new File([await stored.read(data)], data.name, { type, lastModified: data.lastModified || Date.now() });
  }

  async save() {
    const path = savedAs(this[own].data);
    await download(await this.file(), path.slice(path.lastIndexOf("/") + 1));
    await this.markSaved();
  }

  async markSaved() {
    await this[own].stored.handOver([this]);
  }

  async text() {
    check(this[own].data.kind === "text", "not a text");
    return (await this.file()).text();
  }
}
snapshot(ReceivedFile, ["index", "kind", "name", "path", "size", "type", "lastModified", "root"]);

/**
 * Freezes a list of plain objects, each with a code that may be undefined.
 * @param {readonly any[]} list
 * @returns {readonly any[]}
 */
function frozen(list) {
  return Object.freeze((list ?? []).map((item) => (Object.isFrozen(item) ? item : Object.freeze({ code: undefined, ...item }))));
}

/** @param {unknown} item */
function isSendable(item) {
  return typeof item === "string" || item instanceof Blob || (typeof item === "object" && item !== null && "path" in item && ("file" in item || item.directory === true));
}

/**
 * Checks an item of send(). The size is the one that it has now.
 * @param {any} item
 */
function sendable(item) {
  check(isSendable(item), "items are File, Blob, string, { path, file } or { path, directory: true }");
  if (typeof item === "string") {
    const size = utf8.encode(item).length;
    if (size > maxText) throw new TallowError("too-large", `a text of more than ${maxText} bytes`);
    const file = { kind: "text", path: "message.txt", type: "text/plain;charset=utf-8", lastModified: 0, size, text: item };
    return { file, blob: undefined, info: describe(file) };
  }
  const given = /** @type {any} */ (item);
  if (!(item instanceof Blob) && item.directory === true) {
    checkPath(given.path);
    const file = { kind: "directory", path: given.path, type: "", lastModified: 0, size: 0 };
    return { file, blob: undefined, info: describe(file) };
  }
  const blob = item instanceof Blob ? item : given.file;
  check(blob instanceof Blob, "file is a File or Blob");
  let path = blob instanceof File && blob.name ? blob.name : "data";
  if (item !== blob) {
    ({ path } = given);
    checkPath(path);
  }
  const { handle, folder } = item === blob ? /** @type {any} */ ({}) : given;
  check(handle === undefined || typeof handle?.getFile === "function", "handle is a FileSystemFileHandle");
  check(folder === undefined || (handle && typeof folder?.getFileHandle === "function"), "folder is a FileSystemDirectoryHandle, and goes with a handle");
  const type = utf8.encode(blob.type).length <= maxType ? blob.type : "";
  const file = { kind: "file", path, type, lastModified: blob instanceof File ? Math.max(0, blob.lastModified) : 0, size: blob.size };
  return { file, blob, handle, folder, info: describe(file) };
}

/** @param {unknown} path */
function checkPath(path) {
  const valid = typeof path === "string" && path.split("/").every((element) => element !== "" && element !== "." && element !== "..");
  check(valid && utf8.encode(path).length <= maxPath, `path is relative, of at most ${maxPath} bytes, without empty or dot elements`);
}

/** A file that was removed before anybody looked has size 0, too, and nothing else would read it. @param {Blob} blob */
async function checkEmpty(blob) {
  try {
    await blob.arrayBuffer();
  } catch (error) {
    throw new TallowError(error instanceof DOMException && error.name === "NotFoundError" ? "file-changed" : "file-unreadable", error);
  }
}

/** @param {any} file */
function describe({ kind, path, type, lastModified, size }) {
  return (/** @type {number} */ index) => ({
    index, kind, name: path.slice(path.lastIndexOf("/") + 1), path, size, type, lastModified, stored: 0, complete: false, root: "", code: undefined,
  });
}

/** @param {unknown} value @param {string} what @returns {any[]} */
function iterable(value, what) {
  check(typeof value === "object" && value !== null && Symbol.iterator in value, `${what} is a list`);
  return Array.from(/** @type {Iterable<any>} */ (value));
}

/** @param {unknown} peer */
function peerID(peer) {
  const id = peer instanceof Peer ? peer[own].data.id : peer;
  check(typeof id === "string" && /^[0-9a-f]{32}$/.test(id), "a member is named by its id");
  return id;
}

/** @param {unknown} limit */
function checkLimit(limit) {
  check(typeof limit === "number" && limit >= 0 && Number.isFinite(limit), "a limit is a number of bytes per second");
}

/** @param {import("./tallow.js").QualityThresholds | undefined} given */
function thresholds(given) {
  const { excellent, good, fair } = given ?? { excellent: 100, good: 200, fair: 300 };
  check([excellent, good, fair].every(Number.isFinite) && 0.001 <= excellent && excellent < good && good < fair && fair <= 60_000, "qualityThresholds are ms, excellent < good < fair");
  return { excellent, good, fair };
}

/** @param {any} directory */
function checkDirectory(directory) {
  check(directory === undefined || typeof directory?.getDirectoryHandle === "function", "directory is a FileSystemDirectoryHandle");
}

/** @param {unknown} signal */
function checkSignal(signal) {
  check(signal === undefined || signal instanceof AbortSignal, "signal is an AbortSignal");
}

/** @param {AbortSignal | undefined} signal */
function throwIfAborted(signal) {
  if (signal?.aborted) throw reason(signal);
}

/** Why a signal was aborted; older browsers do not say. @param {AbortSignal | undefined} signal */
function reason(signal) {
  return signal?.reason ?? new DOMException("The operation was aborted.", "AbortError");
}

/**
 * @param {unknown} value
 * @param {string} what
 * @param {string[]} schemes
 * @returns {string} the URL without fragment
 */
function url(value, what, schemes) {
  try {
    const parsed = new URL(String(value), globalThis.location?.href);
    parsed.hash = "";
    if (schemes.includes(parsed.protocol)) return parsed.href;
  } catch {
    // reported below
  }
  throw new TallowError("invalid-argument", `${what} is no URL of ${schemes.join(" or ")}`);
}

/** The signaling endpoint of the server that this module came from, or else of the page's. */
function defaultServer() {
  const base = new URL(import.meta.url);
  const { protocol, host } = /^https?:$/.test(base.protocol) ? base : location;
  return `${protocol === "https:" ? "wss:" : "ws:"}//${host}/ws`;
}

/** What a connection cannot be given would keep all from coming about, and none would say so. @param {RTCIceServer} server */
function iceServer(server) {
  const { urls, username = "", credential = "" } = server ?? {};
  const list = typeof urls === "string" ? [urls] : urls;
  check(Array.isArray(list) && list.length > 0 && list.every((u) => typeof u === "string"), "iceServers are RTCIceServer objects");
  check(typeof username === "string" && typeof credential === "string", "iceServers are RTCIceServer objects");
  check((username && credential) || !list.some((u) => /^turns?:/i.test(u)), "a TURN server has a username and a credential");
  const usable = { urls: list, username, credential };
  try {
    new RTCPeerConnection({ iceServers: [usable] }).close(); // it asks nobody
  } catch (e) {
    // Anything else is no fault of theirs: that there are too many connections, say.
    if (["SyntaxError", "InvalidAccessError", "NotSupportedError", "TypeError"].includes(/** @type {Error} */ (e).name)) {
      throw new TallowError("invalid-argument", `iceServers that this browser refuses: ${/** @type {Error} */ (e).message}`);
    }
  }
  return usable;
}
