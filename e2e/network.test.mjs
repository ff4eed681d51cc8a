// Networks that fail under a running transfer, each member on a host of its own. What was delivered is compared, and the recipient counts what
// comes that was on its disk before the failure, most of the file: nothing.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { frozen, until } from "./harness.mjs";
import { MB, underway } from "./underway.mjs";

const size = 12 * MB;
const first = 8 * MB; // is on disk before the network fails

/**
 * Nothing came that was on the disk. The wire has no such bound: SCTP may send again what it takes for lost, and a path's queue makes it
 * guess wrong.
 * @param {import("node:test").TestContext} t @param {{ repeated: () => Promise<number>, wire: () => Promise<number> }} transfer
 */
async function once(t, { repeated, wire }) {
  t.diagnostic(`${((await wire()) / MB).toFixed(1)} MB on the wire for ${size / MB} MB`);
  assert.equal(await repeated(), 0, "bytes that were on the disk");
}

// Most of their time is spent waiting, so they run side by side.
describe("a transfer survives", { concurrency: true }, () => {
  for (const recipientKind of /** @type {const} */ (["chromium", "firefox"])) {
    test(`an interface goes down and comes up again (${recipientKind})`, { timeout: 600_000 }, async (t) => {
      const transfer = await underway(t, { size, first, recipientKind });
      const { network, flows, finished } = transfer;
      await network.hosts[1].link(false);
      await delay(6000);
      await network.hosts[1].link(true);
      t.diagnostic(`bytes flow again after ${(await flows()).toFixed(1)} s`);
      await finished();
      await once(t, transfer);
    });
  }

  test("an address changes, while both tabs are hidden", { timeout: 600_000 }, async (t) => {
    const transfer = await underway(t, { size, first, hidden: true });
    const { network, flows, finished } = transfer;
    await network.hosts[1].readdress(99);
    t.diagnostic(`bytes flow again after ${(await flows()).toFixed(1)} s`);
    await finished();
    await once(t, transfer);
  });

  test("a laptop is closed until it has been given up", { timeout: 600_000 }, async (t) => {
    const transfer = await underway(t, { size, first });
    const { sender, recipient } = transfer;
    await recipient.evaluate(() => void me.received.catch(() => {})); // it is given up, and goes on all the same
    await frozen(recipient.browser(), async () => {
      const start = performance.now();
      await until("silence is noticed", () => sender.evaluate(() => me.room.peers[0]?.quality === "disconnected"));
      t.diagnostic(`silence is noticed after ${((performance.now() - start) / 1000).toFixed(1)} s`);
      await until("the sender has given it up", () => sender.evaluate(() => me.result?.failedRecipients[0]?.code === "peer-gone"), 120_000);
    });
    t.diagnostic(`bytes flow again after ${(await transfer.flows()).toFixed(1)} s`);
    await until("the end", () => sender.evaluate(() => me.transfer.recipients[0].state === "done"), 120_000);
    const hash = await recipient.evaluate(async () => me.sha256(await (await me.room.transfers[0].finished).files[0].file()));
    assert.equal(hash, await sender.evaluate(() => me.sha256(me.file)));
    await once(t, transfer);
  });

  test("the server is away for a minute: the transfer goes on, and members find each other again", { timeout: 600_000 }, async (t) => {
    const { sender, recipient, restartServer, stored, finished } = await underway(t, { size: 30 * MB });
    const back = restartServer(60_000);
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
    for (const page of [sender, recipient]) await page.evaluate(() => me.meets(1, 120_000)); // what was lost on a busy machine is found again
    const text = recipient.evaluate(async () => (await (await me.offer()).accept().finished).files[0].text());
    await sender.evaluate(() => me.room.send(["still here"]).finished);
    assert.equal(await text, "still here");
  });

  for (const [relay, restart] of /** @type {const} */ ([["the server's", "restartServer"], ["coturn", "restartCoturn"]])) {
    test(`the relay (${relay}) is killed and comes back: members that may use nothing else go on`, { timeout: 600_000 }, async (t) => {
      const transfer = await underway(t, { size, first, relay });
      const { sender, flows, finished } = transfer;
      await until("a route", () => sender.evaluate(() => me.room.peers[0].route !== ""), 120_000);
      assert.equal(await sender.evaluate(() => me.room.peers[0].route), "relay");
      await transfer[restart](2000);
      t.diagnostic(`bytes flow again after ${(await flows()).toFixed(1)} s`);
      await finished();
      await once(t, transfer);
    });
  }
});
