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
 * @property {boolean} doubted it may not be what it was: to be looked up again
 * @property {boolean} committed
 */

/** undefined until there was room to make it @type {FileSystemDirectoryHandle | undefined} */
let home;
let directory = "";
let noted = 0;
/** What the note said before: this clock may be behind. */
let before = 0;
/** @type {() => void} */
let unlock = () => {};
/** Of the files: what this page has written to and not flushed yet, by path. @type {Set<string>} */
const written = new Set();
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

/** What browsers throw where there is no room: of the quota, and of the disk. */
const surelyFull = new Set(["QuotaExceededError", "NS_ERROR_FILE_NO_DEVICE_SPACE"]);
/**
 * What they throw then as well: on a full disk Firefox says UnknownError of an entry to be made or opened, and Safari says InvalidStateError of
 * bytes. They say so of other failures of the disk, too, which as often pass.
 */
const perhapsFull = new Set(["UnknownError", "InvalidStateError"]);

/** Runs what takes room of the disk: having found none is a QuotaExceededError, guessed or not. @template T @param {() => T | Promise<T>} fn @returns {Promise<T>} */
async function taking(fn) {
  try {
    return await fn();
  } catch (error) {
    const { name, message } = /** @type {any} */ (error);
    if (!surelyFull.has(name) && !perhapsFull.has(name)) throw error;
    throw Object.assign(refuse("QuotaExceededError", `${name}: ${message}`), { guessed: perhapsFull.has(name) });
  }
}

/** What looks for something finds nothing there; all else is thrown on. @param {any} error @returns {undefined} */
function unlessMissing(error) {
  if (error.name !== "NotFoundError") throw error;
}

/** @param {unknown} error */
const isFull = (error) => /** @type {any} */ (error)?.name === "QuotaExceededError";

/**
 * An entry of a folder, which is made if need be. What is there is found on a full disk, too.
 * @template T @param {(options?: { create: boolean }) => Promise<T>} find
 */
async function make(find) {
  return (await find().catch(unlessMissing)) ?? taking(() => find({ create: true }));
}

const getTop = async () => {
  const all = await navigator.storage.getDirectory();
  return make((options) => all.getDirectoryHandle(root, options));
};

/** The directory that is ours, made if need be. */
async function getHome() {
  if (!home) {
    const top = await getTop();
    home = await make((options) => top.getDirectoryHandle(directory, options));
  }
  return home;
}

/** The directory that is ours, if it is there. */
async function findHome() {
  try {
    return home ?? (await (await (await navigator.storage.getDirectory()).getDirectoryHandle(root)).getDirectoryHandle(directory));
  } catch (error) {
    return unlessMissing(error);
  }
}

/** Whether something has been written here before. */
async function hasWorked() {
  for await (const [, folder] of entries(await getTop())) {
    try {
      if ((await (await folder.getFileHandle(noteName)).getFile()).size > 0) return true;
    } catch {
      // There is no note, or it is being written.
    }
  }
  return false;
}

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
    if (stored.doubted) {
      const [delivery, name] = stored.path.split("/");
      stored.file = await taking(async () => (await getFolder(delivery, false)).getFileHandle(name));
      stored.doubted = false;
    }
    stored.access = await taking(() => /** @type {any} */ (stored.file).createSyncAccessHandle());
  }
  open.add(stored);
  return stored.access;
}

/**
 * Runs what takes room for a file. A browser that has lost its handles, or was made to forget them, says the same as one whose disk is full: what comes
 * after a guess has all of them anew, or finds that the file is gone. After any other failure that file is opened anew.
 * @template T @param {number | string} id @param {() => Promise<T>} fn @returns {Promise<T>}
 */
async function writing(id, fn) {
  try {
    return await fn();
  } catch (error) {
    const { guessed } = /** @type {any} */ (error);
    if (guessed) {
      home = undefined;
      deliveries.clear();
    }
    if (guessed || !isFull(error)) {
      const stored = files.get(id);
      if (stored) {
        stored.doubted = true;
        await shut(stored).catch(() => undefined);
      }
    }
    throw error;
  }
}

