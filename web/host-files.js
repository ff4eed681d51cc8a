// @ts-check
// The host's files: what a person chose, read into Go's memory, and storage for what is received: the origin private file system, written by a
// worker (storage-worker.js), or memory where that is missing, or a folder of the person's (direct.js). Go's half: internal/bridge/bytes/source_js.go and storage_js.go.

import { free } from "./host.js";

/** The statuses of internal/bridge/bytes/error_js.go. Each but ok comes with the handle of a text. */
const ok = 0;
const failed = -1;
const statuses = new Map([
  ["NotFoundError", -2],
  ["NotReadableError", -3],
  ["QuotaExceededError", -4],
  ["NoModificationAllowedError", -5],
  ["InvalidStateError", -6],
]);

/** What the transferable buffers of one storage may hold while none is in use. */
const poolBytes = 8 << 20;
const smallestBuffer = 64 << 10;
/** How much of a file is read at one opening. */
const segmentBytes = 16 << 20;
/** Whole files of at most so many bytes are read together. */
const smallFile = 256 << 10;
/** How many streams are kept, each with up to a few MiB: the shared read, and recipients that lag behind it. */
const maxStreams = 8;
/** How long the worker may take to open, in ms: another tab may be deleting leftovers, or be frozen while it does. */
const startTimeout = 15_000;
/** The unit in which memory storage grows. */
const blockBytes = 1 << 20;

/**
 * Where stored files are. Ids are chosen by Go; files lie under "delivery/name".
 * @typedef {object} Backend
 * @property {string} refusal why the files are in memory only; "" when they are on disk
 * @property {(id: number, path: string, size: number) => Promise<unknown>} create
 * @property {(id: number, path: string) => Promise<number>} open the size
 * @property {(id: number, at: number, ptr: number, length: number) => Promise<unknown>} write
 * @property {(id: number, at: number, ptr: number, length: number) => Promise<number>} read the number of bytes, less than length at the end
 * @property {(id: number) => Promise<unknown>} commit
 * @property {(id: number) => Promise<unknown>} close
 * @property {(id: number) => Promise<Blob>} file of a committed one
 * @property {(delivery: string) => Promise<unknown>} remove
 * @property {() => Promise<string>} list lines of "delivery/name size"
 * @property {(path: string, at: number, ptr: number, length: number) => Promise<unknown>} put
 * @property {(path: string) => Promise<Uint8Array>} get
 * @property {() => Promise<number>} free -1: unknown
 * @property {(ms: number, unfinished: number) => Promise<number>} sweep
 * @property {() => Promise<unknown>} end
 */

/**
 * @param {import("./host.js").HostContext} host
 * @param {{ workerURL?: string }} [options] where storage-worker.js is, if not beside this module; of the page's origin
 */
