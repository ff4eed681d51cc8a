// Compression where it pays: text and random data in one transfer, over a link that is slow enough, and between the two browsers. What was
// delivered is compared by hash, and what went over the wire is counted.

import assert from "node:assert/strict";
import test from "node:test";
import { startBrowser, startServer } from "./harness.mjs";
import { startMember } from "./member.mjs";
import { Network } from "./netns.mjs";

const MB = 1e6;

// Functions given to evaluate run in the page, where member.mjs has left "me".

/** Runs in the page: a text as somebody might have written it, or, with one word, one that compressing leaves almost nothing of. */
function prepareTexts() {
  me.text = (/** @type {number} */ size, /** @type {number} */ words) => {
    const list = "the sender announces each hash before its chunk and a recipient verifies what comes from anyone in order".split(" ");
    let text = "";
    for (let x = 1; text.length < size; ) {
      x = (Math.imul(x, 1103515245) + 12345) >>> 0;
      text += `${list[(x >>> 16) % words]} `;
    }
    return new Blob([text.slice(0, size)]);
  };
}

/**
 * Sends files to a recipient. Resolves when they are on its disk and were found to be the same.
 * @param {import("puppeteer-core").Page} sender @param {import("puppeteer-core").Page} recipient
 * @param {{ text: number, words: number, random: number, compression?: boolean }} options
 */
async function deliver(sender, recipient, options) {
  const received = recipient.evaluate(async () => {
    const { files } = await (await me.offer()).accept().finished;
    return Promise.all(files.map(async (file) => [file.path, await me.sha256(await file.file())]));
  });
  const sent = await sender.evaluate(async ({ text, words, random, compression }) => {
    const files = [];
    if (text) files.push({ path: "text.txt", file: me.text(text, words) }, { path: "short.txt", file: me.text(5000, words) });
    if (random) files.push({ path: "random.bin", file: me.blob(random, 7) });
    const result = await me.room.send(files, compression === undefined ? {} : { compression }).finished;
    if (result.failedRecipients.length) throw new Error(JSON.stringify(result.failedRecipients));
    return Promise.all(files.map(async ({ path, file }) => [path, await me.sha256(file)]));
  }, options);
  assert.deepEqual(await received, sent);
}

/** @param {import("puppeteer-core").Page} owner @param {import("puppeteer-core").Page} other */
async function meet(owner, other) {
  const link = await owner.evaluate(async () => (me.watch(await me.tallow.createRoom()), me.room.link));
  await other.evaluate((to) => me.join(to), link);
  for (const page of [owner, other]) {
    await page.evaluate(() => me.meets(1, 120_000));
    await page.evaluate(prepareTexts);
  }
}

test("text and random data over uplinks of 4 Mbit/s, between Chromium and Firefox", { timeout: 240_000 }, async (t) => {
  const network = await Network.start(t, 2);
  const [one, two] = network.hosts;
  const [chromium, firefox] = await Promise.all([one.startBrowser(t), two.startFirefox(t)].map(async (starting) => startMember((await starting).browser, network.url)));
  await meet(chromium, firefox);
  for (const host of network.hosts) await host.cap({ up: 4 }); // on which compressing pays on a machine that is busy with others, too
  /** @param {string} what @param {typeof one} host the sender's @param {{ text: number, words: number, random: number, compression?: boolean }} options */
  const wire = async (what, host, options) => {
    const before = await host.sent();
    await (host === one ? deliver(chromium, firefox, options) : deliver(firefox, chromium, options));
    const share = ((await host.sent()) - before) / (options.text + options.random);
    t.diagnostic(`${what}: ${share.toFixed(3)} of the contents on the wire`);
    return share;
  };
  // The first chunks go before the rate of the link is known; random data is the larger part of what is left.
  for (const [what, host] of /** @type {const} */ ([["from Chromium", one], ["from Firefox", two]]))
    assert.ok((await wire(`text and random data ${what}`, host, { text: 5 * MB, words: 16, random: MB })) < 0.9);
  assert.ok((await wire("text, switched off", one, { text: MB, words: 16, random: 0, compression: false })) > 1);
  assert.ok((await wire("random data", one, { text: 0, words: 0, random: MB })) < 1.25);
  assert.equal(await chromium.evaluate(() => me.code((async () => me.room.send("x", { compression: "no" }))())), "invalid-argument");
});

test("a bomb is stopped after a few small pieces", { timeout: 120_000 }, async (t) => {
  const server = await startServer(t, { args: ["-turn=false"] });
  const page = await startMember((await startBrowser(t)).browser, server.url);
  const { status, length, pieces, longest, after } = await page.evaluate(async () => {
    const compressed = new Blob([new Uint8Array(64 << 20)]).stream().pipeThrough(new CompressionStream("deflate-raw"));
    const bomb = new Uint8Array(await new Response(compressed).arrayBuffer());
    // A browser puts out all that a piece becomes, at once: so what a stream takes is counted, before it takes it.
    const Genuine = DecompressionStream;
    const counts = { pieces: 0, longest: 0 };
    globalThis.DecompressionStream = /** @type {any} */ (
      class {
        /** @param {CompressionFormat} format */
        constructor(format) {
          const { readable, writable } = new Genuine(format);
          const writer = writable.getWriter();
          this.readable = readable;
          this.writable = new WritableStream({
            write(piece) {
              counts.pieces++;
              counts.longest = Math.max(counts.longest, piece.byteLength);
              return writer.write(piece);
            },
            close: () => writer.close(),
            abort: (reason) => writer.abort(reason),
          });
        }
      }
    );
    const capacity = 256 << 10;
    const memory = new Uint8Array(capacity + bomb.length + 100);
    memory.set(bomb, capacity + 100);
    memory.fill(0xa5, capacity, capacity + 100);
    const { default: deflatePart } = await import(`${location.origin}/host-deflate.js`);
    const status = await new Promise((resolve) => {
      const host = { bytes: (ptr, n) => memory.subarray(ptr, ptr + n), complete: (_, status) => resolve(status), attach: () => 1 };
      deflatePart(host).inflate(1, 0, capacity, capacity + 100, bomb.length);
    });
    const { pieces, longest } = counts;
    globalThis.DecompressionStream = Genuine;
    return { status, length: bomb.length, pieces, longest, after: memory.subarray(capacity, capacity + 100).every((byte) => byte === 0xa5) };
  });
  t.diagnostic(`${pieces} pieces of up to ${longest} bytes, of ${length}`);
  assert.equal(status, 1, "inauthentic");
  assert.ok(after, "nothing is written behind");
  // A byte becomes 1,032 at most.
  assert.ok(pieces > 0 && pieces <= 4 && longest <= 4096, `${pieces} pieces of up to ${longest} bytes`);
});
