// Networks that fail under a running transfer, each member on a host of its own. What was delivered is compared, and the recipient counts what
// comes that was on its disk before the failure, most of the file: nothing.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { frozen, until } from "./harness.mjs";
import { findable, loadMember } from "./member.mjs";
import { Network } from "./netns.mjs";
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

/** Runs in the page before its scripts: what its timers are to do can be kept waiting. */
function stoppable() {
  const { setTimeout } = window;
  /** @type {(() => void)[]} */
  const waiting = [];
  const timers = {
    stopped: false,
    /** Has the timers go on, and says how many had to wait. */
    go() {
      timers.stopped = false;
      const held = waiting.splice(0);
      for (const fn of held) fn();
      return held.length;
    },
  };
  const later = (/** @type {(...args: any[]) => void} */ fn, /** @type {number} */ ms, /** @type {any[]} */ ...args) => {
    const id = setTimeout(() => {
      if (!timers.stopped) return fn(...args);
      waiting.push(() => cleared.has(id) || fn(...args));
    }, ms);
    return id;
  };
  /** @type {Set<number | undefined>} */
  const cleared = new Set();
  const { clearTimeout } = window;
  Object.assign(window, {
    timers,
    setTimeout: later,
    clearTimeout: (/** @type {number | undefined} */ id) => {
      if (timers.stopped) cleared.add(id);
      clearTimeout(id);
    },
  });
}

/** Runs in the page, in its room: notes after how many connections the other one has failed. */
function noteFailure() {
  me.room.addEventListener("peerchange", ({ detail: { state, code } }) => {
    const { made, failed } = /** @type {any} */ (window);
    if (state === "failed" && !failed) Object.assign(window, { failed: { code, connections: made.length } });
  });
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

  // In a tab that has been hidden for long, timers come once a minute.
  test("the sender's interface goes down and comes up again, while both pages' timers stand still", { timeout: 600_000 }, async (t) => {
    const transfer = await underway(t, { size, first, before: stoppable });
    const { network, flows, finished, sender, recipient } = transfer;
    const pages = [sender, recipient];
    for (const page of pages) await page.evaluate(() => void (/** @type {any} */ (window).timers.stopped = true));
    await network.hosts[0].link(false);
    await delay(6000);
    await network.hosts[0].link(true);
    t.diagnostic(`bytes flow again after ${(await flows()).toFixed(1)} s`);
    const held = await Promise.all(pages.map((page) => page.evaluate(() => /** @type {any} */ (window).timers.go())));
    assert.ok(held.every((n) => n > 0), `timers that stood still: ${held}`);
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
    const { sender, recipient, restartServer, stored, finished, repeated } = await underway(t, { size: 30 * MB });
    const back = restartServer(60_000);
    back.catch(() => {}); // it is waited for below, unless the test fails before
    await until("the sender has noticed", () => sender.evaluate(() => me.room.state === "disconnected"), 120_000);
    const before = await stored();
    await until("bytes flow without it", async () => (await stored()) > before + 2 * MB, 120_000);
    assert.equal(await sender.evaluate(() => me.room.state), "disconnected");
    await finished();
    assert.equal(await repeated(), 0, "bytes that were on the disk");
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

  test("a member that cannot be reached has failed after as many attempts as were asked for", { timeout: 600_000 }, async (t) => {
    const network = await Network.start(t, 2, { serverArgs: ["-turn=false"] });
    const [ann, bob] = network.hosts;
    await ann.run("ip", "route", "add", "unreachable", `${bob.address}/32`);
    await bob.run("ip", "route", "add", "unreachable", `${ann.address}/32`);
    const pages = [];
    for (const host of network.hosts) {
      const { browser } = await host.startBrowser(t);
      const [page] = await browser.pages();
      page.setDefaultTimeout(120_000);
      await page.evaluateOnNewDocument(findable);
      pages.push(await loadMember(page, network.url));
    }
    const link = await pages[0].evaluate(async () => (me.watch(await me.tallow.createRoom({ reconnectAttempts: 1 })), me.room.link));
    await pages[1].evaluate((to) => me.join(to, { reconnectAttempts: 2 }), link);
    for (const page of pages) await page.evaluate(noteFailure);
    for (const [i, page] of pages.entries()) {
      const { code, connections } = await until("it has failed", () => page.evaluate(() => /** @type {any} */ (window).failed), 240_000);
      assert.equal(code, "connection-failed");
      assert.ok(connections >= i + 1 && connections <= i + 2, `${connections} attempts`); // one that the other end begins may be one more
    }
    await ann.run("ip", "route", "del", "unreachable", `${bob.address}/32`);
    await bob.run("ip", "route", "del", "unreachable", `${ann.address}/32`);
    for (const page of pages) await page.evaluate(() => me.meets(1, 120_000)); // further attempts go on
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

  test("an interface goes down after the credentials of the relay have expired: new ones are at hand", { timeout: 600_000 }, async (t) => {
    const transfer = await underway(t, { size, rate: 0.5, relay: "the server's", lifetime: "1m" });
    const { network, sender, flows, finished } = transfer;
    await delay(75_000); // no longer good for an allocation, and what there is of those does not outlive the interface
    await network.hosts[1].link(false);
    await delay(6000);
    await network.hosts[1].link(true);
    t.diagnostic(`bytes flow again after ${(await flows()).toFixed(1)} s`);
    assert.equal(await sender.evaluate(() => me.room.peers[0].route), "relay");
    await network.hosts[0].cap({ up: 8 });
    await finished();
    await once(t, transfer);
  });
});
