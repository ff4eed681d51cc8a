// What every browser test stands on: the real server, real browsers with profiles of their own, and real files that are the same in
// every run. Everything that is started is stopped, and everything that is written removed, when the test ends.

import { spawn } from "node:child_process";
import { createCipheriv, createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { finished } from "node:stream/promises";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import puppeteer from "puppeteer-core";

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), "..");
/** The program that is Chromium. */
export const chromium = process.env.TALLOW_CHROMIUM ?? "/usr/bin/chromium";
/** The program that is Firefox. */
export const firefox = process.env.TALLOW_FIREFOX ?? "/usr/bin/firefox-esr";
const serverBinary = process.env.TALLOW_SERVER ?? path.join(root, "bin", "tallow-server");

/** The program that counts packets (e2e/capture). */
export const captureBinary = path.join(root, "bin", "capture");

/** The size of one chunk of a small file set, in bytes. */
export const CHUNK = 262_144;

/** What the driver starts Chromium with so that tabs in the background stay as quick as others. */
const unthrottled = ["--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding"];

const makeDir = () => fs.mkdtempSync(path.join(os.tmpdir(), "tallow-e2e-"));
const removeDir = (/** @type {string} */ dir) => fs.rmSync(dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });

/** A folder that is removed after the test. @param {import("node:test").TestContext} t */
export function tempDir(t) {
  const dir = makeDir();
  t.after(() => removeDir(dir));
  return dir;
}

/**
 * Starts bin/tallow-server.
 * @param {import("node:test").TestContext} t
 * @param {{ addr?: string, args?: string[], command?: string[] }} [options] addr: where it listens; by default a port of its own on
 *   loopback; command: what runs it
 */
export async function startServer(t, { addr = "127.0.0.1:0", args = [], command = [] } = {}) {
  const [program, ...rest] = [...command, serverBinary, "-addr", addr, ...args];
  const child = spawn(program, rest, { stdio: ["ignore", "pipe", "pipe"] });
  const exited = new Promise((resolve) => child.once("exit", (code, signal) => resolve({ code, signal })));
  let log = "";
  child.stderr.on("data", (data) => (log = (log + data).slice(-20_000)));
  const url = await new Promise((resolve, reject) => {
    child.once("error", reject);
    exited.then(() => reject(new Error(`the server ended at once: ${log}`)));
    createInterface({ input: child.stdout }).on("line", (line) => {
      const match = /listening on (\S+)/.exec(line);
      if (match) resolve(match[1].replace(/\/$/, ""));
    });
  });
  const server = {
    url,
    addr: new URL(url).host,
    /** Kills it and waits. */
    kill() {
      child.kill("SIGKILL");
      return exited;
    },
    /** Ends it and waits. */
    async stop() {
      child.kill("SIGTERM");
      await Promise.race([exited, delay(5000).then(() => child.kill("SIGKILL"))]);
      return exited;
    },
  };
  t.after(() => server.stop());
  return server;
}

/**
 * Starts a browser with a profile folder and a download folder of its own.
 * @param {import("node:test").TestContext} t
 * @param {{ args?: string[], kind?: "chromium" | "firefox", preferences?: Record<string, unknown>, port?: number, executable?: string, throttled?: boolean, profile?: string, networkEnabled?: boolean, mdns?: boolean }} [options]
 *   preferences, of Firefox; port: where Firefox listens for its driver; executable: another program that starts it; throttled: what is in the
 *   background is slowed down, as for people; profile: the folder of one that has ended; networkEnabled: what a
 *   response held is kept by the tab, for the driver to ask for; mdns: host candidates have names, which are told by multicast DNS, as for people
 */
export async function startBrowser(t, { args = [], kind = "chromium", preferences = {}, port, executable, throttled = false, profile = makeDir(), networkEnabled = true, mdns = false } = {}) {
  const downloads = makeDir();
  const browser = await puppeteer.launch({
    userDataDir: profile,
    timeout: 120_000,
    networkEnabled,
    protocolTimeout: 180_000, // longer than what is waited for in a page
    ...(kind === "chromium" ? chromiumOptions(downloads, args, mdns) : firefoxOptions(downloads, args, preferences, mdns)),
    ...(port && { debuggingPort: port }),
    ...(executable && { executablePath: executable }),
    ignoreDefaultArgs: throttled ? unthrottled : [],
  });
  t.after(async () => {
    await browser.close().catch(() => {}); // a test may have killed it
    try {
      removeDir(profile);
    } catch {
      // Another browser has it now, and removes it when it ends.
    }
    removeDir(downloads);
  });
  return { browser, downloads, profile };
}

/**
 * Runs fn while a browser stands still with all its processes, as on a laptop that is closed.
 * @template T @param {import("puppeteer-core").Browser} browser @param {() => Promise<T>} fn @returns {Promise<T>}
 */
export async function frozen(browser, fn) {
  const signal = (/** @type {NodeJS.Signals} */ name) => process.kill(-(/** @type {number} */ (browser.process()?.pid)), name); // its process group
  signal("SIGSTOP");
  try {
    return await fn();
  } finally {
    signal("SIGCONT");
  }
}

/**
 * Puts another tab in front of a page of a throttled browser. Resolves when the page is hidden and its timers are seen to be slowed down.
 * @param {import("puppeteer-core").Page} page
 */
