// How long it takes until bytes flow again after the network is back, over many failures of several kinds in the middle of transfers. The figures are of
// the first four kinds, between Chromiums whose pages are seen; those of the others are printed with each.

import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { until } from "./harness.mjs";
import { MB, underway } from "./underway.mjs";

const runs = 12; // of each kind
/** @typedef {Awaited<ReturnType<typeof underway>>} Transfer */

/** @param {Transfer} transfer @param {number} i */
async function downForAWhile({ network }, i) {
  await network.hosts[1].link(false);
  await delay([1000, 4000, 8000, 15_000][i % 4]);
  await network.hosts[1].link(true);
}

/** @type {Record<string, { relay?: "the server's" | "coturn", hidden?: boolean, recipientKind?: "firefox", fail: (transfer: Transfer, i: number) => Promise<void> }>} */
const kinds = {
  "the interface is down for a while": { fail: downForAWhile },
  "the address changes": { fail: ({ network }, i) => network.hosts[1].readdress(100 + i) },
  "the server is killed, and its relay with it": { relay: "the server's", fail: ({ restartServer }, i) => restartServer([500, 3000][i % 2]) },
  "the relay alone is killed": { relay: "coturn", fail: ({ restartCoturn }, i) => restartCoturn([500, 3000][i % 2]) },
  "the interface is down for a while, of a Firefox": { recipientKind: "firefox", fail: downForAWhile },
  "the interface is down for a while, and both pages are hidden": { hidden: true, fail: downForAWhile },
};
/** @type {Map<string, number[]>} */
const times = new Map();

for (const [kind, { fail, ...options }] of Object.entries(kinds)) {
  test(kind, { timeout: 1_800_000 }, async (t) => {
    const transfer = await underway(t, { size: 150 * MB, rate: 4, ...options });
    const own = [];
    times.set(kind, own);
    for (let i = 0; i < runs; i++) {
      await fail(transfer, i);
      const seconds = await transfer.flows();
      own.push(seconds);
      t.diagnostic(`${seconds.toFixed(1)} s`);
      // The next failure meets a path that works, and members that the server knows.
      await until("both are back", async () => {
        const states = await Promise.all([transfer.sender, transfer.recipient].map((page) => page.evaluate(() => me.room.state)));
        return states.every((state) => state === "open");
      }, 120_000);
      const before = await transfer.stored();
      await until("more of it", async () => (await transfer.stored()) > before + MB, 120_000);
    }
    await transfer.network.hosts[0].cap({});
    await transfer.finished(300_000);
    assert.equal(await transfer.repeated(), 0, "what was on the disk was not sent again");
  });
}

test("figures", () => {
  const figures = (/** @type {string[]} */ ...of) => {
    const all = of.flatMap((kind) => times.get(kind) ?? []).sort((a, b) => a - b);
    assert.equal(all.length, runs * of.length);
    const at = (/** @type {number} */ share) => all[Math.ceil(share * all.length) - 1].toFixed(1);
    return `reconnect_p50_s=${at(0.5)} reconnect_p95_s=${at(0.95)}`;
  };
  const names = Object.keys(kinds);
  const lines = [...names.map((kind) => `${kind}: ${figures(kind)}`), figures(...names.slice(0, 4))];
  process.on("exit", () => console.log(lines.join("\n"))); // the last thing that is printed, after what the reporter has to say
});
