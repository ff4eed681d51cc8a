// @ts-check
/// <reference lib="webworker" />
// Keeps received files in the origin private file system: tallow/<directory>/<delivery>/<name>, with sync access handles, which exist in
// workers only. A classic script without imports, so that every browser that has those handles runs it. host-files.js speaks to
// it: each message { seq, kind, … } is answered in order with { seq, value } or { seq, error }, and a buffer goes back to where it came from.

/** An open file locks, and costs the browser a descriptor; ten thousand small ones must not. */
const maxOpen = 32;
/** How often the time of last use is noted, in ms. */
const noteEvery = 60_000;
const root = "tallow";
const noteName = "used"; // no delivery: those are hexadecimal
/** The file of a delivery that is unfinished, and can be gone on with, or that the person does not have yet. */
const journalName = "journal";
/** How long to wait for the page before this one to let go of the storage, after a reload say, in ms. */
const patience = 8000;

/**
 * @typedef {object} Stored
 * @property {string} path
 * @property {FileSystemFileHandle} file
 * @property {any} access the sync access handle; undefined while closed
 * @property {boolean} unflushed put() has written to it since the last flush
 * @property {boolean} committed
 */

/** @type {FileSystemDirectoryHandle} */
let home;
let directory = "";
let noted = 0;
/** @type {() => void} */
let unlock = () => {};
/** By id; what put() keeps, by its path. @type {Map<number | string, Stored>} */
const files = new Map();
/** @type {Map<string, Stored>} the same by path */
const paths = new Map();
/** @type {Set<Stored>} with an open handle, the least recently used first */
const open = new Set();
/** @type {Map<string, FileSystemDirectoryHandle>} */
const deliveries = new Map();

/** @param {string} name @param {string} message */
const refuse = (name, message) => Object.assign(new Error(message), { name });

// Every call on a handle is awaited: older browsers return promises where newer ones do not.

/** @param {Stored} stored */
async function access(stored) {
  if (stored.access) {
    open.delete(stored);
  } else {
    for (const oldest of open) {
      if (open.size < maxOpen) break;
      await shut(oldest);
    }
    stored.access = await /** @type {any} */ (stored.file).createSyncAccessHandle();
  }
  open.add(stored);
  return stored.access;
}

/** @param {Stored} stored */
async function shut(stored) {
  const handle = stored.access;
  stored.access = undefined;
  open.delete(stored);
  await handle?.close();
}

/** @param {number | string} id */
function get(id) {
  const stored = files.get(id);
  if (!stored) throw refuse("InvalidStateError", "the file is closed");
  return stored;
}

/** @param {string} delivery @param {boolean} create */
async function getFolder(delivery, create) {
  let folder = deliveries.get(delivery);
  if (!folder) deliveries.set(delivery, (folder = await home.getDirectoryHandle(delivery, { create })));
  return folder;
}

/** @param {string} path @param {boolean} create */
async function find(path, create) {
  if (paths.has(path)) throw refuse("Error", "the file is in use");
  const [delivery, name] = path.split("/");
  const folder = await getFolder(delivery, create);
  return { path, file: await folder.getFileHandle(name, { create }), access: undefined, committed: false, unflushed: false };
}

/** @param {number | string} id @param {Stored} stored */
function keep(id, stored) {
  files.set(id, stored);
  paths.set(stored.path, stored);
}

/** @param {number | string} id */
async function forget(id) {
  const stored = files.get(id);
  if (!stored) return;
  files.delete(id);
  paths.delete(stored.path);
  await shut(stored);
}

// The note of the time tells other tabs, much later, that this directory is a leftover.
async function note() {
  if (Math.abs(Date.now() - noted) < noteEvery) return;
  noted = Date.now();
  const handle = await /** @type {any} */ (await home.getFileHandle(noteName, { create: true })).createSyncAccessHandle();
  try {
    const text = new TextEncoder().encode(String(noted));
    await handle.truncate(text.length);
    await handle.write(text, { at: 0 });
    await handle.flush();
  } finally {
    await handle.close();
  }
}