export async function hide(page) {
  const browser = page.browser();
  const cover = (await browser.pages()).find((other) => other !== page) ?? (await browser.newPage());
  await cover.bringToFront();
  await page.evaluate(async () => {
    const end = performance.now() + 60_000;
    for (let slow = false; !slow || document.visibilityState !== "hidden"; ) {
      const start = performance.now();
      for (let i = 0; i < 3; i++) await new Promise((resolve) => setTimeout(resolve, 10));
      slow = performance.now() - start > 1500;
      if (start > end) throw new Error(`${document.visibilityState}, and timers are not slowed down`);
    }
  });
}

/** @param {string} downloads @param {string[]} args @param {boolean} mdns @returns {import("puppeteer-core").LaunchOptions} */
const chromiumOptions = (downloads, args, mdns) => ({
  executablePath: chromium,
  pipe: true,
  downloadBehavior: { policy: "allow", downloadPath: downloads },
  args: [
    "--no-sandbox",
    ...(mdns ? [] : ["--disable-features=WebRtcHideLocalIpsWithMdns"]),
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    ...args,
  ],
});

/** @param {string} downloads @param {string[]} args @param {Record<string, unknown>} preferences @param {boolean} mdns @returns {import("puppeteer-core").LaunchOptions} */
const firefoxOptions = (downloads, args, preferences, mdns) => ({
  browser: "firefox",
  executablePath: firefox,
  args,
  extraPrefsFirefox: {
    "media.peerconnection.ice.obfuscate_host_addresses": mdns,
    "media.peerconnection.ice.loopback": true,
    "browser.download.folderList": 2,
    "browser.download.dir": downloads,
    "browser.download.useDownloadDir": true,
    "browser.download.always_ask_before_handling_new_types": false,
    "browser.helperApps.neverAsk.saveToDisk": "application/octet-stream,text/plain",
    "browser.download.manager.showWhenStarting": false,
    "browser.download.alwaysOpenPanel": false,
    // What it keeps to restore tabs from is on disk soon, also where nobody has touched anything for three minutes.
    "browser.sessionstore.interval": 1000,
    "browser.sessionstore.interval.idle": 1000,
    ...preferences,
  },
});

/**
 * Waits until look returns something true, and returns that.
 * @template T
 * @param {string} what said when it does not come
 * @param {() => Promise<T> | T} look
 * @param {number} [timeout] in ms
 * @returns {Promise<T>}
 */
export async function until(what, look, timeout = 60_000) {
  const end = Date.now() + timeout;
  for (;;) {
    const value = await look();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${timeout / 1000} s: ${what}`);
    await delay(50);
  }
}

/** Runs in a page: how many bytes each journal has. @returns {Promise<number[]>} */
export async function journals() {
  const sizes = [];
  const top = await (await navigator.storage.getDirectory()).getDirectoryHandle("tallow");
  for await (const [, room] of top.entries()) {
    for await (const [, delivery] of room.entries()) {
      if (delivery.kind !== "directory") continue;
      try {
        for await (const [name, file] of delivery.entries()) if (name === "journal") sizes.push((await file.getFile()).size);
      } catch (e) {
        if (e.name !== "NotFoundError") throw e; // it was just deleted
      }
    }
  }
  return sizes;
}

/**
 * Writes a file whose bytes follow from its name and size, and returns its path and SHA-256.
 * @param {string} dir
 * @param {string} name
 * @param {number} size
 */
export async function writeFile(dir, name, size) {
  const file = path.join(dir, name);
  const out = fs.createWriteStream(file);
  const hash = createHash("sha256");
  const key = createHash("sha256").update(`${name} ${size}`).digest();
  const cipher = createCipheriv("aes-256-ctr", key, Buffer.alloc(16));
  for (let left = size; left > 0; ) {
    const block = cipher.update(Buffer.alloc(Math.min(left, 1 << 20)));
    hash.update(block);
    if (!out.write(block)) await new Promise((resolve) => out.once("drain", resolve));
    left -= block.length;
  }
  out.end();
  await finished(out);
  return { file, name, size, sha256: hash.digest("hex") };
}

/** SHA-256 of a file on disk. @param {string} file */
export async function sha256(file) {
  const hash = createHash("sha256");
  for await (const block of fs.createReadStream(file)) hash.update(block);
  return hash.digest("hex");
}

/**
 * Waits until a folder holds exactly these files, complete and with these hashes.
 * @param {string} dir
 * @param {{ name: string, size: number, sha256: string }[]} expected
 * @param {number} [timeout] in ms
 */
export async function expectFiles(dir, expected, timeout) {
  const names = expected.map(({ name }) => name).sort();
  let found;
  try {
    await until("downloads", () => {
      found = fs.readdirSync(dir).sort();
      return found.join("\n") === names.join("\n") && expected.every(({ name, size }) => fs.statSync(path.join(dir, name)).size === size);
    }, timeout);
  } catch {
    throw new Error(`expected ${JSON.stringify(names)}, found ${JSON.stringify(found)}`);
  }
  for (const { name, sha256: hash } of expected) {
    const real = await sha256(path.join(dir, name));
    if (real !== hash) throw new Error(`${name} differs: ${real}, not ${hash}`);
  }
}