export default function filesPart(host, { workerURL } = {}) {
  const encoder = new TextEncoder();
  const reader = createReader(host);
  const attachText = (/** @type {unknown} */ text) => host.attach(encoder.encode(String(text)));

  /** @param {number} op @param {() => Promise<unknown>} run */
  const finish = (op, run) => {
    // Also what run throws at once, and a handle without an object, complete the operation.
    new Promise((resolve) => resolve(run())).then(
      (value) => host.complete(op, ok, typeof value === "number" ? value : 0),
      (error) => host.complete(op, statuses.get(error?.name) ?? failed, attachText(error)),
    );
  };
  /** @param {number} handle @returns {Backend} */
  const storage = (handle) => host.object(handle);

  return {
    // Texts that Go fetches: errors and lists.
    /** @param {number} handle */
    text_length: (handle) => host.object(handle).length,
    /** @param {number} handle @param {number} ptr */
    text_copy(handle, ptr) {
      const text = host.object(handle);
      host.bytes(ptr, text.length).set(text);
    },

    /** @param {number} handle */
    file_size: (handle) => host.object(handle).size,
    /** @param {number} op @param {number} handle @param {number} at @param {number} ptr @param {number} length */
    file_read(op, handle, at, ptr, length) {
      finish(op, () => reader.read(host.object(handle), at, ptr, length));
    },

    /** To be called before the handle is released. @param {number} handle */
    file_end: (handle) => reader.end(host.object(handle)),

    /** Completes with a handle. @param {number} op @param {number} name @param {number} length @param {number} memoryLimit @param {number} wait 1: for another to let go of it */
    storage_open(op, name, length, memoryLimit, wait) {
      const directory = host.text(name, length);
      finish(op, async () => {
        try {
          return host.attach(await openDisk(host, reader, directory, wait === 1, workerURL ?? new URL("./storage-worker.js", import.meta.url).href));
        } catch (error) {
          if (/** @type {any} */ (error)?.name === "NoModificationAllowedError") throw error; // it is there, and another's
          return host.attach(openMemory(host, reader, memoryLimit, String(error)));
        }
      });
    },
    /** @param {number} handle of a DirectFolder */
    storage_direct: (handle) => host.attach(openDirect(host, host.object(handle))),
    /** @param {number} handle */
    storage_refusal: (handle) => (storage(handle).refusal === "" ? 0 : attachText(storage(handle).refusal)),
    /** @param {number} op @param {number} handle @param {number} id @param {number} path @param {number} length @param {number} size */
    storage_create(op, handle, id, path, length, size) {
      const text = host.text(path, length);
      finish(op, () => storage(handle).create(id, text, size));
    },
    /** @param {number} op @param {number} handle @param {number} id @param {number} path @param {number} length */
    storage_reopen(op, handle, id, path, length) {
      const text = host.text(path, length);
      finish(op, () => storage(handle).open(id, text));
    },
    /** @param {number} op @param {number} handle @param {number} id @param {number} at @param {number} ptr @param {number} length */
    storage_write(op, handle, id, at, ptr, length) {
      finish(op, () => storage(handle).write(id, at, ptr, length));
    },
    /** @param {number} op @param {number} handle @param {number} id @param {number} at @param {number} ptr @param {number} length */
    storage_read(op, handle, id, at, ptr, length) {
      finish(op, () => storage(handle).read(id, at, ptr, length));
    },
    /** @param {number} op @param {number} handle @param {number} id */
    storage_commit(op, handle, id) {
      finish(op, () => storage(handle).commit(id));
    },
    /** @param {number} op @param {number} handle @param {number} id */
    storage_close(op, handle, id) {
      finish(op, () => storage(handle).close(id));
    },
    /** Completes with the handle of a File. @param {number} op @param {number} handle @param {number} id */
    storage_file(op, handle, id) {
      finish(op, async () => host.attach(await storage(handle).file(id)));
    },
    /** @param {number} op @param {number} handle @param {number} delivery @param {number} length */
    storage_remove(op, handle, delivery, length) {
      const text = host.text(delivery, length);
      finish(op, () => storage(handle).remove(text));
    },
    /** Completes with the handle of a text. @param {number} op @param {number} handle */
    storage_list(op, handle) {
      finish(op, async () => attachText(await storage(handle).list()));
    },
    /** @param {number} op @param {number} handle */
    storage_free(op, handle) {
      finish(op, () => storage(handle).free());
    },
    /** @param {number} op @param {number} handle @param {number} path @param {number} pathLength @param {number} at @param {number} ptr @param {number} length */
    storage_put(op, handle, path, pathLength, at, ptr, length) {
      const text = host.text(path, pathLength);
      finish(op, () => storage(handle).put(text, at, ptr, length));
    },
    /** Completes with the handle of the bytes. @param {number} op @param {number} handle @param {number} path @param {number} length */
    storage_get(op, handle, path, length) {
      const text = host.text(path, length);
      finish(op, async () => host.attach(await storage(handle).get(text)));
    },
    /** @param {number} op @param {number} handle @param {number} ms @param {number} unfinished */
    storage_sweep(op, handle, ms, unfinished) {
      finish(op, () => storage(handle).sweep(ms, unfinished));
    },
    /** @param {number} op @param {number} handle */
    storage_end(op, handle) {
      finish(op, () => storage(handle).end());
    },
  };
}

