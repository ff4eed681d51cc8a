// @ts-check
// Starts the WebAssembly and connects it with the page: call() goes in and comes back as a promise, events come out. All of it is JSON text;
// bytes pass through the host (host.js), objects under numbers.

import { TallowError } from "./errors.js";
import { createHost, free } from "./host.js";
import channels from "./host-channels.js";
import crypto from "./host-crypto.js";
import deflate from "./host-deflate.js";
import files from "./host-files.js";

/**
 * @typedef {object} Core
 * @property {string} wasmSHA256 of the program that runs, in hexadecimal; "" where WebCrypto is missing
 * @property {(method: string, args?: object) => Promise<any>} call rejects with TallowError
 * @property {(object: object) => number} attach keeps an object for Go, until Go releases it
 * @property {(handle: number) => any} take returns an object that Go hands out, and releases it
 * @property {() => void} stop drops it: no events any more, calls reject
 */

/**
 * @param {{ wasmURL: string, workerURL: string }} urls
 * @param {(event: any) => void} onevent called in order, in a task that is nobody's call
 * @param {() => void} onexit called when the program has crashed
 * @returns {Promise<Core>}
 */
export async function boot({ wasmURL, workerURL }, onevent, onexit) {
  const [{ Go }, { module, sha256 }] = await Promise.all([
    import("./go.js").catch((error) => {
      throw new TallowError("server-unreachable", error);
    }),
    compile(wasmURL),
  ]);
  const go = new Go();
  const host = createHost(go, [channels, crypto, deflate, (context) => files(context, { workerURL })]);
  catchOutput(go);

  /** @type {Map<number, { resolve: (value: any) => void, reject: (error: unknown) => void }>} */
  const pending = new Map();
  let lastCall = 0;
  let stopped = false;
  /** @type {string[]} */
  const queue = [];
  // A message is a task of its own, which timers are too; but those are slowed down in hidden tabs.
  const turn = new MessageChannel();
  let scheduled = false;
  const schedule = () => {
    if (scheduled || stopped) return;
    scheduled = true;
    turn.port2.postMessage(null);
  };
  turn.port1.onmessage = () => {
    scheduled = false;
    while (queue.length > 0 && !stopped) {
      const message = JSON.parse(/** @type {string} */ (queue.shift()));
      if (message.type === "settle") {
        const call = pending.get(message.call);
        pending.delete(message.call);
        if (message.code) call?.reject(new TallowError(message.code, message.cause));
        else call?.resolve(message.value);
        // Whoever awaits it gets to run, and to listen, before the next event is dispatched.
        if (queue.length > 0) schedule();
        return;
      }
      try {
        onevent(message);
      } catch (error) {
        // A listener's own mistake: the browser reports it, the events after it go on.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  };
  const stop = () => {
    stopped = true;
    turn.port1.close();
    for (const call of pending.values()) call.reject(new TallowError("room-closed"));
    pending.clear();
  };

  /** @type {any} what Go adds: enter(call, method, args) */
  const link = {
    host,
    /** @param {string} text */
    emit(text) {
      queue.push(text);
      schedule();
    },
  };
  go.exit = () => {
    // Only a crash ends the program.
    for (const call of pending.values()) call.reject(new TallowError("internal"));
    pending.clear();
    for (const timer of go._scheduledTimeouts.values()) clearTimeout(timer);
    if (!stopped) onexit();
    stop();
  };
  run(go, await WebAssembly.instantiate(module, go.importObject), link);
  if (go.exited) throw new TallowError("internal");

  return {
    wasmSHA256: sha256,
    call(method, args = {}) {
      if (stopped) return Promise.reject(new TallowError("room-closed"));
      return new Promise((resolve, reject) => {
        const call = ++lastCall;
        pending.set(call, { resolve, reject });
        link.enter(call, method, JSON.stringify(args));
      });
    },
    attach: host.attach,
    take: host.take,
    stop,
  };
}

/**
 * The program, and the hash of the very bytes that it was compiled from: what the server says of them proves nothing.
 * @param {string} url
 * @returns {Promise<{ module: WebAssembly.Module, sha256: string }>}
 */
async function compile(url) {
  /** @type {Response} */
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin" });
  } catch (error) {
    throw new TallowError("server-unreachable", error);
  }
  if (!response.ok) throw new TallowError("server-unreachable", `${response.status} for ${url}`);
  /** @type {ArrayBuffer} */
  let bytes;
  try {
    bytes = await response.arrayBuffer();
  } catch (error) {
    throw new TallowError("server-unreachable", error);
  }
  // compileStreaming would need a second copy of the body for the hash, and Chromium keeps what both of them buffer until it collects garbage
  // (docs/decisions.md).
  const work = Promise.all([WebAssembly.compile(bytes), globalThis.crypto?.subtle?.digest("SHA-256", bytes)]);
  free(bytes); // both have made copies
  try {
    const [module, digest] = await work;
    const sha256 = Array.from(new Uint8Array(digest ?? []), (byte) => byte.toString(16).padStart(2, "0")).join("");
    return { module, sha256 };
  } catch (error) {
    throw new TallowError(error instanceof WebAssembly.CompileError ? "unsupported-browser" : "internal", error);
  }
}

/**
 * Runs the program until it waits. What Go's syscall package looks for in the global object, and what the bridge does, is there for
 * that time only.
 * @param {any} go
 * @param {WebAssembly.Instance} instance
 * @param {object} link
 */
function run(go, instance, link) {
  const decoder = new TextDecoder();
  const unused = { O_WRONLY: -1, O_RDWR: -1, O_CREAT: -1, O_TRUNC: -1, O_APPEND: -1, O_EXCL: -1, O_DIRECTORY: -1 };
  /** @type {Record<string, unknown>} */
  const globals = {
    fs: {
      constants: unused,
      /** @param {number} _fd @param {Uint8Array} buffer @param {number} offset @param {number} length @param {unknown} _position @param {Function} done */
      write(_fd, buffer, offset, length, _position, done) {
        console.error(decoder.decode(buffer.slice(offset, offset + length)).trimEnd());
        done(null, length);
      },
    },
    process: { pid: -1, ppid: -1, getuid: () => -1, getgid: () => -1, geteuid: () => -1, getegid: () => -1 },
    path: {},
    tallowBoot: link,
  };
  const before = Object.keys(globals).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]);
  try {
    for (const [name, value] of Object.entries(globals)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    void go.run(instance);
  } finally {
    for (const [name, descriptor] of /** @type {[string, PropertyDescriptor | undefined][]} */ (before)) {
      if (descriptor) Object.defineProperty(globalThis, name, descriptor);
      else delete /** @type {any} */ (globalThis)[name];
    }
  }
}

/**
 * Sends what the runtime prints (when it crashes) to the console; wasm_exec.js would look for a global fs.
 * @param {any} go
 */
function catchOutput(go) {
  const decoder = new TextDecoder();
  let line = "";
  /** @param {number} sp the frame of runtime.wasmWrite(fd uintptr, p unsafe.Pointer, n int32) */
  go.importObject.gojs["runtime.wasmWrite"] = (sp) => {
    sp >>>= 0;
    const pointer = go.mem.getUint32(sp + 16, true);
    line += decoder.decode(new Uint8Array(go._inst.exports.mem.buffer, pointer, go.mem.getInt32(sp + 24, true)).slice(), { stream: true });
    const end = line.lastIndexOf("\n");
    if (end < 0) return;
    console.error(line.slice(0, end));
    line = line.slice(end + 1);
  };
}
