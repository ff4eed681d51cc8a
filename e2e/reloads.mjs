// Whether anything is ever encrypted twice under the same key and nonce, over reloads of a page.

import assert from "node:assert/strict";
import { startBrowser, startServer } from "./harness.mjs";
import { prepare, startMember } from "./member.mjs";

/**
 * Reloads a member's page that many times; each time both send each other a file. Checks that all (key, nonce) pairs of WebCrypto, and all
 * salts of envelopes, which give keys and nonces of their own, are distinct.
 * @param {import("node:test").TestContext} t
 * @param {number} times
 */
export async function reloads(t, times) {
  const server = await startServer(t);
  const { browser } = await startBrowser(t);
  const [owner, guest] = await Promise.all([startMember(browser, server.url, { before: spy }), startMember(browser, server.url, { before: spy })]);
  const link = await owner.evaluate(async () => (me.watch(await me.tallow.createRoom({ name: "owner" })), me.room.link));
  const used = new Map();
  const envelopes = new Map();
  const loads = [];
  const collect = async (/** @type {import("puppeteer-core").Page} */ page) => {
    const { encryptions, sent } = await page.evaluate(() => ({ encryptions: globalThis.encryptions.splice(0), sent: globalThis.sentEnvelopes.splice(0) }));
    for (const pair of encryptions) {
      assert.ok(!used.has(pair), `key and nonce ${pair} are used again, in load ${loads.length} and ${used.get(pair)}`);
      used.set(pair, loads.length);
    }
    for (const [salt, envelope] of sent) {
      assert.ok((envelopes.get(salt) ?? envelope) === envelope, "a salt is used again for another envelope");
      envelopes.set(salt, envelope);
    }
    return encryptions.length;
  };
  for (let i = 0; i < times; i++) {
    if (i > 0) {
      await guest.reload();
      await guest.evaluate(prepare);
    }
    await guest.evaluate(async (to) => me.join(to, { name: "guest" }), link);
    await Promise.all([owner, guest].map((page) => page.evaluate(() => me.until(() => me.room.peers.some((p) => p.state === "open")))));
    const seeds = [i, 1000 + i];
    const send = (/** @type {number} */ seed) => me.room.send(new File([me.blob(600_000, seed)], "a.bin")).finished.then((r) => r.successfulRecipients.length);
    const receive = () => me.offer().then((offer) => offer.accept().finished).then((r) => r.files.length);
    const done = await Promise.all([guest.evaluate(send, seeds[0]), owner.evaluate(receive), owner.evaluate(send, seeds[1]), guest.evaluate(receive)]);
    assert.deepEqual(done, [1, 1, 1, 1], `load ${i}`);
    loads.push([await collect(owner), await collect(guest)]);
  }
  for (const load of loads) assert.ok(Math.min(...load) >= 3, `each load encrypts: ${JSON.stringify(loads)}`);
  assert.ok(envelopes.size >= 5 * times, `each load sends envelopes: ${envelopes.size}`);
}

/** Runs in the page before anything else: notes "key nonce" of each encryption, and salt and content of each envelope that is sent. */
function spy() {
  const hex = (/** @type {BufferSource} */ data) => {
    const bytes = ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
    return [...bytes].map((b) => b.toString(16).padStart(2, "0")).join("");
  };
  const raw = new WeakMap();
  globalThis.encryptions = [];
  globalThis.sentEnvelopes = [];
  const { importKey, encrypt } = SubtleCrypto.prototype;
  SubtleCrypto.prototype.importKey = async function (format, data, ...rest) {
    const text = format === "raw" ? hex(data) : "";
    const key = await importKey.call(this, format, data, ...rest);
    raw.set(key, text);
    return key;
  };
  SubtleCrypto.prototype.encrypt = function (algorithm, key, data) {
    globalThis.encryptions.push(`${raw.get(key)} ${hex(algorithm.iv)}`);
    return encrypt.call(this, algorithm, key, data);
  };
  const send = WebSocket.prototype.send;
  WebSocket.prototype.send = function (data) {
    const text = hex(data);
    // Send: type, to 16; envelope: kind, id 16, session 16, salt 32 (PROTOCOL.md sections 4 and 5).
    if (text.startsWith("02")) globalThis.sentEnvelopes.push([text.slice(2 * 50, 2 * 82), text.slice(2 * 17)]);
    return send.call(this, data);
  };
}