/**
 * One sequential reading of a Blob.
 * @typedef {object} Stream
 * @property {Blob} blob
 * @property {number} next where the read after those under way begins
 * @property {number} taken where the next segment begins
 * @property {number} left what is still to come of this segment
 * @property {any} reader of this segment
 * @property {Uint8Array<ArrayBuffer>} rest what has come and was not asked for yet
 * @property {Promise<unknown>} last the last read under way
 */

/**
 * Reads Blobs into Go's memory. A slice for each read costs five times the processor time of a stream (BenchmarkSource), so reads that follow one
 * another come from one. Browsers look whether a file has changed when they open it: so a stream ends after a segment, and the end of the
 * file is not reached without another look.
 * @param {import("./host.js").HostContext} host
 */
function createReader(host) {
  /** @type {Stream[]} the one used last at the end */
  let streams = [];
  /** @type {WeakMap<Blob, number>} where the last read that continued nothing ended */
  const ends = new WeakMap();

  /** @param {Stream} stream */
  const drop = (stream) => {
    streams = streams.filter((other) => other !== stream);
    stream.last = stream.last.then(() => stream.reader?.cancel()).catch(() => undefined);
  };
  /** @param {Blob} blob @param {number} at @param {number} ptr @param {number} length */
  const slice = async (blob, at, ptr, length) => {
    const data = await blob.slice(at, at + length).arrayBuffer();
    return host.move(ptr, data);
  };

  /** @typedef {{ blob: Blob, ptr: number, resolve: (n: number) => void, reject: (error: unknown) => void }} Small */
  /** @type {Small[]} */
  let small = [];
  let gathering = false;
  /** What stands between two files, so that one which has become longer or shorter does not lend its bytes to its neighbour. */
  const mark = crypto.getRandomValues(new Uint8Array(16));
  /** @param {Small[]} batch @returns {Promise<boolean>} whether it could be read in one */
  const together = async (batch) => {
    let data;
    try {
      data = new Uint8Array(await new Blob(batch.flatMap(({ blob }) => [blob, mark])).arrayBuffer());
    } catch {
      return false; // which one it was, each says for itself
    }
    let at = 0;
    for (const { blob } of batch) {
      at += blob.size;
      for (const byte of mark) if (data[at++] !== byte) return false;
    }
    at = 0;
    for (const { blob, ptr, resolve } of batch) {
      host.bytes(ptr, blob.size).set(data.subarray(at, at + blob.size));
      resolve(blob.size);
      at += blob.size + mark.length;
    }
    free(data.buffer);
    return true;
  };
  /**
   * Reads a whole small file, together with all that are asked for while others are being read: a reading costs a call to another process and a
   * pipe from there, which is more than the bytes of a small file cost.
   * @param {Blob} blob @param {number} ptr @returns {Promise<number>}
   */
  const whole = (blob, ptr) =>
    new Promise((resolve, reject) => {
      small.push({ blob, ptr, resolve, reject });
      if (!gathering) gather();
    });
  const gather = async () => {
    gathering = true;
    await undefined; // for what else is asked for in the same turn
    while (small.length > 0) {
      const batch = small;
      small = [];
      if (batch.length === 1 || !(await together(batch)))
        await Promise.all(batch.map(({ blob, ptr, resolve, reject }) => slice(blob, 0, ptr, blob.size).then(resolve, reject)));
    }
    gathering = false;
  };
  /** @param {Stream} stream @param {number} ptr @param {number} length */
  const pull = async (stream, ptr, length) => {
    const { blob } = stream;
    let done = 0;
    while (done < length) {
      if (stream.rest.length === 0) {
        if (stream.left === 0) {
          stream.left = Math.min(segmentBytes, blob.size - stream.taken);
          stream.reader = blob.slice(stream.taken, stream.taken + stream.left).stream().getReader();
        }
        const { value } = await stream.reader.read();
        if (!value) return done; // the file has become shorter
        // Chromium keeps the pipe of a stream that has not been read to its end, up to 2 MiB, until it collects garbage. An error there comes before
        // what was read counts: else the reads that wait would take it for theirs.
        if (value.length === stream.left) await stream.reader.read();
        stream.rest = value;
        stream.taken += value.length;
        stream.left -= value.length;
      }
      const n = Math.min(length - done, stream.rest.length);
      const { buffer } = stream.rest;
      host.bytes(ptr + done, n).set(stream.rest.subarray(0, n));
      stream.rest = stream.rest.subarray(n);
      if (stream.rest.length === 0) free(buffer);
      done += n;
    }
    if (stream.rest.length === 0 && stream.taken === blob.size) await blob.slice(-1).arrayBuffer();
    return done;
  };
  return {
    /** @param {Blob} blob @param {number} at @param {number} ptr @param {number} length @returns {Promise<number>} */
    async read(blob, at, ptr, length) {
      if (length === blob.size && length <= smallFile) return whole(blob, ptr);
      let stream = streams.find((other) => other.blob === blob && other.next === at);
      if (!stream) {
        if ((at !== 0 && at !== ends.get(blob)) || length === blob.size) {
          ends.set(blob, at + length);
          return slice(blob, at, ptr, length);
        }
        stream = { blob, next: at, taken: at, left: 0, reader: undefined, rest: new Uint8Array(0), last: Promise.resolve() };
        if (streams.length === maxStreams) drop(streams[0]);
      }
      const current = stream;
      streams = [...streams.filter((other) => other !== current), current];
      current.next += length;
      const result = current.last.then(() => pull(current, ptr, length));
      current.last = result.catch(() => drop(current));
      if (current.next >= blob.size) drop(current);
      // A stream fails without saying why; a slice says it.
      return result.catch(() => slice(blob, at, ptr, length));
    },
    /** Lets go of what is kept of a Blob. @param {Blob} blob */
    end(blob) {
      for (const stream of streams) if (stream.blob === blob) drop(stream);
    },
  };
}

