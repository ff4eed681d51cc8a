// @ts-check
// Who we are in which room, kept in IndexedDB so that a reload enters as the same member: the link's fragment and the seed of the signing
// keys, per room, until it is left. What no page has used for 7 days is deleted at the next visit. A Web Lock per identity lets one page
// use it at a time; without IndexedDB or Web Locks nothing is kept.

const hour = 60 * 60 * 1000;
const maxAge = 7 * 24 * hour;
/** How long a reloaded page waits for itself to let go of what it was, in ms. */
const reloadTimeout = 5000;
const lockPrefix = "tallow identity ";

/**
 * @typedef {object} Identity
 * @property {string} member the member id, the key
 * @property {string} room the room id
 * @property {string} seed hexadecimal
 * @property {string} [storage] the name of the directory in the private file system where what is unfinished lies
 * @property {string} fragment of the link
 * @property {string} pageURL
 * @property {string} name
 * @property {boolean} owner
 * @property {boolean} [relayOnly] this member hides its address
 * @property {string[]} members of an own room: the roster, so that whoever was in it still is
 * @property {string[]} [removed] of an own room, as the next three: who may not come back
 * @property {boolean} [locked]
 * @property {"auto" | "approval"} [admission]
 * @property {number} [maxRecipients]
 * @property {number} entered for the first time, ms since 1970
 * @property {number} [used] last, give or take an hour, ms since 1970
 */

/** @returns {boolean} */
export const supported = () => typeof indexedDB !== "undefined" && typeof navigator !== "undefined" && navigator.locks !== undefined;

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * Runs work in a transaction. The database is opened for it and closed again, so that an idle page blocks nobody's upgrade.
 * @template T
 * @param {"identities" | "handles"} name
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => Promise<T>} work
 * @returns {Promise<T>}
 */
async function withStore(name, mode, work) {
  const opening = indexedDB.open("tallow", 2);
  opening.onupgradeneeded = ({ oldVersion }) => {
    if (oldVersion < 1) opening.result.createObjectStore("identities", { keyPath: "member" });
    opening.result.createObjectStore("handles", { keyPath: "transfer" });
  };
  const database = await result(opening);
  try {
    const transaction = database.transaction(name, mode);
    const done = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
    });
    const value = await work(transaction.objectStore(name));
    await done;
    return value;
  } finally {
    database.close();
  }
}

/**
 * The identities that are in use or were not long ago, newest first, and whether a page has them now. The others are deleted.
 * @returns {Promise<{ identity: Identity, taken: boolean }[]>}
 */
async function all() {
  const { held = [] } = await navigator.locks.query();
  const locks = new Set(held.map((lock) => lock.name));
  return withStore("identities", "readwrite", async (store) => {
    /** @type {Identity[]} */
    const identities = await result(store.getAll());
    const oldest = Date.now() - maxAge;
    const found = identities.map((identity) => ({ identity, taken: locks.has(lockPrefix + identity.member) }));
    const kept = found.filter(({ identity: { used, entered }, taken }) => taken || (used ?? entered) >= oldest);
    for (const old of found) if (!kept.includes(old)) store.delete(old.identity.member);
    return kept.sort((a, b) => b.identity.entered - a.identity.entered);
  });
}

/**
 * Takes the lock of a member's identity.
 * @param {string} member
 * @param {AbortSignal} [patience] how long to wait for it; none: not at all
 * @returns {Promise<(() => void) | undefined>} releases it; undefined when another page has it
 */
function acquire(member, patience) {
  return new Promise((resolve, reject) => {
    navigator.locks
      .request(lockPrefix + member, patience ? { signal: patience } : { ifAvailable: true }, (lock) => {
        if (lock === null) return resolve(undefined);
        return new Promise((release) => resolve(() => release(undefined)));
      })
      .catch((error) => (patience?.aborted ? resolve(undefined) : reject(error)));
  });
}

/** Takes the lock of a member's identity, within some seconds. @param {string} member */
async function acquirePatiently(member) {
  const patience = new AbortController();
  const late = setTimeout(() => patience.abort(), reloadTimeout);
  const release = await acquire(member, patience.signal);
  clearTimeout(late);
  return release;
}

/** Keeps for a reload of this tab that it holds an identity, or does no longer. @param {string} member @param {boolean} held */
function note(member, held) {
  try {
    if (held) sessionStorage.setItem(lockPrefix + member, "held");
    else sessionStorage.removeItem(lockPrefix + member);
  } catch {
    // Refused: then a reload does not wait.
  }
}

/** What the page before this one in this tab held, if this is its reload: it may be about to let go of it. @type {Set<string>} */
const former = new Set();
try {
  const [navigation] = performance.getEntriesByType("navigation");
  if (/** @type {any} */ (navigation)?.type === "reload")
    for (const key of Object.keys(sessionStorage)) if (key.startsWith(lockPrefix)) former.add(key.slice(lockPrefix.length));
} catch {
  // Refused: then nothing is waited for.
}

/**
 * An identity that this page holds: release() lets other pages have it, forget() deletes it as well.
 * @typedef {{ update: (change: Partial<Identity>) => Promise<void>, release: () => void, forget: () => Promise<void> }} Held
 */

