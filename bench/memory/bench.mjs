// make bench-memory: what the tabs take of memory, by their peak PSS.
//
//	node bench/memory/bench.mjs [--small 64] [--big 2048] [--runs 3] [--recipients 10] [--each 64]
//
// Growth: by how much the peak of a tab that sends, or receives, a file of --big MiB is above that for one of --small MiB; each in fresh browsers with one
// tab, real files in, real bytes on disk out; the median of the runs. Ten recipients: the peak of a sender's tab while it sends --each MiB to all of
// them, above the same tab when it was empty and steady; the line before the last divides that into what the tab takes once it has a room (base_mb), and the
// rest for each of them (per_peer_mb). PSS is what the kernel says of a browser's renderer processes (/proc/PID/smaps_rollup), which shares what is
// shared among all; so what is compared runs beside the same number of other tabs. The driver does not watch the network: for that a tab would keep
// the bodies of all responses, the WebAssembly's among them.

import { parseArgs } from "node:util";
import { startBrowser, startServer, tempDir, until, writeFile } from "../../e2e/harness.mjs";
import { prepare } from "../../e2e/member.mjs";
import { watchMemory } from "../../e2e/pss.mjs";
import { median } from "../median.mjs";

const number = (/** @type {string} */ value) => /** @type {const} */ ({ type: "string", default: value });
const { values } = parseArgs({ options: { small: number("64"), big: number("2048"), runs: number("3"), recipients: number("10"), each: number("64") } });
const [small, big, runs, recipients, each] = [values.small, values.big, values.runs, values.recipients, values.each].map(Number);
const MiB = 1 << 20;
const mb = (/** @type {number} */ bytes) => Number((bytes / 1e6).toFixed(1));

/** Runs fn, and ends what it has started. @template T @param {(t: any) => Promise<T>} fn @returns {Promise<T>} */
async function scoped(fn) {
  /** @type {(() => unknown)[]} */
  const cleanups = [];
  try {
    return await fn({ after: (/** @type {() => unknown} */ cleanup) => cleanups.push(cleanup) });
  } finally {
    for (const cleanup of cleanups.reverse()) await cleanup();
  }
}

const launch = (t) => startBrowser(t, { networkEnabled: false });

/** The tab that a browser has begun with, on an empty page of the server. */
async function blank(browser, url) {
  const [page] = await browser.pages();
  page.setDefaultTimeout(600_000);
  await page.goto(`${url}/healthz`);
  return page;
}

/** Makes a page the owner of a room, ready to send that file. @returns {Promise<string>} the link */
async function owner(page, file) {
  await page.evaluate(prepare);
  const link = await page.evaluate(async () => {
    me.watch(await me.tallow.createRoom({ name: "sender" }));
    document.body.append(Object.assign(document.createElement("input"), { type: "file" }));
    return me.room.link;
  });
  await (await page.$("input")).uploadFile(file);
  return link;
}

/** The page accepts the next offer, and has all of it when me.received is its size. */
const receive = (page) =>
  page.evaluate(async () => {
    const offer = await me.offer(120_000);
    offer.accept().finished.then(async ({ files }) => (me.received = (await files[0].file()).size));
  });

/** Sends the owner's file to all, and returns when all have it. */
async function send(page, members, size) {
  await page.evaluate(() => {
    me.transfer = me.room.send([document.querySelector("input").files[0]]);
    me.transfer.finished.then((result) => (me.result = result));
  });
  await Promise.all(members.map(receive));
  const failed = await until("the end", () => page.evaluate(() => me.result?.failedRecipients), 1_800_000);
  if (failed.length) throw new Error(JSON.stringify(failed));
  for (const member of members) {
    const received = await until("all of it", () => member.evaluate(() => me.received));
    if (received !== size) throw new Error(`${received} bytes of ${size}`);
  }
}

/** One to one. */
const pair = (url, file) =>
  scoped(async (t) => {
    const browsers = [(await launch(t)).browser, (await launch(t)).browser];
    const [a, b] = await Promise.all(browsers.map((browser) => blank(browser, url)));
    const link = await owner(a, file.file);
    await b.evaluate(prepare);
    await b.evaluate((to) => me.join(to, { name: "recipient" }), link);
    await Promise.all([a, b].map((page) => page.evaluate(() => me.meets(1))));
    const watches = await Promise.all(browsers.map((browser) => watchMemory(browser)));
    await send(a, [b], file.size);
    const [sender, receiver] = await Promise.all(watches.map((watch) => watch.stop()));
    return { sender, receiver };
  });

/** One to many: the sender's tab, above what it was when it was empty. */
const many = (url, file) =>
  scoped(async (t) => {
    const { browser: others } = await launch(t);
    const members = [];
    for (let i = 0; i < recipients; i++) {
      const page = await (await others.createBrowserContext()).newPage();
      await page.goto(`${url}/healthz`);
      members.push(page);
    }
    const { browser } = await launch(t);
    const page = await blank(browser, url);
    const watch = await watchMemory(browser);
    const empty = await watch.settled();
    const link = await owner(page, file.file);
    const alone = await watch.settled();
    for (const [i, member] of members.entries()) {
      await member.evaluate(prepare);
      await member.evaluate((to, name) => me.join(to, { name }), link, `recipient ${i}`);
    }
    await page.evaluate((n) => me.meets(n, 120_000), recipients);
    const connected = await watch.settled();
    await send(page, members, file.size);
    const peak = await watch.stop();
    console.log(`${recipients} recipients: empty ${mb(empty)}, with a room ${mb(alone)}, connected ${mb(connected)}, peak ${mb(peak)} MB`);
    console.log(`base_mb=${mb(alone - empty)} per_peer_mb=${mb((peak - alone) / recipients)}`);
    return peak - empty;
  });

await scoped(async (t) => {
  const server = await startServer(t);
  const dir = tempDir(t);
  const files = {};
  for (const mib of new Set([small, big, each])) files[mib] = await writeFile(dir, `${mib}.bin`, mib * MiB);
  const growth = { sender: [], receiver: [] };
  for (let i = 1; i <= runs; i++) {
    const peaks = [];
    for (const mib of [small, big]) {
      const peak = await pair(server.url, files[mib]);
      console.log(`run ${i}: ${mib} MiB: peak PSS sender ${mb(peak.sender)} MB, receiver ${mb(peak.receiver)} MB`);
      peaks.push(peak);
    }
    const [low, high] = peaks;
    for (const side of /** @type {const} */ (["sender", "receiver"])) growth[side].push(high[side] - low[side]);
  }
  const ten = await many(server.url, files[each]);
  console.log(`sender_growth_mb=${mb(median(growth.sender))} receiver_growth_mb=${mb(median(growth.receiver))} ten_recipients_mb=${mb(ten)}`);
});
