// How much memory a browser's tabs take, as the kernel counts it.

import fs from "node:fs";

// Steady is what changes by less than this for that long. A browser starts a renderer to spare after each navigation, and ends others.
const steady = { bytes: 1e6, ms: 3000 };

/** PSS of a process in bytes; 0 when it is gone. @param {number} pid */
function pss(pid) {
  try {
    return Number(/^Pss:\s+(\d+) kB/m.exec(fs.readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/**
 * Samples the PSS of a Chromium's renderers, all together, until stop().
 * @param {import("puppeteer-core").Browser} browser @param {number} [every] ms; a look holds the renderer up for some
 */
export async function watchMemory(browser, every = 100) {
  const cdp = await browser.target().createCDPSession();
  const look = async () => {
    const { processInfo } = await cdp.send("SystemInfo.getProcessInfo").catch(() => ({ processInfo: [] })); // the browser has ended
    return processInfo.filter(({ type }) => type === "renderer").reduce((sum, { id }) => sum + pss(id), 0);
  };
  let peak = await look();
  let running = true;
  const sampling = (async () => {
    while (running) {
      peak = Math.max(peak, await look());
      await new Promise((resolve) => setTimeout(resolve, every));
    }
  })();
  return {
    /** What it is once it is steady, or after a minute if it never is, in bytes; stop() tells of what comes after. */
    async settled() {
      const end = Date.now() + 60_000;
      let now = await look();
      for (let [low, high, since] = [now, now, Date.now()]; Date.now() - since < steady.ms && Date.now() < end; ) {
        await new Promise((resolve) => setTimeout(resolve, every));
        now = await look();
        [low, high] = [Math.min(low, now), Math.max(high, now)];
        if (high - low >= steady.bytes) [low, high, since] = [now, now, Date.now()];
      }
      return (peak = now);
    },
    /** Ends it. @returns the most that it was, in bytes */
    async stop() {
      running = false;
      await sampling;
      return peak;
    },
  };
}