/** To read: Firefox opens nothing on a full disk, and undefined is to be read as a Blob. @param {Stored} stored */
async function accessUnlessFull(stored) {
  try {
    return await access(stored);
  } catch (error) {
    if (!isFull(error)) throw error;
    return undefined;
  }
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
  if (!folder) {
    const all = await (create ? getHome() : findHome());
    if (!all) throw refuse("NotFoundError", "there is no such delivery");
    const find = (/** @type {{ create: boolean }=} */ options) => all.getDirectoryHandle(delivery, options);
    deliveries.set(delivery, (folder = await (create ? make(find) : find())));
  }
  return folder;
}

/** @param {string} path @param {boolean} create */
async function find(path, create) {
  if (paths.has(path)) throw refuse("Error", "the file is in use");
  const [delivery, name] = path.split("/");
  const folder = await getFolder(delivery, create);
  const get = (/** @type {{ create: boolean }=} */ options) => folder.getFileHandle(name, options);
  const file = await (create ? make(get) : get());
  return { path, file, access: undefined, doubted: false, committed: false, unflushed: false };
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
  const now = Date.now();
  if (Math.abs(now - noted) < noteEvery) return;
  const folder = await getHome();
  const file = await make((options) => folder.getFileHandle(noteName, options));
  before ||= parseNote(await (await file.getFile()).text());
  const handle = await taking(() => /** @type {any} */ (file).createSyncAccessHandle());
  try {
    const text = new TextEncoder().encode(String(Math.max(now, before)));
    await writeAll(handle, text, 0);
    await handle.truncate(text.length);
    await handle.flush();
  } finally {
    await handle.close();
  }
  noted = now;
}

/** The time that a note tells; 0: none, as a full disk may have taken less than all of it. @param {string} text */
const parseNote = (text) => (/^\d{13}$/.test(text) ? Number(text) : 0);

/** A note that fails costs nobody a file: the next one may succeed. */
const noteQuietly = () => note().catch(() => undefined);

/** Makes what put() has written beside the files of a delivery durable. @param {string} delivery */
async function flushBeside(delivery) {
  for (const stored of files.values()) {
    if (!stored.unflushed || !stored.path.startsWith(`${delivery}/`)) continue;
    stored.unflushed = false; // of what is put while this waits
    try {
      await writing(stored.path, async () => flush(await access(stored)));
    } catch (error) {
      stored.unflushed = true;
      throw error;
    }
  }
}

/**
 * What a flush could not write the system may have dropped, and says yes when it is asked again: whatever the reason, that is not waited for.
 * @param {any} handle
 */
async function flush(handle) {
  try {
    await handle.flush();
  } catch (error) {
    throw refuse("Error", `flush: ${error}`);
  }
}

