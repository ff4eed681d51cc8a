// Networks that fail under a running transfer, each member on a host of its own. What was delivered is compared, and what the sender's
// host put on the wire for it is counted: what was on the recipient's disk before the failure, most of the file, does not go twice.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { until } from "./harness.mjs";
import { MB, underway } from "./underway.mjs";

const size = 12 * MB;
const first = 8 * MB; // is on disk before the network fails

/**
 * The wire took the file once, a tenth for headers, and the windows of SCTP that a failure has it send again.
 * @param {import("node:test").TestContext} t @param {number} wire
 */
function once(t, wire) {
  t.diagnostic(`${(wire / MB).toFixed(1)} MB on the wire for ${size / MB} MB`);
  assert.ok(wire > size, "it is counted");
  assert.ok(wire < 1.1 * size + 4 * MB, `${wire} bytes on the wire`);
}

// Most of their time is spent waiting, so they run side by side.
describe("a transfer survives", { concurrency: true }, () => {
  test("an interface goes down and comes up again", { timeout: 300_000 }, async (t) => {
    const { network, flows, finished, wire } = await underway(t, { size, first });
    await network.hosts[1].link(false);
    await delay(6000);
    await network.hosts[1].link(true);
    t.diagnostic(`bytes flow again after ${(await flows()).toFixed(1)} s`);
    await finished();
    once(t, await wire());
  });

  test("an address changes", { timeout: 300_000 }, async (t) => {
    const { network, flows, finished, wire } = await underway(t, { size, first });
    await network.hosts[1].readdress(99);
    t.diagnostic(`bytes flow again after ${(await flows()).toFixed(1)} s`);
    await finished();
    once(t, await wire());
  });

  test("the server is away for a minute: the transfer goes on, and members find each other again", { timeout: 360_000 }, async (t) => {
    const { network, sender, recipient, stored, finished } = await underway(t, { size: 30 * MB });
    const back = network.restartServer(t, 60_000);
    back.catch(() => {}); // it is waited for below, unless the test fails before
    await until("the sender has noticed", () => sender.evaluate(() => me.room.state === "disconnected"), 120_000);
    const before = await stored();
    await until("bytes flow without it", async () => (await stored()) > before + 2 * MB, 120_000);
    await finished();
    await back;
    await until("both are back", async () => {
      const states = await Promise.all([sender, recipient].map((page) => page.evaluate(() => me.room.state)));
      return states.every((state) => state === "open");
    }, 120_000);
    const text = recipient.evaluate(async () => (await (await me.offer()).accept().finished).files[0].text());
    await sender.evaluate(() => me.room.send(["still here"]).finished);
    assert.equal(await text, "still here");
  });

  test("the relay is killed and comes back: members that may use nothing else go on", { timeout: 360_000 }, async (t) => {
    const serverArgs = ["-turn-secret", "a secret that outlives the server"];
    const { network, sender, flows, finished, wire } = await underway(t, { size, first, relayOnly: true, serverArgs });
    await until("a route", () => sender.evaluate(() => me.room.peers[0].route !== ""));
    assert.equal(await sender.evaluate(() => me.room.peers[0].route), "relay");
    await network.restartServer(t, 2000, serverArgs);
    t.diagnostic(`bytes flow again after ${(await flows()).toFixed(1)} s`);
    await finished();
    once(t, await wire());
  });
});
