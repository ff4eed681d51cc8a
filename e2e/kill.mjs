// The kill matrix in browsers: pages that crash, browsers and servers that are killed, at random points of a transfer.

import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { startBrowser, startServer, until } from "./harness.mjs";
import { crash, enter, fresh } from "./lives.mjs";
import { loadMember } from "./member.mjs";

/** How long one thing may take, in ms. */
const patience = 120_000;

/** Numbers from 0 to 1 that follow from a seed: mulberry32. @param {number} seed */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let x = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    x ^= x + Math.imul(x ^ (x >>> 7), 61 | x);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * What is killed, and when: at a share of the bytes on the recipient's disk, or so long after the transfer began.
 * @typedef {{ who: ("sender" | "recipient" | "server")[], how: "crash" | "kill", share?: number, after?: number }} Blow
 */

/** What a run is to be; all of it follows from the seed. @param {number} seed @param {number} smallest in bytes @param {number} largest @param {number} most blows */
function plan(seed, smallest, largest, most) {
  const next = random(seed);
  const pick = (/** @type {any[]} */ list) => list[Math.floor(next() * list.length)];
  const size = Math.round(largest * (smallest / largest) ** next()); // log-uniform
  const takes = 1000 + 2000 * next();
  /** @type {Blow[]} */
  const blows = Array.from({ length: 1 + Math.floor(next() * most) }, (_, i) => ({
    who: pick([["sender"], ["sender"], ["recipient"], ["recipient"], ["server"], ["sender", "recipient"], ["server", "sender"], ["server", "recipient"]]),
    how: pick(["crash", "crash", "kill"]),
    // One in the middle, at least.
    ...(i === 0 ? { share: 0.1 + 0.7 * next() } : next() < 0.7 ? { share: next() } : { after: takes * next() }),
  }));
  return { seed, size, rate: Math.ceil(size / (takes / 1000)), blows: blows.sort((a, b) => (a.share ?? 0) - (b.share ?? 0)), last: pick(["crash", "kill"]) };
}

/**
 * Plays that many runs. Each ends with the sender saying that all is verified on disk; the recipient's page or browser is killed in that moment, and
 * then its disk holds the very bytes.
 * @param {import("node:test").TestContext} t
 * @param {{ runs: number, smallest: number, largest: number, most: number }} options smallest, largest: of the files, in bytes; most: how many blows
 */
export async function killMatrix(t, { runs, smallest, largest, most }) {
  const first = Number(process.env.TALLOW_KILL_SEED ?? Date.now() % 1e9);
  let next = first;
  // They mostly wait, so two are played at a time, each lane with a server and browsers of its own.
  const struck = { sender: 0, recipient: 0, server: 0 };
  await Promise.all(["one", "other"].map((name) => t.test(name, (lane) => play(lane, () => (next < first + runs ? plan(next++, smallest, largest, most) : undefined), struck))));
  t.diagnostic(`struck in the middle: ${JSON.stringify(struck)}`);
  if (runs >= 50) assert.ok(Math.min(...Object.values(struck)) >= runs / 20, "each of them was struck in the middle");
  else if (runs > 1) assert.ok(Math.max(...Object.values(struck)) > 0, "somebody was struck in the middle");
}

/**
 * Plays runs until there are no more.
 * @param {import("node:test").TestContext} t @param {() => ReturnType<typeof plan> | undefined} draw
 * @param {Record<"sender" | "recipient" | "server", number>} struck is counted up: who was struck with some of the bytes on the recipient's disk and not all
 */
