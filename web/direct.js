// @ts-check
// Writes what is received straight into a folder that the person has picked, while it arrives: for what the private file system has no room for. For Go it is one
// file, in which all lie one after another (internal/core/room/store.go); here each is a file of its own, which the browser writes beside its place until it is whole.

import { TallowError } from "./errors.js";
import { atATime, placesIn, someAtATime } from "./folder.js";

/**
 * @typedef {object} Part
 * @property {number} index in the transfer
 * @property {string} path safe
 * @property {boolean} directory
 * @property {number} at where it begins, of all
 * @property {number} size
 * @property {number} left what is still to be written
 * @property {number} writing how many writes to it are under way
 * @property {Awaited<ReturnType<ReturnType<typeof placesIn>["makeFile"]>> | undefined} place once it is made
 * @property {Promise<FileSystemWritableFileStream> | undefined} out once it is begun, until it is closed
 * @property {boolean} given up, as its rest does not come
 */

export class DirectFolder {
  /** @type {Part[]} in the order of the transfer */
  #parts;
  #byIndex;
  #places;
  /** What is begun, and not closed yet. @type {Set<Part>} */
  #begun = new Set();
  /** Those that wait to begin. @type {(() => void)[]} */
  #waiting = [];
  /** @type {Set<Promise<unknown>>} */
  #running = new Set();
  /** Why nothing is written any more. @type {unknown} */
  #failed;
  #kept = false;

  /**
   * @param {FileSystemDirectoryHandle} root
   * @param {{ index: number, path: string, directory: boolean, size: number }[]} files those that are wanted, in the order of the transfer, with safe paths
   */
  constructor(root, files) {
    let at = 0;
    this.#parts = files.map((file) => ({ ...file, at: (at += file.size) - file.size, left: file.size, writing: 0, place: undefined, out: undefined, given: false }));
    this.#byIndex = new Map(this.#parts.map((part) => [part.index, part]));
    this.#places = placesIn(root, files.map(({ path }) => path));
  }

  /** Writes at an offset of all. Nothing comes twice. @param {number} at @param {Uint8Array<ArrayBuffer>} data */
  write(at, data) {
    // The last one that begins there or before: those before it that begin there are empty.
    let [i, beyond] = [0, this.#parts.length];
    while (beyond - i > 1) {
      const middle = (i + beyond) >>> 1;
      if (this.#parts[middle].at <= at) i = middle;
      else beyond = middle;
    }
    /** @type {{ part: Part, position: number, data: Uint8Array<ArrayBuffer> }[]} */
    const pieces = [];
    for (let done = 0; done < data.length; i++) {
      const part = this.#parts[i];
      const position = at + done - part.at;
      const n = Math.min(data.length - done, part.size - position);
      if (n > 0) pieces.push({ part, position, data: data.subarray(done, done + n) });
      done += n;
    }
    return this.#run(someAtATime(pieces, ({ part, position, data }) => this.#put(part, position, data)));
  }

  /** @param {Part} part @param {number} position @param {Uint8Array<ArrayBuffer>} data */
  async #put(part, position, data) {
    part.writing++;
    try {
      if (part.given) throw new Error("too many files are begun");
      part.out ??= this.#begin(part);
      const out = await part.out;
      if (this.#failed) throw this.#failed;
      await out.write({ type: "write", position, data });
      part.left -= data.length;
      // A browser may look at all of a large file once more; what comes meanwhile does not wait for that, commit() does.
      if (part.left === 0) this.#run(this.#close(part, out)).catch(() => {});
    } catch (error) {
      throw this.#fail(error);
    } finally {
      part.writing--;
      this.#wake();
    }
  }

  /** @param {Part} part */
  async #begin(part) {
    while (this.#begun.size >= atATime && !this.#failed) {
      // Senders send in order, so that few files wait for the rest of them, but for those that the sender could not read to the end. Whoever does otherwise is
      // not waited for.
      const begun = [...this.#begun];
      if (begun.every(({ writing, left }) => writing === 0 && left > 0)) {
        const [eldest] = begun;
        eldest.given = true;
        this.#begun.delete(eldest);
        await this.#undo(eldest);
      } else await new Promise((resolve) => this.#waiting.push(() => resolve(undefined)));
    }
    if (this.#failed) throw this.#failed;
    this.#begun.add(part);
    part.place = await this.#places.makeFile(part.path);
    return part.place.handle.createWritable();
  }

  /** @param {Part} part @param {FileSystemWritableFileStream} out */
  async #close(part, out) {
    try {
      await out.close();
      part.out = undefined;
      this.#begun.delete(part);
    } catch (error) {
      this.#fail(error);
    }
    this.#wake();
  }

  #wake() {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  /** Ends it all: of a file to which something could not be written the browser has nothing any more. @param {unknown} error */
  #fail(error) {
    this.#failed ??= error;
    this.#wake();
    return this.#failed;
  }

  /** @template T @param {Promise<T>} work @returns {Promise<T>} */
  async #run(work) {
    this.#running.add(work);
    try {
      return await work;
    } finally {
      this.#running.delete(work);
    }
  }

  async #rest() {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
  }

  /** Resolves once all files are in the folder, those without contents too, but for those that have not come whole. */
  async commit() {
    await this.#rest();
    await this.#run(
      someAtATime(this.#parts, async (part) => {
        if (this.#failed) throw this.#failed;
        if (part.left > 0) await this.#undo(part);
        else if (part.directory) await this.#places.makeFolder(part.path);
        else part.place ??= await this.#places.makeFile(part.path);
      }),
    );
  }

  /** What is in the folder of these, one after another. @param {number[]} indices in the transfer */
  async read(indices) {
    const get = async (/** @type {number} */ index) => {
      const part = this.#byIndex.get(index);
      if (!part?.place) return new Blob();
      const file = await part.place.handle.getFile();
      if (file.size !== part.size) throw new Error("it is not what has arrived");
      return file;
    };
    try {
      return new Blob(await Promise.all(indices.map(get)));
    } catch (error) {
      throw new TallowError("storage-failed", error); // the person has moved it, say, or goes on writing it
    }
  }

  /** Leaves to the person what has arrived: remove() removes nothing any more. @param {number[]} arrived indices in the transfer */
  async keep(arrived) {
    this.#kept = true;
    const indices = new Set(arrived);
    await someAtATime(this.#parts, async (part) => {
      if (!indices.has(part.index)) await this.#undo(part);
    });
    const folders = new Set(this.#parts.flatMap(({ index, directory, path }) => (directory && indices.has(index) ? path : [])));
    await this.#places.end((path) => folders.has(path));
  }

  /** Removes all that was made. */
  async remove() {
    if (this.#kept) return;
    this.#fail(new DOMException("the files are removed", "InvalidStateError"));
    await this.#rest();
    await someAtATime(this.#parts, (part) => this.#undo(part));
    await this.#places.end(() => false);
  }

  /** @param {Part} part */
  async #undo(part) {
    await part.out?.then((out) => out.abort()).catch(() => {}); // one that is closed stays as it is
    await part.place?.remove();
    part.out = part.place = undefined;
  }
}