/** A note that fails costs nobody a file: the next one may succeed. */
const noteQuietly = () => note().catch(() => undefined);

/** Makes what put() has written beside the files of a delivery durable. @param {string} delivery */
async function flushBeside(delivery) {
  for (const stored of files.values()) {
    if (!stored.unflushed || !stored.path.startsWith(`${delivery}/`)) continue;
    stored.unflushed = false; // of what is put while this waits
    try {
      await (await access(stored)).flush();
    } catch (error) {
      stored.unflushed = true;
      throw error;
    }
  }
}

/** @param {any} handle @param {Uint8Array} data @param {number} at */
async function writeAll(handle, data, at) {
  const n = await handle.write(data, { at });
  if (n < data.length) throw refuse("QuotaExceededError", `${n} of ${data.length} bytes were written`);
}

const lockName = (/** @type {string} */ name) => `tallow storage ${name}`;
// Held shared while a directory is claimed, alone while leftovers are deleted.
const sweepLock = "tallow storages";

/** Holds a directory's lock until unlock. @param {string} name @param {boolean} wait */
const claim = (name, wait) =>
  new Promise((resolve, reject) => {
    const inUse = () => refuse("NoModificationAllowedError", "the storage is in use by another tab");
    const signal = new AbortController();
    const late = wait ? setTimeout(() => signal.abort(), patience) : undefined;
    navigator.locks
      .request(lockName(name), wait ? { signal: signal.signal } : { ifAvailable: true }, (lock) => {
        clearTimeout(late);
        if (!lock) throw inUse();
        return new Promise((/** @type {(value?: any) => void} */ done) => {
          unlock = done;
          resolve(undefined);
        });
      })
      .catch((error) => reject(error?.name === "AbortError" ? inUse() : error));
  });

/** @type {Record<string, (message: any) => Promise<any>>} */
const kinds = {
  async start(message) {
    directory = message.directory;
    if (navigator.locks) await navigator.locks.request(sweepLock, { mode: "shared" }, () => claim(directory, message.wait));
    const top = await (await navigator.storage.getDirectory()).getDirectoryHandle(root, { create: true });
    home = await top.getDirectoryHandle(directory, { create: true });
    await note(); // and so find out whether writing works at all
  },

  async put({ path, at, length, buffer }) {
    if (at === 0 && length === 0) {
      await forget(path);
      const [delivery, name] = path.split("/");
      await flushBeside(delivery); // something else takes its place
      const folder = await getFolder(delivery, false).catch(() => undefined);
      if (folder) await removeEntry(folder, name);
      return;
    }
    if (!files.has(path)) keep(path, await find(path, true));
    const stored = get(path);
    const handle = await access(stored);
    stored.unflushed = true;
    await writeAll(handle, new Uint8Array(buffer, 0, length), at);
    await handle.truncate(at + length);
    await noteQuietly();
  },

  async get({ path }) {
    if (!files.has(path)) keep(path, await find(path, false));
    const handle = await access(get(path));
    const data = new Uint8Array(await handle.getSize());
    return data.subarray(0, await handle.read(data, { at: 0 }));
  },

  async create({ id, path, size }) {
    await noteQuietly();
    const stored = await find(path, true);
    const handle = await access(stored);
    try {
      await handle.truncate(0);
      await handle.truncate(size); // takes the room, or fails right here
    } catch (error) {
      await handle.truncate(0);
      await shut(stored);
      throw error;
    }
    keep(id, stored);
  },

  async open({ id, path }) {
    const stored = await find(path, false);
    const size = await (await access(stored)).getSize();
    keep(id, stored);
    return size;
  },

  async write({ id, at, length, buffer }) {
    const stored = get(id);
    if (stored.committed) throw refuse("Error", "the file is committed");
    await writeAll(await access(stored), new Uint8Array(buffer, 0, length), at);
    await noteQuietly();
  },

  async read({ id, at, length, buffer }) {
    const stored = get(id);
    const handle = await access(stored);
    const n = await handle.read(new Uint8Array(buffer, 0, length), { at });
    if (stored.committed) await shut(stored);
    return n;
  },

  async commit({ id }) {
    const stored = get(id);
    if (stored.committed) return;
    await (await access(stored)).flush();
    await flushBeside(stored.path.split("/")[0]);
    await shut(stored);
    stored.committed = true;
  },

  async close({ id }) {
    await forget(id);
  },

  async file({ id }) {
    const stored = get(id);
    if (!stored.committed) throw refuse("Error", "the file is not committed");
    return stored.file.getFile();
  },

  async remove({ delivery }) {
    for (const [id, stored] of files) {
      if (stored.path.startsWith(`${delivery}/`)) await forget(id);
    }
    deliveries.delete(delivery);
    await removeEntry(home, delivery);
  },

  async list() {
    const lines = [];
    for await (const [delivery, folder] of entries(home)) {
      if (folder.kind !== "directory") continue;
      for await (const [name, file] of entries(folder)) {
        const path = `${delivery}/${name}`;
        const stored = paths.get(path);
        const size = stored?.access ? await stored.access.getSize() : (await file.getFile()).size;
        lines.push(`${path} ${size}\n`);
      }
    }
    return lines.join("");
  },

  async sweep({ ms, unfinished }) {
    return navigator.locks ? navigator.locks.request(sweepLock, () => sweep(ms, unfinished)) : sweep(ms, unfinished);
  },

  async end() {
    for (const id of [...files.keys()]) await forget(id);
    unlock();
  },
};