/** The page's policy may demand that URLs of scripts pass through a named place: this is it. */
const trusted = (() => {
  try {
    return /** @type {any} */ (globalThis).trustedTypes?.createPolicy("tallow-worker", { createScriptURL: (/** @type {string} */ url) => url });
  } catch {
    return undefined; // the name is not allowed here: then a plain URL has to do
  }
})();

/**
 * @param {import("./host.js").HostContext} host @param {ReturnType<typeof createReader>} reader
 * @param {string} directory @param {boolean} wait for another to let go of it @param {string} workerURL
 * @returns {Promise<Backend>}
 */
async function openDisk(host, reader, directory, wait, workerURL) {
  if (typeof navigator.storage?.getDirectory !== "function") throw new Error("no private file system");
  const worker = new Worker(trusted?.createScriptURL(workerURL) ?? workerURL);
  /** @type {Map<number, { resolve: (value: any) => void, reject: (error: any) => void, ptr: number }>} */
  const pending = new Map();
  let last = 0;
  /** @type {Error | undefined} */
  let broken;
  /** @type {ArrayBuffer[]} buffers that the worker has sent back: a fresh one per chunk would cost more than the copy */
  let pool = [];
  let pooled = 0;
  /** @type {Map<number, Promise<Blob>>} of committed files */
  const blobs = new Map();

  /** @param {string} reason */
  const breakDown = (reason) => {
    broken ??= new Error(reason);
    worker.terminate();
    for (const { reject } of pending.values()) reject(broken);
    pending.clear();
  };
  worker.onerror = (event) => {
    event.preventDefault();
    breakDown(`the storage worker failed: ${event.message ?? "it could not be loaded"}`);
  };
  worker.onmessageerror = () => breakDown("the storage worker sent something unreadable");
  worker.onmessage = ({ data: { seq, value, error, buffer } }) => {
    const waiting = pending.get(seq);
    pending.delete(seq);
    if (error) waiting?.reject(Object.assign(new Error(error.message), { name: error.name }));
    else {
      if (waiting?.ptr) host.bytes(waiting.ptr, value).set(new Uint8Array(buffer, 0, value)); // a read, of value bytes
      waiting?.resolve(value);
    }
    if (buffer && pooled + buffer.byteLength <= poolBytes) {
      pool.push(buffer);
      pooled += buffer.byteLength;
    }
  };
  /** @param {string} kind @param {object} [fields] @param {Transferable[]} [transfer] @param {number} [ptr] @returns {Promise<any>} */
  const call = (kind, fields = {}, transfer = [], ptr = 0) =>
    new Promise((resolve, reject) => {
      if (broken) return reject(broken);
      const seq = ++last;
      pending.set(seq, { resolve, reject, ptr });
      worker.postMessage({ seq, kind, ...fields }, transfer);
    });
  /** @param {number} length */
  const take = (length) => {
    const buffer = pool.pop();
    if (buffer) pooled -= buffer.byteLength;
    if (buffer && buffer.byteLength >= length) return buffer;
    return new ArrayBuffer(Math.max(smallestBuffer, 2 ** Math.ceil(Math.log2(length))));
  };

  const late = setTimeout(() => breakDown("the storage worker does not answer"), startTimeout);
  try {
    await call("start", { directory, wait });
  } catch (error) {
    worker.terminate();
    throw error;
  } finally {
    clearTimeout(late);
  }
  /** @param {number} id */
  const file = (id) => {
    let blob = blobs.get(id);
    if (!blob) {
      blobs.set(id, (blob = call("file", { id })));
      blob.catch(() => blobs.delete(id));
    }
    return blob;
  };
  /** @type {Set<number>} */
  const committed = new Set();
  return {
    refusal: "",
    create: (id, path, size) => call("create", { id, path, size }),
    open: (id, path) => call("open", { id, path }),
    write(id, at, ptr, length) {
      const buffer = take(length);
      new Uint8Array(buffer, 0, length).set(host.bytes(ptr, length));
      return call("write", { id, at, length, buffer }, [buffer]);
    },
    async read(id, at, ptr, length) {
      if (committed.has(id)) return reader.read(await file(id), at, ptr, length);
      const buffer = take(length);
      return call("read", { id, at, length, buffer }, [buffer], ptr);
    },
    async commit(id) {
      await call("commit", { id });
      committed.add(id);
    },
    close(id) {
      blobs.get(id)?.then(reader.end, () => undefined);
      blobs.delete(id);
      committed.delete(id);
      return call("close", { id });
    },
    file,
    remove: (delivery) => call("remove", { delivery }),
    list: () => call("list"),
    async free() {
      const { quota, usage } = await navigator.storage.estimate();
      return quota === undefined || usage === undefined ? -1 : Math.max(0, quota - usage);
    },
    put(path, at, ptr, length) {
      const buffer = take(Math.max(1, length));
      new Uint8Array(buffer, 0, length).set(host.bytes(ptr, length));
      return call("put", { path, at, length, buffer }, [buffer]);
    },
    get: (path) => call("get", { path }),
    sweep: (ms, unfinished) => call("sweep", { ms, unfinished }),
    async end() {
      await call("end").finally(() => breakDown("the storage is closed"));
    },
  };
}

