// How much memory a browser's tabs take, as the kernel counts it.

import fs from "node:fs";

const every = 100; // ms

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
 * @param {import("puppeteer-core").Browser} browser
 */
export async function watchMemory(browser) {
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
    /** What it is now, in bytes. */
    look,
    /** Ends it. @returns the most that it was, in bytes */
    async stop() {
      running = false;
      await sampling;
      return peak;
    },
  };
}
