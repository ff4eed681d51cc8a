// @ts-check
// The page: enters the room that the address names, or makes one, and connects the parts of the page with it. It uses nothing of
// Tallow but the public API (tallow.d.ts).

import { Compose } from "./compose.js";
import { People, toWhom } from "./people.js";
import { svg } from "./qr.js";
import { Unfinished } from "./unfinished.js";
import { byId, complaint, copy, el, say, shorten, size } from "./view.js";

/**
 * @typedef {import("./tallow.js").Room} Room
 * @typedef {import("./tallow.js").Tallow} Tallow
 * @typedef {import("./tallow.js").ErrorCode} ErrorCode
 */

// What a tab remembers for its reload. A link is a secret: link.js leaves it here until the room is entered, or cannot be; from then on the
// tab knows only its hash, and the room is kept by tallow.remembered(), under its own rules.
const LINK = "tallow.link";
const ROOM = "tallow.room";
// What the person chose, for all tabs.
const NAME = "tallow.name";
const RELAY_ONLY = "tallow.relayOnly";
const APPROVAL = "tallow.approval";

/** Storage that a browser may refuse: then the page forgets, and works. */
const tab = store(() => sessionStorage);
const person = store(() => localStorage);

const alerts = byId("alerts", HTMLElement);
const sendButton = byId("send-button", HTMLButtonElement);
const later = byId("later", HTMLInputElement);
const compose = new Compose(showSendable);
const people = new People(showSendable, complain);
const unfinished = new Unfinished(
  complain,
  continueIn,
  async (transfer) => (await modules)?.[1].sent(transfer),
  async (saving) => (await modules)?.[1].hold(saving),
);
/** @type {Promise<[typeof import("./tallow.js"), import("./transfers.js").Transfers]> | undefined} */
let modules;
/** @type {Tallow | undefined} */
let tallow;
/** @type {Room | undefined} */
let room;
/** The name drawn for this page, where the browser keeps none. @type {string | undefined} */
let drawnName;
/** The link that this page is to enter, until it has: the tab's storage may not have it, or have it no more. */
let wanted = handedOver() ?? tab.get(LINK);
/** Ends the latest attempt to enter. */
let attempt = new AbortController();
/** @type {ReturnType<typeof setTimeout> | undefined} */
let again;
/** Whether the person wanted to be hidden when this page entered last. */
let hidden = false;

showOwnName();
showSendable();
connectControls();
enter();

async function enter() {
  attempt.abort();
  attempt = new AbortController();
  const { signal } = attempt;
  clearTimeout(again);
  try {
    modules ??= loadModules();
    const [api, transfers] = await modules;
    if (!tallow) {
      tallow = await api.load();
      showFeatures(tallow);
      showProgram(tallow);
    }
    const link = wanted ?? (await linkOfReload(tallow));
    hidden = person.get(RELAY_ONLY) === "yes";
    const options = { name: ownName(), relayOnly: hidden, signal };
    const entered = link
      ? await tallow.joinRoom(link, { ...options, onpending: () => banner("pending", "Waiting to be let in: the person who made this room is being asked.") })
      : await tallow.createRoom({ ...options, admission: person.get(APPROVAL) === "yes" ? "approval" : "auto" });
    const name = await hash(entered.link);
    if (signal.aborted) {
      entered.leave();
      return;
    }
    settle(link, name);
    hideProblem();
    showRoom(entered);
    showFeatures(tallow, entered);
    transfers.show(entered, tallow.features.memoryLimit);
    unfinished.show(tallow);
  } catch (error) {
    if (!signal.aborted) showProblem(error);
  } finally {
    if (!signal.aborted) banner("pending", "");
  }
}

/** The rest of the code: what the page needs only once there is a room. */
async function loadModules() {
  try {
    const [api, { Transfers }] = await Promise.all([import("./tallow.js"), import("./transfers.js")]);
    return /** @type {[typeof api, import("./transfers.js").Transfers]} */ ([api, new Transfers(complain)]);
  } catch (error) {
    // A browser never loads a module again that failed once: only a reload helps.
    modules = undefined;
    throw new PageError("load-failed");
  }
}

