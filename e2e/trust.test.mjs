// The promises of trust that only a browser can break: what the signaling server, a stranger's file names and injected scripts get out of
// the page. Long forms: trust.soak.mjs.

import assert from "node:assert/strict";
import test from "node:test";
import { BLIND, INSIDER, survive } from "./evil.mjs";
import { startBrowser, startServer } from "./harness.mjs";
import { prepare } from "./member.mjs";
import { reloads } from "./reloads.mjs";

test("a server that meddles: right bytes or a typed error", { timeout: 180_000 }, async (t) => {
  await survive(t, [...BLIND, ...Object.keys(INSIDER)]);
});

test("nonces never repeat, whatever is reloaded", { timeout: 120_000 }, async (t) => {
  await reloads(t, 5);
});

test("a hidden tab rekeys, while it sends", { timeout: 120_000 }, async (t) => {
  const server = await startServer(t);
  const { browser } = await startBrowser(t, { throttled: true });
  // Two tabs of a window; a third covers both, so that whoever initiates the rekey is hidden.
  const context = await browser.createBrowserContext();
  const [sender, recipient] = [await context.newPage(), await context.newPage()];
  for (const page of [sender, recipient]) {
    await page.evaluateOnNewDocument(skewClock);
    await page.evaluateOnNewDocument(watchRecords);
    await page.goto(`${server.url}/healthz`);
    await page.evaluate(prepare);
  }
  const link = await sender.evaluate(async () => (me.watch(await me.tallow.createRoom()), me.room.link));
  await recipient.evaluate(async (to) => me.watch(await me.tallow.joinRoom(to)), link);
  await sender.evaluate(() => me.meets(1));
  const front = await context.newPage();
  await front.bringToFront();
  for (const page of [sender, recipient]) await page.waitForFunction(() => document.visibilityState === "hidden", { polling: 100 });

  const sent = sender.evaluate(async () => {
    const blob = me.blob(8 << 20, 1);
    me.transfer = me.room.send(new File([blob], "slow.bin"), { bandwidthLimitPerRecipient: 300_000 });
    const { successfulRecipients } = await me.transfer.finished;
    return { done: successfulRecipients.length, sha256: await me.sha256(blob) };
  });
  const received = recipient.evaluate(async () => {
    const { files } = await (await me.offer()).accept().finished;
    return me.sha256(await files[0].file());
  });
  await sender.waitForFunction(() => globalThis.records.has("bulk 2 0") && me.transfer.state === "transferring", { polling: 100 });
  const epochs = (/** @type {number} */ epoch) => ["control", "bulk"].map((channel) => `${channel} 2 ${epoch}`);
  for (const page of [sender, recipient]) assert.deepEqual(await page.evaluate(() => [...globalThis.records].filter((r) => !/ 0$/.test(r))), [], "one epoch so far");
  for (const page of [sender, recipient]) await page.evaluate(() => void (globalThis.skew += 5 * 60_000 + 1));
  await sender.waitForFunction((all) => all.every((r) => globalThis.records.has(r)), { polling: 100 }, epochs(1));
  assert.equal(await sender.evaluate(() => me.transfer.state), "transferring", "it runs on");
  await sender.evaluate(() => me.transfer.setBandwidthLimit(0));
  const { done, sha256 } = await sent;
  assert.deepEqual([done, await received], [1, sha256]);
  for (const page of [sender, recipient]) {
    const records = await page.evaluate(() => [...globalThis.records]);
    for (const channel of ["control", "bulk"]) assert.ok(records.includes(`${channel} 3 0`), `a key record ends the old epoch: ${records}`);
    assert.deepEqual(await page.evaluate(() => me.events.filter((e) => e.type === "error" || (e.type === "peerchange" && e.state !== "open" && e.state !== "connecting"))), []);
    assert.equal(await page.evaluate(() => document.visibilityState), "hidden");
  }
});

// These run in the page, before its scripts.

/** Lets a test put the clock of Go's runtime forward. */
function skewClock() {
  const now = performance.now.bind(performance);
  globalThis.skew = 0;
  performance.now = () => now() + globalThis.skew;
}

/** Collects "channel type epoch" of the records that are sent: PROTOCOL.md section 8. */
function watchRecords() {
  globalThis.records = new Set();
  const left = new WeakMap(); // of the record that a channel is in
  const send = RTCDataChannel.prototype.send;
  RTCDataChannel.prototype.send = function (data) {
    const message = new DataView(data.buffer, data.byteOffset, data.byteLength);
    let rest = left.get(this) ?? 0;
    if (rest === 0) {
      rest = 4 + message.getUint32(0);
      globalThis.records.add(`${this.label} ${message.getUint8(4)} ${message.getUint32(5)}`);
    }
    left.set(this, rest - message.byteLength);
    return send.call(this, data);
  };
}
