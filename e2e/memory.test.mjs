// What the browser has made for the data path is given back at once.

import assert from "node:assert/strict";
import test from "node:test";
import { startBrowser, startServer } from "./harness.mjs";
import { watchMemory } from "./pss.mjs";

/** Has the page encrypt 256 MiB, a quarter of a MiB at a time, and free each result. Returns how many were not empty then. */
async function encrypt() {
  const { free } = await import(/** @type {any} */ ("/host.js"));
  const key = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt"]);
  const chunk = new Uint8Array(1 << 18);
  let kept = 0;
  for (let i = 0; i < 1024; i++) {
    const result = await crypto.subtle.encrypt({ name: "AES-GCM", iv: new Uint8Array(12) }, key, chunk);
    free(result);
    if (result.byteLength > 0) kept++;
  }
  return kept;
}

/** Has the page make a zip of 256 MiB. Returns its size. */
async function makeZip() {
  const { zip } = await import(/** @type {any} */ ("/zip.js"));
  const part = new Blob([new Uint8Array(1 << 24)]);
  const whole = new Blob(Array(16).fill(part));
  const { size } = await zip(whole, [{ path: "zeros", at: 0, size: whole.size, lastModified: 0, directory: false }]);
  return size;
}

for (const kind of /** @type {const} */ (["chromium", "firefox"])) {
  test(`${kind} gives the memory of buffers back`, { timeout: 240_000 }, async (t) => {
    const server = await startServer(t);
    const { browser } = await startBrowser(t, { kind });
    const page = await browser.newPage();
    await page.goto(`${server.url}/healthz`);
    if (kind === "firefox") return assert.equal(await page.evaluate(encrypt), 0);
    const grows = async (/** @type {() => Promise<void>} */ fn) => {
      const watch = await watchMemory(browser);
      const before = await watch.settled();
      await fn();
      const grown = (await watch.stop()) - before;
      t.diagnostic(`${fn.name}: ${(grown / 1e6).toFixed(1)} MB more at the most`);
      return grown;
    };
    // What the collector would leave is above 100 MB.
    const encrypting = await grows(async function encrypting() {
      assert.equal(await page.evaluate(encrypt), 0);
    });
    assert.ok(encrypting < 64e6, `${encrypting} bytes more at the most`);
    const zipping = await grows(async function zipping() {
      assert.ok((await page.evaluate(makeZip)) > 256 << 20);
    });
    assert.ok(zipping < 64e6, `${zipping} bytes more at the most`);
  });
}
