// Runs a js/wasm test binary in headless Chromium, on an origin where WebCrypto and the private file system exist:
//
//   GOOS=js GOARCH=wasm go test -exec="node $PWD/e2e/gotest.mjs" ./internal/...
//
// The binary gets the host of web/host.js with every part web/host-*.js (its default export) as tallowTest.host, the file system, arguments and
// working directory of this process (so testdata, t.TempDir and -test.* files work as natively), and of the environment what begins with GO
// or TALLOW_. tallowTest.pick(path) gives it a File as a person would choose it, tallowTest.processor() the
// processor time that the whole browser has used, in s. The exit code is the binary's; a crash, an uncaught
// error in the page, or no end within -test.timeout and a grace is a failure. TALLOW_CHROMIUM names another browser binary.

import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import puppeteer from "puppeteer-core";

const graceMs = 30_000;
const e2e = path.dirname(fileURLToPath(import.meta.url));
const web = path.join(e2e, "..", "web");
const [binary, ...args] = process.argv.slice(2);
if (!binary) {
  console.error("usage: node gotest.mjs test.wasm [arguments]");
  process.exit(2);
}

// As strict as the page's own policy, so that what runs here runs there.
const policy = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "worker-src 'self'",
  "connect-src 'self' ws: wss: http://127.0.0.1:*",
  "require-trusted-types-for 'script'",
  "trusted-types tallow-worker",
].join("; ");

// Only who knows the token may use the file system through this server.
const token = randomBytes(16).toString("hex");
const page = `<!doctype html><meta charset="utf-8"><title>go test</title><input type="file"><script type="module" src="/gotest-page.js"></script>`;
const config = {
  argv: [path.basename(binary), ...args],
  env: Object.fromEntries([...Object.entries(process.env).filter(([name]) => /^(GO|TALLOW_)/.test(name)), ["TMPDIR", os.tmpdir()]]),
  cwd: process.cwd(),
  pid: process.pid,
  constants: Object.fromEntries(Object.entries(fs.constants).filter(([name]) => name.startsWith("O_"))),
  parts: fs.readdirSync(web).filter((name) => /^host-.*\.js$/.test(name)),
};
const wasmExec = path.join(execFileSync("go", ["env", "GOROOT"], { encoding: "utf8" }).trim(), "lib", "wasm", "wasm_exec.js");

/** @type {Record<string, string>} */
const files = { "/wasm_exec.js": wasmExec, "/gotest-page.js": path.join(e2e, "gotest-page.js"), "/test.wasm": binary };
const types = { ".js": "text/javascript", ".wasm": "application/wasm" };

// The calls of Go's syscall package that pass through; read and write carry bytes and have their own paths.
const calls = new Set(
  "open close mkdir readdir stat lstat fstat unlink rmdir chmod fchmod utimes rename truncate ftruncate readlink link symlink fsync".split(" "),
);

/** @param {http.IncomingMessage} req @param {http.ServerResponse} res */
async function serve(req, res) {
  const { pathname, searchParams } = new URL(req.url ?? "/", "http://127.0.0.1");
  const send = (type, body, status = 200) => {
    res.writeHead(status, { "Content-Type": type, "Content-Security-Policy": policy, "Cache-Control": "no-store" });
    res.end(body);
  };
  const name = pathname.startsWith(`/${token}/`) ? pathname.slice(token.length + 2) : undefined;
  if (name === "") return send("text/html", page);
  if (name === "config.json") return send("application/json", JSON.stringify(config));
  if (name === "fs" && req.method === "POST") {
    const body = [];
    for await (const part of req) body.push(part);
    const [call, ...params] = JSON.parse(searchParams.get("call") ?? "[]");
    try {
      if (call === "read") {
        const [fd, length, position] = params;
        const buffer = Buffer.alloc(length);
        return send("application/octet-stream", buffer.subarray(0, fs.readSync(fd, buffer, 0, length, position)));
      }
      if (call === "write") {
        const [fd, position] = params;
        const buffer = Buffer.concat(body);
        return send("application/json", JSON.stringify(fs.writeSync(fd, buffer, 0, buffer.length, position)));
      }
      if (!calls.has(call)) throw Object.assign(new Error(`${call}: not passed through`), { code: "ENOSYS" });
      const value = fs[`${call}Sync`](...params);
      const extra = value instanceof fs.Stats ? { directory: value.isDirectory() } : {};
      return send("application/json", JSON.stringify(value instanceof fs.Stats ? { ...value, ...extra } : (value ?? null)));
    } catch (error) {
      return send("application/x-error+json", JSON.stringify({ code: error.code ?? "EIO", message: error.message }));
    }
  }
  const file = files[pathname] ?? (/^\/[a-z-]+\.js$/.test(pathname) ? path.join(web, pathname) : undefined);
  if (!file || !fs.existsSync(file)) return send("text/plain", "not found", 404);
  send(types[path.extname(file)] ?? "application/wasm", fs.readFileSync(file));
}