/**
 * @param {string} member
 * @param {() => void} release
 * @returns {Held}
 */
function hold(member, release) {
  /** @param {Partial<Identity>} change */
  const update = (change) =>
    withStore("identities", "readwrite", async (store) => {
      const identity = await result(store.get(member));
      if (identity) store.put({ ...identity, ...change, used: Date.now() });
    });
  const use = () => void update({}).catch(() => {}); // it ages
  use();
  const using = setInterval(use, hour);
  note(member, true);
  return {
    update,
    release() {
      clearInterval(using);
      note(member, false);
      release();
    },
    async forget() {
      try {
        await withStore("identities", "readwrite", (store) => result(store.delete(member)));
      } catch {
        // It ages out.
      }
      this.release();
    },
  };
}

/**
 * The identity that this browser has in a room and no other page uses now. A reloaded page waits some seconds for that which it had.
 * @param {string} room
 * @returns {Promise<{ identity: Identity, held: Held } | undefined>}
 */
export async function recall(room) {
  if (!supported()) return undefined;
  try {
    await looks;
    const ours = (await all()).map(({ identity }) => identity).filter((identity) => identity.room === room);
    ours.sort((a, b) => Number(former.has(b.member)) - Number(former.has(a.member)));
    for (const identity of ours) {
      const release = await (former.delete(identity.member) ? acquirePatiently(identity.member) : acquire(identity.member));
      if (release) return { identity, held: hold(identity.member, release) };
    }
  } catch {
    // Storage may be denied (private windows, blocked cookies): then nothing is remembered.
  }
  return undefined;
}

/**
 * Keeps a new identity.
 * @param {Identity} identity
 * @returns {Promise<Held | undefined>}
 */
export async function keep(identity) {
  if (!supported()) return undefined;
  try {
    const release = await acquire(identity.member);
    if (!release) return undefined;
    try {
      await withStore("identities", "readwrite", (store) => result(store.put(identity)));
    } catch (error) {
      release();
      throw error;
    }
    return hold(identity.member, release);
  } catch {
    return undefined; // as in recall
  }
}

/** What whileFree does, one after another: this page is not to stand in its own way. @type {Promise<unknown>} */
let looks = Promise.resolve();

/**
 * Holds a member's identity while something is done, unless a page has it.
 * @param {string} member
 * @param {() => Promise<void>} work
 * @returns {Promise<boolean>} whether it was free
 */
export function whileFree(member, work) {
  const look = looks.then(async () => {
    const release = await acquire(member);
    if (!release) return false;
    try {
      await work();
    } finally {
      release();
    }
    return true;
  });
  looks = look.catch(() => {});
  return look;
}

/**
 * What a browser gives to read a file again. path: as it was given; folder: that the person dropped, in which it is.
 * @typedef {{ path: string, handle: FileSystemFileHandle, folder?: FileSystemDirectoryHandle }} Kept
 */

/** Keeps what a browser gives to read a transfer's files again. @param {string} transfer @param {Kept[]} handles */
export async function keepHandles(transfer, handles) {
  try {
    await withStore("handles", "readwrite", (store) => result(store.put({ transfer, handles, kept: Date.now() })));
  } catch {
    // Then the person chooses the files again.
  }
}

/** @param {string} transfer @returns {Promise<Kept[]>} */
export async function recallHandles(transfer) {
  try {
    return (await withStore("handles", "readonly", (store) => result(store.get(transfer))))?.handles ?? [];
  } catch {
    return [];
  }
}

/** Whether there are any. There may be thousands, so they are not read for that. @param {string} transfer */
export async function hasHandles(transfer) {
  try {
    return (await withStore("handles", "readonly", (store) => result(store.count(transfer)))) > 0;
  } catch {
    return false;
  }
}

/** @param {string} transfer */
export async function forgetHandles(transfer) {
  try {
    await withStore("handles", "readwrite", (store) => result(store.delete(transfer)));
  } catch {
    // They age out.
  }
}

/** Deletes the identities that are too old, of whichever room, and such handles. */
export async function expire() {
  if (!supported()) return;
  try {
    await all();
    const oldest = Date.now() - maxAge;
    await withStore("handles", "readwrite", async (store) => {
      for (const { transfer, kept } of await result(store.getAll())) if (kept < oldest) store.delete(transfer);
    });
  } catch {
    // As in recall.
  }
}

/**
 * The identities that no page uses now.
 * @returns {Promise<Identity[]>}
 */
export async function idle() {
  if (!supported()) return [];
  try {
    await looks;
    return (await all()).filter(({ taken }) => !taken).map(({ identity }) => identity);
  } catch {
    return [];
  }
}

/**
 * Forgets the identities in a room that no page uses now.
 * @param {string} room
 * @param {(identity: Identity) => Promise<void>} clear deletes what else there is of one
 */
export async function forget(room, clear) {
  for (let found = await recall(room); found; found = await recall(room)) {
    await clear(found.identity).catch(() => {}); // what cannot be deleted now ages out
    await found.held.forget();
  }
}
