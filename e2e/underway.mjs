// A transfer under way over a network that a test can disturb.

import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { CHUNK, hide, until } from "./harness.mjs";
import { loadMember } from "./member.mjs";
import { Network } from "./netns.mjs";
import { COTURN_PORT, coturnOnly } from "./relay.mjs";

export const MB = 1e6;

/** What both servers share, and keep over a restart. */
const secret = "a secret that outlives the server";

/** Settles when the pages asked for before are connected: tests that run side by side start their browsers one after the other. */
let started = Promise.resolve();

/**
 * A sender and a recipient on hosts of their own, with a transfer under way at the rate of the sender's link.
 * @param {import("node:test").TestContext} t
 * @param {{ size: number, first?: number, rate?: number, relay?: "" | "the server's" | "coturn", lifetime?: string, hidden?: boolean, before?: () => void, recipientKind?: "chromium" | "firefox" }} options
 *   first: how much of it is on the recipient's disk when this returns; rate: Mbit/s; relay: which they use, and nothing else; lifetime: how
 *   long its credentials are good for, as the server's flag has it; hidden: both tabs are in the background, and slowed down; before: runs in
 *   the pages before anything else
 */
export async function underway(t, { size, first = MB, rate = 8, relay = "", lifetime = "12h", hidden = false, before, recipientKind = "chromium" }) {
  const connecting = started.then(() => connect(t, { rate, relay, lifetime, hidden, before, recipientKind }));
  started = connecting.then(() => {}, () => {});
  const { network, sender, recipient, restartServer, restartCoturn } = await connecting;
  // What takes long is left to the pages, and asked for.
  await recipient.evaluate(() => {
    me.received = me.offer().then(async (offer) => {
      me.incoming = offer.accept();
      const { files } = await me.incoming.finished;
      return me.sha256(await files[0].file());
    });
    me.received.then((hash) => (me.hash = hash));
  });
  const sentBefore = await network.hosts[0].sent();
  await sender.evaluate(async (n) => {
    me.file = me.blob(n, 7);
    me.transfer = me.room.send([{ path: "file.bin", file: me.file }]);
    me.transfer.finished.then((result) => (me.result = result));
  }, size);
  /** Bytes on the recipient's disk. */
  const stored = () => sender.evaluate(() => me.transfer?.recipients[0]?.bytes ?? 0);
  await until("bytes", async () => (await stored()) > first, 120_000);
  return {
    network,
    sender,
    recipient,
    restartServer,
    restartCoturn,
    stored,
    /** How long until bytes flow again, in s. The recipient counts them; a chunk may have been between the wire and its disk. */
    async flows() {
      const start = performance.now();
      const arrived = () => recipient.evaluate(() => me.incoming.stats().recipients[0].bytes);
      const before = await arrived();
      await until("bytes flow again", async () => (await arrived()) > before + CHUNK, 120_000);
      return (performance.now() - start) / 1000;
    },
    /** What the sender's host has put on the wire since the transfer began, in bytes. */
    wire: async () => (await network.hosts[0].sent()) - sentBefore,
    /** Bytes that came although they were on the recipient's disk already. */
    repeated: () => recipient.evaluate(() => me.incoming.stats().recipients[0].repeated),
    /** @param {number} [timeout] in ms */
    async finished(timeout = 120_000) {
      const result = await until("the sender's end", () => sender.evaluate(() => me.result && { failed: me.result.failedRecipients }), timeout);
      assert.deepEqual(result.failed, []);
      assert.equal(await until("the recipient's end", () => recipient.evaluate(() => me.hash), timeout), await sender.evaluate(() => me.sha256(me.file)));
    },
  };
}

/**
 * Two hosts whose pages are connected; the sender's link has that rate.
 * @param {import("node:test").TestContext} t
 * @param {{ rate: number, relay: string, lifetime: string, hidden: boolean, before?: () => void, recipientKind: string }} options
 */
async function connect(t, { rate, relay, lifetime, hidden, before, recipientKind }) {
  const serverArgs = [...(relay === "coturn" ? coturnOnly(secret) : ["-turn-secret", secret]), "-turn-ttl", lifetime];
  const network = await Network.start(t, 2, { serverArgs });
  const startCoturn = () => network.startCoturn(t, { secret, port: COTURN_PORT });
  let coturn = relay === "coturn" ? await startCoturn() : undefined;
  const pages = [];
  for (const [i, host] of network.hosts.entries()) {
    const { browser } = await (i === 1 && recipientKind === "firefox" ? host.startFirefox(t) : host.startBrowser(t, { throttled: hidden }));
    const [page] = await browser.pages();
    page.setDefaultTimeout(120_000);
    if (before) await page.evaluateOnNewDocument(before);
    await loadMember(page, network.url);
    pages.push(page);
    if (hidden) await hide(page);
  }
  const [sender, recipient] = pages;
  await network.hosts[0].cap({ up: rate });
  const relayOnly = relay !== "";
  const link = await sender.evaluate(async (given) => {
    me.watch(await me.tallow.createRoom(given));
    return me.room.link;
  }, { name: "sender", relayOnly });
  await recipient.evaluate(async (to, given) => me.join(to, given), link, { name: "recipient", relayOnly });
  await Promise.all(pages.map((page) => page.evaluate(() => me.meets(1, 120_000))));
  return {
    network,
    sender,
    recipient,
    /** Kills the server, its relay included, and starts it again after that many ms. @param {number} ms */
    restartServer: (ms) => network.restartServer(t, ms, serverArgs),
    /** The same for coturn, which is the only relay then; the server stays. @param {number} ms */
    async restartCoturn(ms) {
      await coturn?.kill();
      await delay(ms, undefined, { signal: t.signal });
      coturn = await startCoturn();
    },
  };
}