/** @param {FileSystemDirectoryHandle} folder @returns {AsyncIterable<[string, any]>} */
const entries = (folder) => /** @type {any} */ (folder).entries();

/** @param {FileSystemDirectoryHandle} folder @param {string} name */
async function removeEntry(folder, name) {
  try {
    await folder.removeEntry(name, { recursive: true });
  } catch (error) {
    if (/** @type {any} */ (error).name !== "NotFoundError") throw error;
  }
}

/** Deletes the deliveries in a directory that nobody needs, and tells whether others are left. @param {FileSystemDirectoryHandle} folder */
async function sweepDeliveries(folder) {
  const needless = [];
  let needed = false;
  for await (const [name, delivery] of entries(folder)) {
    if (delivery.kind !== "directory") continue;
    try {
      await delivery.getFileHandle(journalName);
      needed = true;
    } catch {
      needless.push(name);
    }
  }
  for (const name of needless) await removeEntry(folder, name);
  return needed;
}

/**
 * Deletes what lies in directories that nobody holds and nobody has used for so long.
 * @param {number} ms @param {number} unfinished how long for deliveries with a journal, in ms
 */
async function sweep(ms, unfinished) {
  const top = await (await navigator.storage.getDirectory()).getDirectoryHandle(root, { create: true });
  const held = new Set((await navigator.locks?.query())?.held?.map(({ name }) => name));
  let removed = 0;
  for await (const [name, folder] of entries(top)) {
    if (name === directory || held.has(lockName(name))) continue;
    let used = navigator.locks ? 0 : Date.now(); // without locks, one that has no note yet may be another tab's
    try {
      used = Number(await (await (await folder.getFileHandle(noteName)).getFile()).text()) || used;
    } catch (error) {
      if (/** @type {any} */ (error).name !== "NotFoundError") continue; // it is being written: in use
    }
    const unused = Math.abs(Date.now() - used);
    if (unused < ms) continue;
    try {
      if (unused < unfinished && (await sweepDeliveries(folder))) continue;
      await removeEntry(top, name);
      removed++;
    } catch {
      // In use by a browser without locks: another time.
    }
  }
  return removed;
}

/** @type {Promise<void>} */
let queue = Promise.resolve();
self.onmessage = ({ data }) => {
  queue = queue.then(async () => {
    const transfer = data.buffer ? [data.buffer] : [];
    try {
      const value = await kinds[data.kind](data);
      self.postMessage({ seq: data.seq, value, buffer: data.buffer }, transfer);
    } catch (error) {
      const { name, message } = /** @type {any} */ (error);
      self.postMessage({ seq: data.seq, error: { name: String(name), message: String(message) }, buffer: data.buffer }, transfer);
    }
  });
};
