// A signaling server gone bad (evil/), and two members that meet over it, once for each attack.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { startBrowser, startServer, tempDir, until } from "./harness.mjs";
import { startMember } from "./member.mjs";

const binary = path.join(path.dirname(fileURLToPath(import.meta.url)), "..", "bin", "evil");

/**
 * Starts bin/evil in front of a server.
 * @param {import("node:test").TestContext} t
 * @param {string} target
 * @param {string} [mode] the attack on connections that name none
 */
export async function startEvil(t, target, mode = "") {
  const record = path.join(tempDir(t), "record");
  const child = spawn(binary, ["-target", target, "-record", record, "-mode", mode], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill());
  const url = await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`the evil server ended: ${code}`)));
    createInterface({ input: child.stdout }).on("line", (line) => resolve(/listening on (\S+)\//.exec(line)?.[1]));
  });
  const ask = async (/** @type {string} */ attack, /** @type {RequestInit} */ init = {}) => {
    const response = await fetch(`${url}/evil?mode=${attack}`, init);
    assert.equal(response.status, 200, `${attack}: ${response.status}`);
    return response.json();
  };
  return {
    url,
    /** What an attack has done. @param {string} attack @returns {Promise<{ meddled: number, answers: number, pairs: number }>} */
    report: (attack) => ask(attack),
    /** Makes it an insider. @param {string} attack @param {string} link */
    tell: (attack, link) => ask(attack, { method: "POST", body: link }),
    /** @param {string} attack */
    stop: (attack) => ask(attack, { method: "DELETE" }),
    /** Checks that nothing of this has passed the server. @param {(string | Buffer)[]} secrets each too long to be among megabytes by chance */
    hasNot(secrets) {
      const passed = fs.readFileSync(record);
      assert.ok(passed.includes("GET /tallow.wasm") && passed.length > 10_000, "the traffic was recorded");
      for (const secret of secrets) {
        assert.ok(secret.length >= 7, `${secret} would be found by chance`);
        assert.equal(passed.indexOf(secret), -1, `the server has seen ${secret}`);
      }
    },
  };
}

/** Attacks of a server without the link. */
export const BLIND = ["damage", "swap", "replay", "reorder", "duplicate", "drop", "presence"];

/**
 * Attacks of an insider, with how far the handshake may come while it lasts.
 * @type {Record<string, "nothing" | "answer">}
 */
export const INSIDER = Object.fromEntries([
  ...["join-keys", "join-version", "join-signature"].map((mode) => [mode, "nothing"]),
  ...["roster-members", "roster-owner", "roster-version", "roster-epoch", "roster-old"].map((mode) => [mode, "nothing"]),
  ...["hello-nonce", "hello-version"].map((mode) => [mode, "nothing"]),
  ...["fingerprint", "kem", "keys", "ids", "version", "signature", "room", "epoch", "nonce"].map((name) => [`offer-${name}`, "nothing"]),
  ...["fingerprint", "ciphertext", "keys", "ids", "version", "mac", "nonce", "commitment"].map((name) => [`answer-${name}`, "answer"]),
]);

// Each waits for most of its time. But handshakes that all begin at once in two tabs run out of time on a slow machine, and begin again.
const AT_ONCE = 8;

const MARK = "the contents that nobody else is to see";

/**
 * Two members, in a room for each attack. Each room ends in a transfer whose bytes are right; while an insider meddles there is no link,
 * and what is sent is offered to nobody.
 * @param {import("node:test").TestContext} t
 * @param {string[]} attacks
 */