function browserPath() {
  if (process.env.TALLOW_CHROMIUM) return process.env.TALLOW_CHROMIUM;
  const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
  for (const dir of (process.env.PATH ?? "").split(path.delimiter)) {
    for (const name of names) if (fs.existsSync(path.join(dir, name))) return path.join(dir, name);
  }
  throw new Error("no Chromium found; set TALLOW_CHROMIUM");
}

/** The limit of the run in ms, from Go's own flag: the binary reports a timeout itself, with stacks, so this is only the net below. */
function limitMs() {
  const flag = args.find((arg) => /^--?test\.timeout=/.test(arg))?.split("=")[1] ?? "10m";
  const units = { h: 3600e3, m: 60e3, s: 1e3, ms: 1 };
  let total = 0;
  for (const [, n, unit] of flag.matchAll(/([\d.]+)(ms|h|m|s)/g)) total += Number(n) * units[unit];
  return total === 0 ? 0 : total + graceMs;
}

const profile = fs.mkdtempSync(path.join(os.tmpdir(), "tallow-gotest-"));
const server = http.createServer((req, res) => void serve(req, res).catch((error) => res.destroy(error)));
/** @type {import("puppeteer-core").Browser | undefined} */
let browser;

/** @param {(code: number) => void} end @param {(why: unknown) => void} fail */
async function run(end, fail) {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  browser = await puppeteer.launch({
    executablePath: browserPath(),
    pipe: true,
    userDataDir: profile,
    args: [
      ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []),
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--no-first-run",
      "--disable-features=WebRtcHideLocalIpsWithMdns",
    ],
    protocolTimeout: 0,
    handleSIGINT: false,
    handleSIGTERM: false,
    handleSIGHUP: false,
  });
  browser.on("disconnected", () => fail("the browser ended"));
  const tab = (await browser.pages())[0] ?? (await browser.newPage());
  tab.on("error", (error) => fail(`the page crashed: ${error.message}`));
  tab.on("pageerror", (error) => fail(`uncaught in the page: ${error?.stack ?? error}`));
  tab.on("console", (message) => process.stderr.write(`console.${message.type()}: ${message.text()}\n`));
  await tab.exposeFunction("tallowOutput", (fd, text) => void (fd === 2 ? process.stderr : process.stdout).write(text, "latin1"));
  await tab.exposeFunction("tallowExit", (code) => end(code));
  await tab.exposeFunction("tallowChoose", async (file) => {
    const input = await tab.$("input");
    await input?.uploadFile(path.resolve(file));
  });
  const system = await browser.target().createCDPSession();
  await tab.exposeFunction("tallowProcessor", async () => {
    const { processInfo } = await system.send("SystemInfo.getProcessInfo");
    return processInfo.reduce((sum, { cpuTime }) => sum + cpuTime, 0);
  });
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  await tab.goto(`http://127.0.0.1:${port}/${token}/`);
}

let timer;
const code = await new Promise((resolve) => {
  const fail = (why) => {
    process.stderr.write(`gotest: ${why instanceof Error ? why.stack : why}\n`);
    resolve(1);
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP"]) process.on(signal, () => fail(signal));
  const limit = limitMs();
  if (limit > 0) timer = setTimeout(() => fail(`no end within ${limit / 1000} s`), limit);
  run(resolve, fail).catch(fail);
});
clearTimeout(timer);
browser?.removeAllListeners("disconnected");
await browser?.close().catch(() => browser?.process()?.kill("SIGKILL"));
server.closeAllConnections();
server.close();
fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
process.exit(code);
