// make bench-load: what opening the page costs. A fresh browser profile and a new server per run, so every cache is cold.
//
// wire_bytes: everything that came over the network until the room was ready, headers and compression as sent; the median.
// interactive_ms: from the start of the navigation until the room's link shows, which is when all of the page can be used; the median.
// The raw readings also say when files could be chosen.

import { startBrowser, startServer, until } from "../../e2e/harness.mjs";
import { median } from "../median.mjs";

const runs = Number(process.argv[2] ?? 7);

const readings = [];
for (let i = 1; i <= runs; i++) {
  /** @type {(() => unknown)[]} */
  const cleanups = [];
  const scope = /** @type {any} */ ({ after: (/** @type {() => unknown} */ cleanup) => cleanups.push(cleanup) });
  try {
    const server = await startServer(scope);
    const { browser } = await startBrowser(scope);
    const [page] = await browser.pages();
    const cdp = await page.createCDPSession();
    await cdp.send("Network.enable");
    let bytes = 0;
    cdp.on("Network.loadingFinished", (event) => (bytes += event.encodedDataLength));
    await page.evaluateOnNewDocument(() => {
      const look = () => {
        const choose = /** @type {HTMLButtonElement | null} */ (document.getElementById("choose"));
        const link = /** @type {HTMLInputElement | null} */ (document.getElementById("link"));
        const times = /** @type {any} */ (window);
        if (choose && !choose.disabled) times.chooseMs ??= performance.now();
        if (link?.value) times.linkMs ??= performance.now();
        else requestAnimationFrame(look);
      };
      look();
    });
    await page.goto(`${server.url}/`);
    const times = await until("a room", () =>
      page.evaluate(() => {
        const { chooseMs, linkMs } = /** @type {any} */ (window);
        return linkMs && { chooseMs, linkMs };
      }),
    );
    readings.push({ bytes, ...times });
    console.log(`run ${i}: wire_bytes=${bytes} choose_ms=${times.chooseMs.toFixed(0)} interactive_ms=${times.linkMs.toFixed(0)}`);
  } finally {
    for (const cleanup of cleanups.reverse()) await cleanup();
  }
}
console.log(`wire_bytes=${median(readings.map((r) => r.bytes))} interactive_ms=${median(readings.map((r) => r.linkMs)).toFixed(0)}`);
