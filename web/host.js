// @ts-check
// The host: moves bytes between the browser's objects and Go's linear memory by (pointer, length), and knows no protocol.
// Go calls the functions in `imports` (WebAssembly imports, module "tallow") with numbers only: handles of objects kept here, pointers
// into its memory, and the number under which it wants to hear of completion. Completions queue here and wake Go once.

/** @typedef {{ status: number, value: number }} Completion */

/** Takes what is posted, and keeps nothing. */
const nowhere = (() => {
  const { port1, port2 } = new MessageChannel();
  port1.close();
  const probe = new ArrayBuffer(1);
  port1.postMessage(null, [probe]);
  if (probe.byteLength === 0) return port1;
  // Chromium does not even look at what is posted to a closed port, and drops what goes to one. Older Safaris keep that for ever.
  const other = new MessageChannel();
  other.port2.close();
  return other.port1;
})();

/**
 * Gives a buffer's memory back at once. Chromium keeps that of one which is dropped, or detached otherwise, until it collects garbage, and is in no
 * hurry to: what is not in the collector's own heap counts little (docs/decisions.md).
 * @param {ArrayBuffer} buffer
 */
export const free = (buffer) => nowhere.postMessage(null, [buffer]);

/**
 * What the parts of the host share.
 * @typedef {object} HostContext
 * @property {(ptr: number, length: number) => Uint8Array<ArrayBuffer>} bytes a view of Go's memory, valid until Go runs again
 * @property {(ptr: number, buffer: ArrayBuffer) => number} move copies a buffer into Go's memory and frees it; returns its length
 * @property {(ptr: number, length: number) => string} text UTF-8 in Go's memory
 * @property {(handle: number) => any} object the object behind a handle, or undefined
 * @property {(object: any) => number} attach keeps an object and returns its handle
 * @property {(target: number, status: number, value?: number) => void} complete reports to Go, which is woken in a microtask
 */

/**
 * @param {{ importObject: any, _inst?: any, exited?: boolean }} go the instance of Go's runtime support (wasm_exec.js), before it runs
 * @param {((host: HostContext) => Record<string, Function>)[]} parts
 */
export function createHost(go, parts) {
  /** @type {Map<number, any>} */
  const objects = new Map();
  let lastHandle = 0;
  /** @type {number[]} */
  let queue = [];
  let head = 0;
  let scheduled = false;
  /** @type {Uint8Array<ArrayBuffer>} */
  let memory = new Uint8Array(0);
  const decoder = new TextDecoder();

  // Growing Go's memory detaches every view of it, so the view is checked at each use.
  const view = () => {
    if (memory.length === 0) memory = new Uint8Array(go._inst.exports.mem.buffer);
    return memory;
  };
  /** @type {HostContext} */
  const context = {
    bytes: (ptr, length) => view().subarray(ptr, ptr + length),
    move(ptr, buffer) {
      const length = buffer.byteLength;
      view().set(new Uint8Array(buffer), ptr);
      free(buffer);
      return length;
    },
    text: (ptr, length) => decoder.decode(view().subarray(ptr, ptr + length)),
    object: (handle) => objects.get(handle),
    attach(object) {
      do lastHandle = (lastHandle % 0x7fffffff) + 1;
      while (objects.has(lastHandle));
      objects.set(lastHandle, object);
      return lastHandle;
    },
    complete(target, status, value = 0) {
      queue.push(target, status, value);
      if (!scheduled) {
        scheduled = true;
        queueMicrotask(flush);
      }
    },
  };

  const host = {
    attach: context.attach,
    /** Takes over an object that Go hands out. @param {number} handle */
    take(handle) {
      const object = objects.get(handle);
      objects.delete(handle);
      return object;
    },
    /** How many objects it keeps: a test holds that none is left behind. */
    get kept() {
      return objects.size;
    },
    /** Set by Go: drains the queue. @type {(() => void) | undefined} */
    wake: undefined,
  };

  function flush() {
    scheduled = false;
    if (head < queue.length && !go.exited) host.wake?.();
  }

  go.importObject.tallow = Object.assign(
    {
      /** @param {number} out a struct { target u32, status i32, value f64 } */
      next(out) {
        if (head === queue.length) {
          queue = [];
          head = 0;
          return 0;
        }
        view();
        const data = new DataView(memory.buffer, out, 16);
        data.setUint32(0, queue[head], true);
        data.setInt32(4, queue[head + 1], true);
        data.setFloat64(8, queue[head + 2], true);
        head += 3;
        return 1;
      },
      /** @param {number} handle */
      release: (handle) => void objects.delete(handle),
    },
    ...parts.map((part) => part(context)),
  );
  return host;
}