async function play(t, draw, struck) {
  let server = await startServer(t);
  const { addr, url } = server;
  const browsers = { sender: await startBrowser(t), recipient: await startBrowser(t) };
  for (let run = draw(); run; run = draw()) {
    const { seed } = run;
    await t.test(`TALLOW_KILL_SEED=${seed} ${JSON.stringify(run)}`, { timeout: 10 * patience }, async (s) => {
      /** @type {string[]} */
      const log = [];
      const start = Date.now();
      const note = (/** @type {string} */ what) => {
        log.push(`${Date.now() - start} ms: ${what}`);
        if (process.env.TALLOW_KILL_LOG) console.error(seed, log.at(-1)); // at once: what a run that hangs says otherwise comes late
      };
      /** A page of its browser, new if none is left. @param {"sender" | "recipient"} one */
      const load = async (one) => {
        const { browser } = browsers[one];
        return loadMember((await browser.pages())[0] ?? (await browser.newPage()), url);
      };
      /** @type {Record<"sender" | "recipient", import("puppeteer-core").Page>} */
      const pages = { sender: await load("sender"), recipient: await load("recipient") };
      for (const page of Object.values(pages)) await fresh(page);
      const link = await enter(pages.sender, undefined, "sender");
      await enter(pages.recipient, link, "recipient");
      await Promise.all([pages.sender.evaluate(send, run.size, seed, run.rate), pages.recipient.evaluate(receive)]);
      const want = await pages.sender.evaluate((n, from) => me.sha256(me.blob(n, from)), run.size, seed);
      const begun = Date.now();
      const state = () => pages.sender.evaluate(look);
      /** Waits for a point of the transfer, or its end. @param {(bytes: number) => boolean} there */
      const reach = async (there) => {
        for (const end = Date.now() + patience; ; await delay(10)) {
          const { bytes, done, error } = await state();
          assert.equal(error, undefined);
          if (done || there(bytes)) return done;
          assert.ok(Date.now() < end, `it hangs at ${bytes} bytes`);
        }
      };
      /** Ends a page's life, and begins the next. @param {"sender" | "recipient"} who @param {Blow["how"]} how */
      const rebirth = async (who, how) => {
        if (how === "crash") {
          await (await crash(pages[who])).close().catch(() => {});
        } else {
          await slay(browsers[who].browser);
          browsers[who] = await startBrowser(t, { profile: browsers[who].profile });
        }
        note(`${who} is dead (${how})`);
      };
      let blows = 0;
      /** How many bytes were on its disk when the recipient began its last life. */
      let had = 0;
      let ended = false;
      note(JSON.stringify(run));
      try {
        for (const { who, how, share, after } of run.blows) {
          if (await reach((bytes) => (share === undefined ? Date.now() - begun >= (after ?? 0) : bytes >= share * run.size))) break;
          const { bytes, id } = await state();
          note(`${who}: ${how}, at ${bytes} bytes`);
          blows++;
          if (bytes > 0 && bytes < run.size) for (const one of who) struck[one]++;
          if (who.includes("recipient")) had = bytes;
          if (who.includes("server")) await server.kill();
          const members = /** @type {("sender" | "recipient")[]} */ (who.filter((one) => one !== "server"));
          await Promise.all(members.map((one) => rebirth(one, how)));
          if (who.includes("server")) server = await startServer(t, { addr });
          for (const one of members) pages[one] = await load(one);
          await Promise.all(
            members.map(async (one) => {
              await enter(pages[one], link, one);
              await (one === "sender" ? pages.sender.evaluate(send, run.size, seed, run.rate) : pages.recipient.evaluate(receive));
              note(`${one} is back`);
            }),
          );
          const { id: now } = await state();
          if (bytes === run.size && now !== id) {
            await until("the recipient's end", () => pages.recipient.evaluate((was) => me.room.transfers.some((transfer) => transfer.id === was && transfer.stats().state === "done"), id));
            note("the end came before the blow");
            ended = true;
            break;
          }
          if (bytes > 0) assert.equal(now, id, "what is on a disk belongs to a transfer that goes on");
        }
        if (!ended) {
          await reach(() => false);
          note("done");
          const { offers, repeated } = await pages.recipient.evaluate(received);
          assert.equal(repeated, 0, "nothing came again that was on the disk");
          if (had > 0) assert.equal(offers, 0, "nobody is asked again about what is on the disk");
        }
        await rebirth("recipient", run.last);
        const { browser } = browsers.recipient;
        const page = (await browser.pages())[0] ?? (await browser.newPage());
        await page.goto(`${url}/healthz`);
        const stored = await page.evaluate(onDisk, run.size);
        assert.ok(stored.includes(want), `of ${run.size} bytes ${want}, the disk holds ${stored}`);
        s.diagnostic(`${blows} of ${run.blows.length} blows, ${(run.size / 1e6).toFixed(1)} MB, ${Date.now() - start} ms`);
      } catch (error) {
        for (const line of log) s.diagnostic(line);
        for (const [who, page] of Object.entries(pages)) {
          s.diagnostic(`${who}: ${JSON.stringify(await Promise.race([page.evaluate(() => [me.room?.state, me.room?.peers, me.room?.transfers, me.events]).catch(String), delay(5000)]))}`);
        }
        throw error;
      }
    });
  }
}

/** Kills a browser. @param {import("puppeteer-core").Browser} browser */
async function slay(browser) {
  const died = new Promise((resolve) => browser.once("disconnected", resolve));
  browser.process()?.kill("SIGKILL");
  await died;
}

/** Runs in the sender's page: goes on with what there is, or else sends. @param {number} size @param {number} seed @param {number} rate */
async function send(size, seed, rate) {
  const files = [{ path: "a.bin", file: me.blob(size, seed) }];
  me.transfer = me.room.transfers[0];
  if (me.transfer) {
    const item = (await me.tallow.unfinished()).find(({ id }) => id === me.transfer.id);
    if (item) await item.continue(files);
    me.transfer.setBandwidthLimit(rate);
    return;
  }
  const whole = () => me.room.peers.some(({ state }) => state === "open");
  me.sending = me.until(whole, 120_000).then(
    () => (me.transfer = me.room.send(files, { bandwidthLimitPerRecipient: rate })),
    (error) => (me.trouble = String(error)),
  );
}

/** Runs in the recipient's page: accepts whatever is offered. */
function receive() {
  const accept = () => me.room.offers.forEach((offer) => offer.accept().finished.catch(() => {}));
  me.room.addEventListener("offer", accept);
  accept();
}

/** Runs in the recipient's page: how often it was offered something, and how many bytes have come that were on its disk. */
function received() {
  const repeated = me.room.transfers.map((transfer) => transfer.stats().recipients[0].repeated);
  return { offers: me.events.filter(({ type }) => type === "offer").length, repeated: repeated.reduce((a, b) => a + b, 0) };
}

/** Runs in the sender's page: what it knows. */
function look() {
  const { state, bytes, code } = me.transfer?.recipients[0] ?? {};
  const bad = ["failed", "cancelled", "declined"].includes(state) && code !== "peer-gone";
  return { id: me.transfer?.id, bytes: bytes ?? 0, done: state === "done", error: me.trouble ?? (bad ? `${state}: ${code}` : undefined) };
}

/** Runs in a page of the recipient's browser: the hashes of what its disk holds of that size. @param {number} size */
async function onDisk(size) {
  const hashes = [];
  const top = await (await navigator.storage.getDirectory()).getDirectoryHandle("tallow");
  for await (const [, room] of top.entries()) {
    if (room.kind !== "directory") continue;
    for await (const [, delivery] of room.entries()) {
      if (delivery.kind !== "directory") continue;
      for await (const [, entry] of delivery.entries()) {
        const file = await entry.getFile();
        if (file.size !== size) continue;
        const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
        hashes.push([...new Uint8Array(digest)].map((b) => b.toString(16).padStart(2, "0")).join(""));
      }
    }
  }
  return hashes;
}