/** @param {any} handle @param {Uint8Array} data @param {number} at */
async function writeAll(handle, data, at) {
  const n = await taking(() => handle.write(data, { at })); // Firefox finds no room without an exception
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
    try {
      await note(); // and so find out whether writing works at all
    } catch (error) {
      // There may be room by the time that something is to be kept. A browser that never lets anything be written must not be taken for full.
      if (!isFull(error) || (/** @type {any} */ (error).guessed && !(await hasWorked()))) throw error;
    }
  },

  async put({ path, at, length, buffer }) {
    if (at === 0 && length === 0) {
      await forget(path);
      const [delivery, name] = path.split("/");
      await flushBeside(delivery); // something else takes its place
      const folder = await getFolder(delivery, false).catch(unlessMissing);
      if (folder) await removeEntry(folder, name);
      return;
    }
    await writing(path, async () => {
      if (!files.has(path)) keep(path, await find(path, true));
      const stored = get(path);
      const handle = await access(stored);
      stored.unflushed = true;
      await writeAll(handle, new Uint8Array(buffer, 0, length), at);
      await taking(() => handle.truncate(at + length));
    });
    await noteQuietly();
  },

  async get({ path }) {
    if (!files.has(path)) keep(path, await find(path, false));
    const handle = await accessUnlessFull(get(path));
    if (!handle) return new Uint8Array(await (await get(path).file.getFile()).arrayBuffer());
    const data = new Uint8Array(await handle.getSize());
    // Firefox says nothing of a disk that fails to read. Half a journal would be taken for all of it.
    const n = await handle.read(data, { at: 0 });
    if (n < data.length) throw refuse("Error", `${n} of ${data.length} bytes were read`);
    return data;
  },

  async create({ id, path, size }) {
    await noteQuietly();
    await writing(id, async () => {
      const stored = await find(path, true);
      const handle = await access(stored);
      try {
        await handle.truncate(0);
        await taking(() => handle.truncate(size)); // takes it of the quota, or fails right here; of the disk, only what is written does
      } catch (error) {
        await shut(stored);
        throw error;
      }
      written.add(path);
      keep(id, stored);
    });
  },

  async open({ id, path }) {
    const stored = await find(path, false);
    try {
      const handle = await accessUnlessFull(stored);
      const size = handle ? await handle.getSize() : (await stored.file.getFile()).size;
      keep(id, stored);
      return size;
    } catch (error) {
      await shut(stored);
      throw error;
    }
  },

  async write({ id, at, length, buffer }) {
    const stored = get(id);
    if (stored.committed) throw refuse("Error", "the file is committed");
    written.add(stored.path);
    await writing(id, async () => writeAll(await access(stored), new Uint8Array(buffer, 0, length), at));
    await noteQuietly();
  },

  async read({ id, at, length, buffer }) {
    const stored = get(id);
    const handle = await accessUnlessFull(stored);
    if (!handle) {
      const data = new Uint8Array(await (await stored.file.getFile()).slice(at, at + length).arrayBuffer());
      new Uint8Array(buffer).set(data);
      return data.length;
    }
    const n = await handle.read(new Uint8Array(buffer, 0, length), { at });
    if (stored.committed) await shut(stored);
    return n;
  },

  async commit({ id }) {
    const stored = get(id);
    if (stored.committed) return;
    // What another page has written, the system has put on the disk by now, or does so without us.
    const handle = await (written.has(stored.path) ? writing(id, () => access(stored)) : accessUnlessFull(stored));
    if (handle) await flush(handle);
    written.delete(stored.path);
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
    for (const path of written) {
      if (path.startsWith(`${delivery}/`)) written.delete(path);
    }
    deliveries.delete(delivery);
    const all = await findHome();
    if (!all) return;
    const folder = await all.getDirectoryHandle(delivery).catch(() => undefined);
    // What is left if the rest fails is swept for it, and no longer looks like something to go on with.
    if (folder) await removeEntry(folder, journalName).catch(() => undefined);
    await removeEntry(all, delivery);
  },

  async list() {
    const lines = [];
    const all = await findHome();
    if (!all) return "";
    for await (const [delivery, folder] of entries(all)) {
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
const removeEntry = (folder, name) => folder.removeEntry(name, { recursive: true }).catch(unlessMissing);

/** When a journal in a directory was last written; 0: there is none. @param {FileSystemDirectoryHandle} folder */
async function lastJournal(folder) {
  let last = 0;
  for await (const [, delivery] of entries(folder)) {
    if (delivery.kind !== "directory") continue;
    const journal = await delivery.getFileHandle(journalName).catch(unlessMissing);
    if (journal) last = Math.max(last, (await journal.getFile()).lastModified);
  }
  return last;
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
    } catch (error) {
      if (/** @type {any} */ (error).name === "NotFoundError") needless.push(name);
      else needed = true;
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
  const top = await getTop();
  const held = new Set((await navigator.locks?.query())?.held?.map(({ name }) => name));
  let removed = 0;
  for await (const [name, folder] of entries(top)) {
    if (name === directory || held.has(lockName(name))) continue;
    let used = navigator.locks ? 0 : Date.now(); // without locks, one that has no note yet may be another tab's
    try {
      const file = await (await folder.getFileHandle(noteName).catch(unlessMissing))?.getFile();
      if (file) used = parseNote(await file.text()) || file.lastModified;
      else used ||= await lastJournal(folder); // a full disk may have had room for that alone
    } catch {
      continue; // it is being written: in use
    }
    const unused = Date.now() - used; // less than none, where the clock is wrong now: nothing is deleted for that
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