export async function survive(t, attacks) {
  const server = await startServer(t);
  const evil = await startEvil(t, server.url);
  const { browser } = await startBrowser(t);
  const [owner, guest] = await Promise.all([startMember(browser, evil.url), startMember(browser, evil.url)]);
  const links = [];

  const run = async (/** @type {string} */ attack) => {
    const serverURL = `${evil.url.replace("http", "ws")}/ws?mode=${attack}`;
    const link = await owner.evaluate(create, attack, serverURL);
    links.push(link);
    const reach = INSIDER[attack];
    if (reach) await evil.tell(attack, link);
    await guest.evaluate(join, attack, serverURL, link);
    if (reach) {
      await until(`${attack} is at work`, async () => (await evil.report(attack)).meddled >= 2, 120_000);
      for (const page of [owner, guest]) {
        const seen = await page.evaluate(look, attack);
        assert.deepEqual(seen, { sent: seen.sent, open: 0, words: 0, problems: [] }, `${attack} goes unnoticed`);
        assert.match(seen.sent, /^(never offered|no-recipients|not in the room)$/, attack);
      }
      const { answers, pairs } = await evil.report(attack);
      if (reach === "nothing") assert.equal(answers, 0, `${attack}: the responder took the offer`);
      assert.equal(pairs, 0, `${attack}: the initiator took the answer`);
      await evil.stop(attack);
    }
    const [sent, received] = await Promise.all([owner.evaluate(send, attack, MARK), guest.evaluate(receive, attack)]);
    assert.deepEqual(received, { from: "Ada the owner", name: `${attack}.secret`, sha256: sent.sha256 });
    await until(`${attack}: the same words on both sides`, async () => {
      const [ours, theirs] = await Promise.all([owner, guest].map((page) => page.evaluate(words, attack)));
      return ours.length === 4 && ours.join() === theirs.join();
    });
    assert.ok((await evil.report(attack)).meddled > 0, `${attack} meddled`);
  };
  const waiting = [...attacks];
  /** @type {string[]} */
  const failed = [];
  const worker = async () => {
    for (let attack = waiting.shift(); attack; attack = waiting.shift()) {
      try {
        await run(attack);
      } catch (error) {
        failed.push(`${attack}: ${error.message}`);
        t.diagnostic(failed.at(-1) ?? ""); // the test may run out of time before the end
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  assert.deepEqual(failed, []);
  evil.hasNot(["Ada the owner", "Ben the guest", ".secret", MARK, "candidate:", "fingerprint", ...links.flatMap(secrets)]);
}

/** The forms in which a link's secret could pass. @param {string} link */
export function secrets(link) {
  const text = link.slice(link.indexOf("#v1.") + 4);
  const secret = Buffer.from(text, "base64url").subarray(0, 32);
  return [text, text.slice(0, 20), secret, secret.toString("hex"), secret.toString("base64")];
}

// These run in the page; member.mjs has left "me" there.

/** @param {string} attack @param {string} serverURL */
async function create(attack, serverURL) {
  const rooms = (me.rooms ??= new Map());
  const room = await me.tallow.createRoom({ name: "Ada the owner", serverURL });
  rooms.set(attack, room);
  (me.problems ??= new Map()).set(attack, []);
  room.addEventListener("error", (e) => me.problems.get(attack).push(e.detail.code));
  return room.link;
}

/** Does not wait until it is in. @param {string} attack @param {string} serverURL @param {string} link */
function join(attack, serverURL, link) {
  const enter = async () => {
    for (;;) {
      try {
        return await me.tallow.joinRoom(link, { name: "Ben the guest", serverURL, remember: false });
      } catch (error) {
        if (error.code !== "owner-away") throw error; // what a person does then: try again
      }
    }
  };
  (me.rooms ??= new Map()).set(attack, undefined);
  (me.problems ??= new Map()).set(attack, []);
  (me.entering ??= new Map()).set(
    attack,
    enter().then((room) => {
      me.rooms.set(attack, room);
      room.addEventListener("error", (e) => me.problems.get(attack).push(e.detail.code));
    }),
  );
}

/** What a member has while an insider meddles. @param {string} attack */
async function look(attack) {
  const room = me.rooms.get(attack);
  const peers = room?.peers ?? [];
  let sent = "not in the room";
  try {
    if (room) {
      const transfer = room.send("not for the server");
      await transfer.cancel();
      sent = (await transfer.finished).ledger.some(({ offered }) => offered) ? "offered" : "never offered";
    }
  } catch (error) {
    sent = error.code;
  }
  const open = peers.filter((peer) => peer.state === "open").length;
  return { sent, open, words: peers.flatMap((peer) => peer.safetyWords).length, problems: me.problems.get(attack) };
}

/** @param {string} attack @param {string} mark */
async function send(attack, mark) {
  const room = me.rooms.get(attack);
  await me.until(() => room.peers.some((peer) => peer.state === "open"), 60_000);
  const file = new File([mark, me.blob(300_000, attack.length), mark], `${attack}.secret`);
  const result = await room.send(file).finished;
  if (result.successfulRecipients.length !== 1) throw new Error(JSON.stringify(result.failedRecipients));
  return { sha256: await me.sha256(file) };
}

/** @param {string} attack */
async function receive(attack) {
  await me.entering.get(attack);
  const room = me.rooms.get(attack);
  await me.until(() => room.offers.length > 0, 60_000);
  const [offer] = room.offers;
  const { files } = await offer.accept().finished;
  return { from: offer.from.name, name: files[0].name, sha256: await me.sha256(await files[0].file()) };
}

/** @param {string} attack */
const words = (attack) => me.rooms.get(attack).peers[0].safetyWords;