/** What only the page can find out. */
class PageError extends Error {
  /** @param {"load-failed" | "room-lost"} code */
  constructor(code) {
    super(
      code === "load-failed"
        ? "The page could not be loaded completely. Check your connection, then try again."
        : "This tab was in a room that this browser no longer keeps, or that is open in another tab. Open its link again.",
    );
    this.code = code;
  }
}

/** The link that link.js could not store, once. */
function handedOver() {
  const page = /** @type {{ tallowLink?: string }} */ (globalThis);
  const link = page.tallowLink;
  delete page.tallowLink;
  return link;
}

/**
 * Ends the wait for a link. Another one, opened meanwhile, stays: the page is being loaded again for it.
 * @param {string | undefined} link
 * @param {string | undefined} room what the tab is to know of the room that it is in
 */
function settle(link, room) {
  wanted = undefined;
  const stored = tab.get(LINK);
  if (stored !== undefined && stored !== link) return;
  tab.set(LINK, undefined);
  tab.set(ROOM, room);
}

/** The link of the room that this tab was in before its reload, if any. @param {Tallow} instance */
async function linkOfReload(instance) {
  const known = tab.get(ROOM);
  if (!known) return undefined;
  // After a reload the page before this one may need a moment to let go of the room.
  for (let tries = 0; tries < 10; tries++) {
    for (const { link } of await instance.remembered()) if ((await hash(link)) === known) return link;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new PageError("room-lost");
}

/** Names a link without revealing it. @param {string} link */
async function hash(link) {
  const secret = new TextEncoder().encode(new URL(link).hash);
  // Without WebCrypto (an insecure page) a tab cannot be told from another: it comes back to the room that the browser kept.
  if (!crypto.subtle) return "the only one";
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", secret));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {Room} entered */
function showRoom(entered) {
  room = entered;
  people.show(entered);
  const link = byId("link", HTMLInputElement);
  link.value = entered.link;
  const qr = byId("qr", HTMLElement);
  try {
    qr.replaceChildren(svg(entered.link));
  } catch {
    qr.replaceChildren(); // too long for one
    qr.classList.add("impossible");
  }
  byId("copy-link", HTMLButtonElement).disabled = false;
  byId("share-link", HTMLButtonElement).hidden = !navigator.share;
  byId("owner-controls", HTMLElement).hidden = !entered.self.owner;
  showLock(entered.locked);
  showOwnName();
  entered.addEventListener("statechange", ({ detail }) => room === entered && showState(detail));
  for (const type of /** @type {const} */ (["peerchange", "peerleave"])) entered.addEventListener(type, () => room === entered && showRelayOnly());
  showRelayOnly();
  entered.addEventListener("error", ({ detail }) => {
    const name = entered.peers.find((peer) => peer.id === detail.peer)?.name;
    complain(detail, name);
  });
  showState({ state: entered.state, code: undefined });
}

function forgetRoom() {
  room = undefined;
  people.show(undefined);
  byId("link", HTMLInputElement).value = "";
  byId("qr", HTMLElement).replaceChildren();
  byId("copy-link", HTMLButtonElement).disabled = true;
  byId("share-link", HTMLButtonElement).hidden = true;
  byId("owner-controls", HTMLElement).hidden = true;
  showLock(false);
  banner("state", "");
  banner("relay", "");
}

/** @param {{ state: import("./tallow.js").RoomState, code: ErrorCode | undefined }} detail */
async function showState({ state, code }) {
  showRelayOnly();
  banner("state", state === "disconnected" ? "The server is away. Transfers go on; it is tried again until it is back." : "");
  if (state !== "closed") return;
  forgetRoom();
  const [{ TallowError }] = /** @type {Awaited<NonNullable<typeof modules>>} */ (await modules);
  showProblem(new TallowError(code ?? "room-closed"));
}

// What to call a problem that keeps us out, and what happens next.

/** @type {Record<string, string>} */
const TITLES = {
  "bad-link": "This link does not work",
  "link-version": "This link does not fit this page",
  "owner-away": "Nobody is there to let you in",
  "room-full": "This room is full",
  "room-locked": "This room is locked",
  "join-denied": "You were not let in",
  removed: "You were removed from this room",
  replaced: "Open somewhere else",
  "server-unreachable": "No connection to the server",
  "server-refused": "The server refused",
  "server-full": "The server is busy",
  "rate-limited": "Too many attempts",
  "unsupported-browser": "This browser cannot do it",
  "insecure-origin": "This page is not secure",
  "room-closed": "The room is closed",
  "load-failed": "Not loaded completely",
  "room-lost": "That room is not here any more",
};
/** What passes by itself, and the pause before the next attempt in seconds. @type {Record<string, number>} */
const PASSING = { "owner-away": 5, "server-unreachable": 3, "server-full": 15 };
/** What trying again does not change. */
const FINAL = new Set(["bad-link", "link-version", "join-denied", "removed", "room-closed", "room-lost"]);
/** What another room does not change. */
const HOPELESS = new Set(["unsupported-browser", "load-failed", "server-unreachable", "server-full", "rate-limited"]);

/** @param {unknown} error */
function showProblem(error) {
  const code = error instanceof Error && "code" in error ? String(error.code) : "internal";
  const wait = PASSING[code];
  if (FINAL.has(code)) settle(wanted, undefined);
  say(byId("problem-title", HTMLElement), TITLES[code] ?? "That did not work");
  say(byId("problem-text", HTMLElement), complaint(error));
  say(byId("problem-next", HTMLElement), wait ? "Trying again by itself." : "");
  byId("problem-retry", HTMLButtonElement).hidden = FINAL.has(code);
  byId("problem-new", HTMLButtonElement).hidden = HOPELESS.has(code);
  const section = byId("problem", HTMLElement);
  section.dataset.code = code;
  const shown = !section.hidden;
  section.hidden = false;
  document.body.classList.add("out");
  if (!shown) byId("problem-title", HTMLElement).focus();
  if (wait) again = setTimeout(enter, wait * 1000);
}

function hideProblem() {
  byId("problem", HTMLElement).hidden = true;
  document.body.classList.remove("out");
}

/** Shows, changes or (with "") takes away a line about the state of things. @param {string} key @param {string} text */
function banner(key, text) {
  const banners = byId("banners", HTMLElement);
  let line = banners.querySelector(`[data-key="${key}"]`);
  if (!text) return line?.remove();
  if (!line) banners.append((line = el("p", { "data-key": key })));
  say(line, text);
}

/** Shows an error that does not end anything. @param {unknown} error @param {string} [about] whom it concerns */
function complain(error, about) {
  const text = `${about ? `${about}: ` : ""}${complaint(error)}`;
  for (const old of alerts.children) if (old.firstChild?.textContent === text) old.remove();
  if (alerts.children.length >= 3) alerts.firstChild?.remove();
  const line = el("p", {}, el("span", {}, text));
  line.append(el("button", { type: "button", class: "small quiet", onclick: () => line.remove() }, "Dismiss"));
  alerts.append(line);
  if (!(error instanceof Error && "code" in error)) console.error(error);
}

function showSendable() {
  const what = compose.summary;
  const whom = toWhom(people.picked, people.pickable, later.checked);
  sendButton.disabled = !room || !what || (people.picked.length === 0 && !later.checked);
  say(byId("send-summary", HTMLElement), what ? [what, whom || "nobody is here yet"].join(" · ") : whom ? `Choose what to send ${whom}.` : "");
}

async function send() {
  if (!room || !modules) return;
  const [, transfers] = await modules;
  try {
    // Who is picked, if not everybody: then the others are not to get it later either.
    const everybody = later.checked && people.picked.length === people.pickable.length;
    transfers.sent(room.send(compose.items, { to: everybody ? undefined : people.picked, lateJoiners: later.checked }));
    later.checked = false;
    compose.clear();
  } catch (error) {
    complain(error);
  }
}

function connectControls() {
  window.addEventListener("online", () => {
    if (!room && !byId("problem", HTMLElement).hidden && !byId("problem-retry", HTMLButtonElement).hidden) enter();
  });
  // Another link, in a tab whose storage refused it: where it did not, link.js has the page loaded again.
  window.addEventListener("hashchange", () => {
    const link = handedOver();
    if (link) openRoom(link);
  });
  sendButton.addEventListener("click", send);
  later.addEventListener("change", showSendable);
  byId("problem-retry", HTMLButtonElement).addEventListener("click", () => {
    if (!modules) return location.reload();
    say(byId("problem-next", HTMLElement), "Trying again…");
    enter();
  });
  byId("problem-new", HTMLButtonElement).addEventListener("click", openNewRoom);

  const link = byId("link", HTMLInputElement);
  link.addEventListener("focus", () => link.select());
  const copyButton = byId("copy-link", HTMLButtonElement);
  copyButton.addEventListener("click", () => copy(link.value, copyButton));
  byId("share-link", HTMLButtonElement).addEventListener("click", () => {
    navigator.share({ title: "Tallow", text: "Join me on Tallow", url: link.value }).catch(() => {}); // the person changed their mind
  });
  const lock = byId("lock", HTMLButtonElement);
  lock.addEventListener("click", async () => {
    const locked = lock.getAttribute("aria-pressed") !== "true";
    try {
      await room?.lock(locked);
      showLock(Boolean(room?.locked));
    } catch (error) {
      complain(error);
    }
  });
  connectSettings();
}

/** Whether it is the server that hides everybody's address. */
const demanded = () => Boolean(room?.relayOnly) && !hidden;

/** Says whether the person's address is hidden, and at whose wish. */
function showRelayOnly() {
  const wish = demanded() ? ", as this server demands" : "";
  // A server may begin to demand it while there are connections.
  const some = room?.peers.some(({ route }) => route === "direct");
  banner("relay", !room?.relayOnly ? "" : some ? `Relay only for new connections${wish}.` : `Relay only${wish}: the others do not learn your network address.`);
}

/** Shows the wish in the settings. */
function showRelayChoice() {
  const box = byId("relay-only", HTMLInputElement);
  box.checked = demanded() || person.get(RELAY_ONLY) === "yes";
  box.disabled = demanded();
  say(byId("relay-hint", HTMLElement), demanded() ? "This server demands it of everybody." : "The others do not learn your network address. Slower.");
}

/** @type {Record<import("./tallow.js").ExposureKind, (detail: string) => string>} */
const EXPOSURES = {
  signaling: () => "This server: you are connected with it.",
  stun: (url) => `${url}: it is asked for your address.`,
  turn: (url) => `${url}: it relays for you.`,
  "plain-relay": (url) => `Whoever is on the way to ${url} sees that you use this relay: there is no TLS. What is relayed is encrypted all the same.`,
  "plain-server": () => "Whoever is on the way to this server sees that you use it: there is no TLS.",
  direct: () => "Everybody in the room: connections are direct where that is possible.",
  candidate: (type) => `Everybody in the room was told ${type === "host" ? "the address of this device, or a name for it" : "your public address"}.`,
  route: (id) => `${room?.peers.find((peer) => peer.id === id)?.name || "Somebody"}: you are connected directly.`,
};

/** Lists who learns the person's address. Called again while it can be seen, it leaves what stands there already. */
async function showExposure() {
  const list = (await room?.exposure().catch(() => [])) ?? [];
  byId("exposure", HTMLElement).hidden = list.length === 0;
  const lines = byId("exposures", HTMLElement);
  const items = list.map(({ what, to, detail, leak }) =>
    el("li", { "data-what": what, "data-to": to }, leak ? `Against your wish: ${what === "candidate" ? "this browser looked for direct connections." : EXPOSURES[what](detail)}` : EXPOSURES[what](detail)),
  );
  if (items.length !== lines.children.length || items.some((item, i) => !item.isEqualNode(lines.children[i]))) lines.replaceChildren(...items);
}

/** @param {boolean} locked */
function showLock(locked) {
  const lock = byId("lock", HTMLButtonElement);
  lock.setAttribute("aria-pressed", String(locked));
  say(byId("lock-hint", HTMLElement), locked ? "Nobody new comes in." : "Locked, it lets nobody new in.");
}

function connectSettings() {
  const dialog = byId("settings", HTMLDialogElement);
  const name = byId("name", HTMLInputElement);
  const relayOnly = byId("relay-only", HTMLInputElement);
  const approval = byId("approval", HTMLInputElement);
  const forget = byId("forget", HTMLButtonElement);
  forget.addEventListener("click", async () => {
    try {
      for (const { link } of (await tallow?.remembered()) ?? []) await tallow?.forget(link);
      tab.set(LINK, undefined); // the page still has it, for "Try again"
      await showRemembered();
    } catch (error) {
      complain(error);
    }
    if (tallow) unfinished.show(tallow); // what was in those rooms is gone
  });
  byId("open-settings", HTMLButtonElement).addEventListener("click", () => {
    showRemembered();
    showExposure();
    // Nothing tells of every way in which it changes.
    const looking = setInterval(showExposure, 1000);
    dialog.addEventListener("close", () => clearInterval(looking), { once: true });
    name.value = ownName();
    showRelayChoice();
    approval.checked = person.get(APPROVAL) === "yes";
    dialog.returnValue = "";
    dialog.showModal();
  });
  dialog.addEventListener("close", async () => {
    if (dialog.returnValue !== "save" && dialog.returnValue !== "new") return;
    const before = [ownName(), person.get(RELAY_ONLY)].join();
    person.set(NAME, fitting(name.value) || ownName());
    if (!relayOnly.disabled) person.set(RELAY_ONLY, relayOnly.checked ? "yes" : undefined); // else it is the server's
    person.set(APPROVAL, approval.checked ? "yes" : undefined);
    showOwnName();
    const changed = before !== [ownName(), person.get(RELAY_ONLY)].join();
    if (dialog.returnValue === "new" && (await openNewRoom())) return;
    if (room && changed) location.reload(); // others learn a name as one enters
    else if (changed) enter(); // an attempt under way has what was set before
  });
}

/** The keys of rooms that were closed and not left stay a while; the person may not want that. */
async function showRemembered() {
  const kept = ((await tallow?.remembered())?.length ?? 0) + (tab.get(LINK) ? 1 : 0);
  byId("remembered", HTMLElement).hidden = kept === 0;
  say(byId("remembered-hint", HTMLElement), `This browser keeps the ${kept === 1 ? "key of a room" : `keys of ${kept} rooms`} that you closed and can come back to. Keys not used for 7 days are deleted at the next visit. To forget them deletes what is unfinished or not saved there, too.`);
}

/** Leaves the room for a new one, if the person still wants that once told what it costs. Returns whether it did. */
async function openNewRoom() {
  const transfers = room && modules && (await modules)[1];
  const unsaved = (room && (await transfers?.unsaved(room))) || 0;
  const costs = [];
  if (room && transfers?.unfinished(room)) costs.push("What you are sending or receiving in this room ends when you leave it.");
  if (unsaved > 0) costs.push(`You have not saved ${size(unsaved)} of what you received in this room. Once it is left, that goes when this page is closed.`);
  const leaves = costs.length === 0 || confirm(`${costs.join(" ")} Leave the room?`);
  if (leaves) await openRoom(undefined);
  return leaves;
}

/** Leaves the room, and enters another or a new one. @param {string | undefined} link */
async function openRoom(link) {
  attempt.abort();
  const old = room;
  if (old && modules) (await modules)[1].left();
  tab.set(LINK, undefined);
  tab.set(ROOM, undefined);
  wanted = link;
  forgetRoom();
  hideProblem();
  await old?.leave();
  await enter();
}

/** Enters the room of something unfinished: here, if nobody and nothing here needs this page, which leaves its room for good. @param {string} link */
async function continueIn(link) {
  const transfers = modules && (await modules)[1];
  if (room?.peers.length || transfers?.busy(room)) window.open(link, "_blank", "noopener");
  else await openRoom(link);
}

/** @param {Tallow} instance @param {Room} [room] once it is entered */
function showFeatures({ features }, room) {
  const limits = [];
  if (features.crypto === "wasm") limits.push("this page was not loaded securely (https), so encryption is slower here");
  if (features.storage === "memory") limits.push(`this browser offers no disk space here, so up to ${Math.round(features.memoryLimit / 1e6)} MB can be received at a time`);
  else if (room && !room.resumable) limits.push("this browser stores nothing that a transfer could go on from after a reload: keep this page open");
  const text = limits.join("; ");
  banner("features", text && `${text[0].toUpperCase()}${text.slice(1)}. Everything is still end-to-end encrypted.`);
}

/**
 * Names the program by the hash of what was loaded, and says so when the server names another one and still does some seconds later:
 * while it is upgraded, what it serves and what it names may differ.
 * @param {Tallow} instance
 */
async function showProgram({ version, wasmSHA256 }) {
  if (!wasmSHA256) return; // an insecure page, which says so
  byId("build", HTMLElement).replaceChildren("code hash ", el("code", {}, wasmSHA256.slice(0, 16)));
  byId("program", HTMLElement).replaceChildren(`Version ${version}, SHA-256 of the code: `, el("code", {}, wasmSHA256));
  try {
    const named = async () => (await (await fetch("version", { cache: "no-store" })).json()).wasmSHA256;
    const differs = (/** @type {unknown} */ served) => typeof served === "string" && served !== wasmSHA256;
    if (!differs(await named())) return;
    await new Promise((resolve) => setTimeout(resolve, 5000));
    const served = await named();
    if (!differs(served)) return;
    banner("program", `This page runs the code ${wasmSHA256.slice(0, 16)}, and its server names ${served.slice(0, 16)}: it may have been upgraded since. Reload the page; if they still differ, ask whoever runs the server before you trust it.`);
  } catch {
    // Nothing to compare with.
  }
}

// The person

function showOwnName() {
  say(byId("own-name", HTMLElement), room?.self.name || ownName());
}

/** The name that the others see; a friendly one is drawn the first time. */
function ownName() {
  const kept = person.get(NAME);
  if (kept) return kept;
  const moods = "Brave Bright Calm Clever Cosy Curious Eager Gentle Happy Honest Kind Lively Lucky Merry Mellow Nimble Patient Quick Quiet Sunny Warm Wise".split(" ");
  const animals = "Badger Beaver Bison Crane Dolphin Falcon Finch Fox Gecko Hare Hedgehog Heron Ibex Koala Lynx Marten Newt Otter Owl Panda Puffin Raven Robin Seal Swan Tapir Wombat Wren".split(" ");
  const draw = (/** @type {string[]} */ words) => words[crypto.getRandomValues(new Uint32Array(1))[0] % words.length];
  const name = `${draw(moods)} ${draw(animals)}`;
  person.set(NAME, name);
  return person.get(NAME) ?? (drawnName ??= name);
}

/** As much of a name as the API takes. @param {string} name */
const fitting = (name) => shorten(name, 64);

/** @param {() => Storage} open */
function store(open) {
  return {
    /** @param {string} key */
    get(key) {
      try {
        return open().getItem(key) ?? undefined;
      } catch {
        return undefined;
      }
    },
    /** @param {string} key @param {string | undefined} value undefined removes it */
    set(key, value) {
      try {
        if (value === undefined) open().removeItem(key);
        else open().setItem(key, value);
      } catch {
        // Refused or full: forgotten at the next load.
      }
    },
  };
}