/**
 * What is received in one delivery, in a folder that the person has picked. It is read by the page only.
 * @param {import("./host.js").HostContext} host @param {import("./direct.js").DirectFolder} folder
 * @returns {Pick<Backend, "create" | "write" | "commit" | "close" | "remove" | "end">}
 */
const openDirect = (host, folder) => ({
  create: async () => {},
  async write(_id, at, ptr, length) {
    const data = host.bytes(ptr, length).slice(); // Go's memory may grow meanwhile, and move
    await folder.write(at, data);
    free(data.buffer);
  },
  commit: () => folder.commit(),
  close: async () => {},
  remove: () => folder.remove(),
  end: async () => {},
});

/**
 * @param {import("./host.js").HostContext} host @param {ReturnType<typeof createReader>} reader
 * @param {number} limit bytes @param {string} refusal
 * @returns {Backend}
 */
function openMemory(host, reader, limit, refusal) {
  /** @typedef {{ path: string, size: number, blocks: Uint8Array[], blob?: File }} Stored */
  /** @type {Map<string, Stored>} */
  const byPath = new Map();
  /** @type {Map<number, Stored>} */
  const byId = new Map();
  let used = 0;
  /** @param {string} name @param {string} message */
  const refuse = (name, message) => Object.assign(new Error(message), { name });
  /** @param {number} id */
  const get = (id) => {
    const file = byId.get(id);
    if (!file) throw refuse("InvalidStateError", "the file is closed");
    return file;
  };
  /** @param {Stored} file */
  const drop = (file) => {
    byPath.delete(file.path);
    used -= file.size;
    for (const [id, other] of byId) if (other === file) byId.delete(id);
  };
  /** @param {string} path */
  const claim = (path) => {
    const file = byPath.get(path);
    for (const other of byId.values()) if (other === file) throw refuse("Error", "the file is in use");
    return file;
  };
  return {
    refusal,
    async create(id, path, size) {
      const old = claim(path);
      if (used - (old?.size ?? 0) + size > limit) {
        throw refuse("QuotaExceededError", `this browser keeps files in memory only (${refusal}), at most ${limit >> 20} MiB`);
      }
      if (old) drop(old);
      const file = { path, size, blocks: [] };
      used += size;
      byPath.set(path, file);
      byId.set(id, file);
    },
    async open(id, path) {
      const file = claim(path);
      if (!file) throw refuse("NotFoundError", "no such file");
      byId.set(id, file);
      return file.size;
    },
    async write(id, at, ptr, length) {
      const file = get(id);
      if (file.blob) throw refuse("Error", "the file is committed");
      const data = host.bytes(ptr, length);
      for (let done = 0; done < length; ) {
        const [block, offset] = [Math.floor((at + done) / blockBytes), (at + done) % blockBytes];
        const n = Math.min(length - done, blockBytes - offset);
        const size = Math.min(blockBytes, file.size - block * blockBytes);
        (file.blocks[block] ??= new Uint8Array(size)).set(data.subarray(done, done + n), offset);
        done += n;
      }
    },
    async read(id, at, ptr, length) {
      const file = get(id);
      const n = Math.max(0, Math.min(length, file.size - at));
      if (file.blob) return reader.read(file.blob, at, ptr, n);
      const target = host.bytes(ptr, n);
      for (let done = 0; done < n; ) {
        const [block, offset] = [Math.floor((at + done) / blockBytes), (at + done) % blockBytes];
        const part = Math.min(n - done, blockBytes - offset);
        const from = file.blocks[block];
        if (from) target.set(from.subarray(offset, offset + part), done);
        else target.fill(0, done, done + part);
        done += part;
      }
      return n;
    },
    async commit(id) {
      const file = get(id);
      if (file.blob) return;
      const blocks = Array.from({ length: Math.ceil(file.size / blockBytes) }, (_, i) => {
        return file.blocks[i] ?? new Uint8Array(Math.min(blockBytes, file.size - i * blockBytes));
      });
      // The browser may move it to a disk of its own; here the memory is free again, though it goes on counting.
      file.blob = new File(/** @type {BlobPart[]} */ (blocks), file.path.slice(file.path.indexOf("/") + 1));
      file.blocks = [];
    },
    async close(id) {
      const blob = byId.get(id)?.blob;
      if (blob) reader.end(blob);
      byId.delete(id);
    },
    async file(id) {
      const { blob } = get(id);
      if (!blob) throw refuse("Error", "the file is not committed");
      return blob;
    },
    async put() {
      throw refuse("Error", "memory does not outlive the page");
    },
    async get() {
      throw refuse("NotFoundError", "no such file");
    },
    async remove(delivery) {
      for (const file of [...byPath.values()]) if (file.path.startsWith(`${delivery}/`)) drop(file);
    },
    list: async () => [...byPath.values()].map(({ path, size }) => `${path} ${size}\n`).join(""),
    free: async () => limit - used,
    sweep: async () => 0,
    async end() {
      byPath.clear();
      byId.clear();
    },
  };
}
