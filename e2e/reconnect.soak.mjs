// How long it takes until bytes flow again after the network is back, over many failures of three kinds in the middle of transfers.

import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { until } from "./harness.mjs";
import { MB, underway } from "./underway.mjs";

const runs = 12; // of each kind
/** @type {number[]} */
const times = [];

const kinds = {
  "the interface is down for a while": async ({ network }, i) => {
    await network.hosts[1].link(false);
    await delay([1000, 4000, 8000, 15_000][i % 4]);
    await network.hosts[1].link(true);
  },
  "the address changes": ({ network }, i) => network.hosts[1].readdress(100 + i),
  "the relay is killed": ({ network, serverArgs, t }, i) => network.restartServer(t, [500, 3000][i % 2], serverArgs),
};

for (const [kind, fail] of Object.entries(kinds)) {
  test(kind, { timeout: 1_800_000 }, async (t) => {
    const relayed = kind.includes("relay");
    const serverArgs = relayed ? ["-turn-secret", "a secret that outlives the server"] : [];
    const transfer = await underway(t, { size: 150 * MB, rate: 4, relayOnly: relayed, serverArgs });
    for (let i = 0; i < runs; i++) {
      await fail({ ...transfer, serverArgs, t }, i);
      const seconds = await transfer.flows();
      times.push(seconds);
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
  assert.equal(times.length, runs * Object.keys(kinds).length);
  times.sort((a, b) => a - b);
  const at = (share) => times[Math.ceil(share * times.length) - 1].toFixed(1);
  const line = `reconnect_p50_s=${at(0.5)} reconnect_p95_s=${at(0.95)}`;
  process.on("exit", () => console.log(line)); // the last thing that is printed, after what the reporter has to say
});
