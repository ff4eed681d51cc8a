// Networks that fail under a running transfer, each member on a host of its own. What was delivered is compared, and what it took to
// bring it about is counted: nothing that was on the recipient's disk goes twice.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { until } from "./harness.mjs";
import { MB, underway } from "./underway.mjs";

// Most of their time is spent waiting, so they run side by side.
describe("a transfer survives", { concurrency: true }, () => {
  test("an interface goes down and comes up again", { timeout: 180_000 }, async (t) => {
    const { network, flows, finished } = await underway(t, { size: 12 * MB });
    await network.hosts[1].link(false);
    await delay(6000);
    await network.hosts[1].link(true);
    t.diagnostic(`bytes flow again after ${(await flows()).toFixed(1)} s`);
    await finished();
  });

  test("an address changes", { timeout: 180_000 }, async (t) => {
    const { network, flows, finished } = await underway(t, { size: 12 * MB });
    await network.hosts[1].readdress(99);
    t.diagnostic(`bytes flow again after ${(await flows()).toFixed(1)} s`);
    await finished();
  });

  test("the server is away for a minute: the transfer goes on, and members find each other again", { timeout: 240_000 }, async (t) => {
    const { network, sender, recipient, stored, finished } = await underway(t, { size: 30 * MB });
    const back = network.restartServer(t, 60_000);
    await until("the sender has noticed", () => sender.evaluate(() => me.room.state === "disconnected"), 30_000);
    const before = await stored();
    await until("bytes flow without it", async () => (await stored()) > before + 2 * MB);
    await finished();
    await back;
    await until("both are back", async () => {
      const states = await Promise.all([sender, recipient].map((page) => page.evaluate(() => me.room.state)));
      return states.every((state) => state === "open");
    }, 60_000);
    const text = recipient.evaluate(async () => (await (await me.offer()).accept().finished).files[0].text());
    await sender.evaluate(() => me.room.send(["still here"]).finished);
    assert.equal(await text, "still here");
  });

  test("the relay is killed and comes back: members that may use nothing else go on", { timeout: 240_000 }, async (t) => {
    const serverArgs = ["-turn-secret", "a secret that outlives the server"];
    const { network, sender, flows, finished } = await underway(t, { size: 12 * MB, relayOnly: true, serverArgs });
    await until("a route", () => sender.evaluate(() => me.room.peers[0].route !== ""));
    assert.equal(await sender.evaluate(() => me.room.peers[0].route), "relay");
    await network.restartServer(t, 2000, serverArgs);
    t.diagnostic(`bytes flow again after ${(await flows()).toFixed(1)} s`);
    await finished();
  });
});
