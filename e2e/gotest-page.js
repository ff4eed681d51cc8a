// The page's half of gotest.mjs: gives a js/wasm test binary a file system (over HTTP, on the runner's side), its output, the host
// of web/host.js, and runs it.

const config = await (await fetch("config.json")).json();

/** @type {Promise<unknown>} */
let written = Promise.resolve();

/** @param {number} fd @param {Uint8Array} bytes */
function output(fd, bytes) {
  // Bytes as Latin-1, cut so that apply's argument list stays short: a split UTF-8 sequence survives.
  for (let at = 0; at < bytes.length; at += 8192) {
    const text = String.fromCharCode.apply(null, bytes.subarray(at, at + 8192));
    written = Promise.all([written, globalThis.tallowOutput(fd, text)]);
  }
  return bytes.length;
}

/** @param {unknown[]} call @param {BodyInit} [body] */
async function remote(call, body) {
  const response = await fetch(`fs?call=${encodeURIComponent(JSON.stringify(call))}`, { method: "POST", body });
  // Not an HTTP status: the browser would log each one.
  if (response.headers.get("Content-Type") !== "application/x-error+json") return response;
  const { code, message } = await response.json();
  throw Object.assign(new Error(message), { code });
}

const fs = {
  constants: config.constants,
  writeSync: output,
  write(fd, buffer, offset, length, position, callback) {
    const bytes = buffer.subarray(offset, offset + length);
    if (fd === 1 || fd === 2) return callback(null, output(fd, bytes));
    remote(["write", fd, position], bytes.slice())
      .then((response) => response.json())
      .then((n) => callback(null, n), callback);
  },
  read(fd, buffer, offset, length, position, callback) {
    remote(["read", fd, length, position])
      .then((response) => response.arrayBuffer())
      .then((data) => {
        buffer.set(new Uint8Array(data), offset);
        callback(null, data.byteLength);
      })
      .catch(callback);
  },
};
for (const name of ["open", "close", "mkdir", "readdir", "unlink", "rmdir", "chmod", "fchmod", "utimes", "rename", "truncate", "ftruncate", "readlink", "link", "symlink", "fsync"]) {
  fs[name] = (...args) => {
    const callback = args.pop();
    remote([name, ...args])
      .then((response) => response.json())
      .then((value) => callback(null, value), callback);
  };
}
for (const name of ["stat", "lstat", "fstat"]) {
  fs[name] = (target, callback) => {
    remote([name, target])
      .then((response) => response.json())
      .then(({ directory, ...stats }) => callback(null, { ...stats, isDirectory: () => directory }), callback);
  };
}
for (const name of ["chown", "fchown", "lchown"]) {
  fs[name] = (...args) => args.pop()(Object.assign(new Error(`${name}: not passed through`), { code: "ENOSYS" }));
}
const absent = () => {
  throw Object.assign(new Error("not implemented"), { code: "ENOSYS" });
};
Object.assign(globalThis, {
  fs,
  path: { resolve: (...parts) => parts.reduce((base, part) => (part.startsWith("/") ? part : `${base}/${part}`), config.cwd) },
  process: {
    pid: config.pid,
    ppid: -1,
    cwd: () => config.cwd,
    chdir: absent,
    umask: absent,
    getgroups: absent,
    getuid: () => -1,
    getgid: () => -1,
    geteuid: () => -1,
    getegid: () => -1,
  },
});
await import("/wasm_exec.js");

const go = new globalThis.Go();
go.argv = config.argv;
go.env = config.env;
go.exit = (code) => {
  for (const timer of go._scheduledTimeouts.values()) clearTimeout(timer); // nobody is there to wake any more
  void written.then(() => globalThis.tallowExit(code));
};
const { createHost } = await import("/host.js");
const parts = [];
for (const name of config.parts) {
  const { default: part } = await import(`/${name}`);
  parts.push(part);
}
const input = /** @type {HTMLInputElement} */ (document.querySelector("input"));
// What a leak would keep: functions that Go has made and not released, and connections that nobody has closed.
/** @type {Function[]} */
const functions = [];
const makeFunction = go._makeFuncWrapper;
go._makeFuncWrapper = (id) => {
  const wrapper = makeFunction.call(go, id);
  functions.push(wrapper);
  return wrapper;
};
/** @type {WeakRef<RTCPeerConnection>[]} */
const connections = [];
globalThis.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...args) {
    super(...args);
    connections.push(new WeakRef(this));
  }
};

globalThis.tallowTest = {
  functions: () => functions.length,
  /** How many of the functions made since then Go has not released: it says so itself when a released one is called. @param {number} since */
  unreleased(since) {
    const { error } = console;
    let released = 0;
    console.error = (...args) => (args[0] === "call to released function" ? void released++ : error(...args));
    const wrappers = functions.slice(since);
    for (const wrapper of wrappers) wrapper({ candidate: null, channel: { close() {} } });
    console.error = error;
    return wrappers.length - released;
  },
  connections: () => connections.length,
  openConnections: () => connections.filter((c) => (c.deref()?.signalingState ?? "closed") !== "closed").length,
  host: createHost(go, parts),
  /** The file at a path of the runner's file system, as the person would choose it. @param {string} path */
  async pick(path) {
    input.value = "";
    await globalThis.tallowChoose(path);
    return input.files?.[0];
  },
  processor: globalThis.tallowProcessor,
  /**
   * Where in Go's memory each of the byte strings (at least 8 bytes long) lies. They are kept here, out of the memory that is searched.
   * @param {Uint8Array[]} wanted
   * @returns {number[][]}
   */
  search(wanted) {
    const memory = new Uint8Array(instance.exports.mem.buffer);
    const starts = new Uint8Array(1 << 16);
    for (const w of wanted) starts[w[0] | (w[1] << 8)] = 1;
    /** @type {number[][]} */
    const found = wanted.map(() => []);
    for (let at = 0; at + 1 < memory.length; at++) {
      if (starts[memory[at] | (memory[at + 1] << 8)] === 0) continue;
      for (const [n, w] of wanted.entries()) {
        if (w.every((byte, i) => memory[at + i] === byte)) found[n].push(at);
      }
    }
    return found;
  },
};
const { instance } = await WebAssembly.instantiateStreaming(fetch("/test.wasm"), go.importObject);
await go.run(instance);
