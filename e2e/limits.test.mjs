// Limits on what goes out, in the API and in the page. The upper bound is the promise, and holds however busy the machine is; the lower
// one, that most of a limit is used, is waited for on a busy machine.

import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { CHUNK, startServer, tempDir, until, writeFile } from "./harness.mjs";
import { startMember } from "./member.mjs";
import { Person } from "./person.mjs";
import { sharedBrowser } from "./shared.mjs";

const MB = 1e6;

// Functions given to evaluate run in the page, where member.mjs has left "me".

test("limits, changed under way", { timeout: 480_000 }, async (t) => {
  const server = await startServer(t, { args: ["-turn=false"] });
  const browser = await sharedBrowser(t);
  const [owner, ...members] = [await startMember(browser, server.url), await startMember(browser, server.url), await startMember(browser, server.url)];
  const link = await owner.evaluate(async () => (me.watch(await me.tallow.createRoom()), me.room.link));
  for (const page of members) await page.evaluate((to) => me.join(to), link);
  await owner.evaluate(() => me.meets(2));
  for (const page of members) await page.evaluate(() => void me.offer().then((offer) => offer.accept().finished.catch(() => {})));

  /** What has been handed to the connections by then, in bytes, and when, in the page's seconds. */
  const read = () =>
    owner.evaluate(async () => {
      const earliest = performance.now() / 1000;
      const stats = await me.room.stats();
      return { earliest, bytes: stats.reduce((sum, peer) => sum + peer.payloadSent, 0), latest: performance.now() / 1000 };
    });
  /**
   * Checks what leaves under a limit that has just been set.
   * @param {string} what @param {number} limit on all together, in bytes per second @param {Awaited<ReturnType<typeof read>>} [before] when it was set
   */
  const holds = async (what, limit, before) => {
    const from = before ?? (await read());
    for (const end = performance.now() + 60_000; ; ) {
      await delay(3000, undefined, { signal: t.signal });
      const to = await read();
      const bytes = to.bytes - from.bytes;
      const share = bytes / (limit * (to.latest - from.earliest));
      t.diagnostic(`${what}: ${share.toFixed(3)} of the limit`);
      // Whole chunks go out, and for each of the two one may have waited that was let out before.
      const most = limit * 1.05 * (to.latest - from.earliest) + 3 * CHUNK;
      // A busy machine may have stood still until just now: what was saved up meanwhile is for at most two seconds. Whoever takes that is watched
      // until it is little beside the rest, so that half as much again never passes.
      assert.ok(bytes < most + 2 * limit, `${what}: ${bytes} bytes where ${most + 2 * limit} may go`);
      const sure = bytes < most || to.earliest - from.latest > 12;
      // A busy machine may have stood still for a while.
      if (sure && share > 0.7) return;
      assert.ok(performance.now() < end, `${what}: ${share.toFixed(3)} of the limit`);
    }
  };
  // From each to the next it is 2.7 times as much or as little, so that the one before would not do; and there always is one.
  await owner.evaluate((limit) => void (me.transfer = me.room.send(me.blob(48 << 20, 1), { bandwidthLimit: limit })), 1.5 * MB);
  await owner.evaluate(() => me.until(() => me.transfer.recipients.every((r) => r.bytes > 0)));
  await holds("on the transfer", 1.5 * MB);
  await owner.evaluate((each) => me.transfer.setBandwidthLimit(each).then(() => me.transfer.setTotalBandwidthLimit(0)), 2 * MB);
  await holds("per recipient", 4 * MB);
  await owner.evaluate((limit) => me.room.setTotalBandwidthLimit(limit).then(() => me.transfer.setBandwidthLimit(0)), 1.5 * MB);
  await holds("on the room", 1.5 * MB);
  const states = await owner.evaluate(() => me.transfer.recipients.map(({ state }) => state));
  assert.ok(states.every((state) => state === "transferring" || state === "interrupted"), `it was under way all the time: ${states}`);
  await owner.evaluate(() => me.transfer.cancel());

  // What it is set to after the end holds for those who are asked again.
  await owner.evaluate(async (limit) => {
    await me.transfer.finished;
    await me.transfer.setTotalBandwidthLimit(limit);
    await me.room.setTotalBandwidthLimit(0);
    for (const { peer } of me.transfer.recipients) await me.transfer.retry(peer);
  }, 1.5 * MB);
  const asked = await read();
  for (const page of members) await page.evaluate(() => void me.offer().then((offer) => offer.accept().finished.catch(() => {})));
  await holds("after a retry", 1.5 * MB, asked);
  await owner.evaluate(() => me.transfer.cancel());

  for (const wrong of [-1, NaN, Infinity, "1", null])
    assert.deepEqual(
      await owner.evaluate(
        async (n) => {
          const limit = n === "NaN" ? NaN : n === "Infinity" ? Infinity : n;
          const thrown = await me.code((async () => me.room.send("x", { bandwidthLimit: limit }))());
          return [thrown, await me.code(me.room.setTotalBandwidthLimit(limit)), await me.code(me.transfer.setTotalBandwidthLimit(limit))];
        },
        typeof wrong === "number" && !Number.isFinite(wrong) ? String(wrong) : wrong,
      ),
      ["invalid-argument", "invalid-argument", "invalid-argument"],
      String(wrong),
    );
});

test("a limit that a person types", { timeout: 480_000 }, async (t) => {
  const server = await startServer(t, { args: ["-turn=false"] });
  const file = await writeFile(tempDir(t), "file.bin", 16 * MB);
  const [ada, ben] = await Promise.all(["Ada", "Ben"].map((name) => Person.arrive(t, { name })));
  await ada.open(`${server.url}/`);
  await ben.open(await ada.link());
  await ada.meets(1);
  await ada.choose(file.file);
  await ada.press("Send");
  await ada.limit("1");
  const start = performance.now();
  await ben.press("Accept");
  const percent = await until("a fifth of it", async () => {
    const [, n] = /^Transferring · (\d+) %/.exec((await ada.deliveries())["Ben"] ?? "") ?? [];
    return Number(n) >= 20 && Number(n);
  }, 120_000);
  const seconds = (performance.now() - start) / 1000;
  assert.ok((percent / 100) * file.size < 1.05 * MB * seconds + 2 * CHUNK, `${percent} % in ${seconds.toFixed(1)} s`);
  const pace = () => ada.deliveries().then((all) => / · ([\d.]+ [kM]?B)\/s/.exec(all["Ben"])?.[1]);
  const shown = await until("a speed", pace);
  t.diagnostic(`${percent} % in ${seconds.toFixed(1)} s, ${shown}/s`);
  await ada.limit("");
  await ada.seesDelivery("Ben", /^Done/);
});
