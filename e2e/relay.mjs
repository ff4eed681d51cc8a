// Members that connect through a relay, on hosts of their own, and what their browsers are made to tell of it.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { until } from "./harness.mjs";
import { startMember } from "./member.mjs";
import { HUB } from "./netns.mjs";

/** Where the server's own TURN listens, and where coturn does, on the hub. */
export const TURN_PORT = 3478;
export const COTURN_PORT = 3479;

/**
 * What makes a server give out coturn as its only relay.
 * @param {string} secret of both @param {"udp" | "tcp"} [transport]
 */
export const coturnOnly = (secret, transport = "udp") => [
  "-turn=false",
  "-ice-servers",
  JSON.stringify([{ urls: [`turn:${HUB}:${COTURN_PORT}?transport=${transport}`], secret }]),
];

/**
 * Credentials of the TURN REST API (draft-uberti-behave-turn-rest-00) for a server of this secret.
 * @param {string} url @param {string} secret @param {number} seconds that they are good for
 * @returns {RTCIceServer}
 */
export function iceServer(url, secret, seconds) {
  const username = `${Math.floor(Date.now() / 1000) + seconds}:holder`;
  return { urls: [url], username, credential: createHmac("sha1", secret).update(username).digest("base64") };
}

/** Runs in a page before anything else: notes what its connections are configured with, and are given by the others, ICE restarts among it. */
export function record() {
  const seen = { configurations: [], descriptions: [], candidates: [], restarts: 0 };
  const fragment = (description) => /^a=ice-ufrag:(\S+)/m.exec(description?.sdp ?? "")?.[1];
  const Real = globalThis.RTCPeerConnection;
  globalThis.RTCPeerConnection = class extends Real {
    constructor(configuration) {
      seen.configurations.push(structuredClone(configuration));
      super(configuration);
    }
    setRemoteDescription(description) {
      seen.descriptions.push(description.sdp);
      const before = fragment(this.remoteDescription);
      if (before && before !== fragment(description)) seen.restarts++;
      return super.setRemoteDescription(description);
    }
    addIceCandidate(candidate) {
      if (candidate.candidate) seen.candidates.push(candidate.candidate);
      return super.addIceCandidate(candidate);
    }
  };
  Object.assign(globalThis, { seen });
}

/** Runs in a page before anything else: a browser, or an extension of one, that does not keep to relays whatever it is told. */
export function disobey() {
  const Real = globalThis.RTCPeerConnection;
  globalThis.RTCPeerConnection = class extends Real {
    constructor(configuration) {
      super({ ...configuration, iceTransportPolicy: "all" });
    }
    setConfiguration(configuration) {
      super.setConfiguration({ ...configuration, iceTransportPolicy: "all" });
    }
  };
}

/** Runs in a page before anything else: its member does not hear that the server demands relays (RelayOnly of Entered and ICEServers), and takes whatever comes. */
export function unbound() {
  const Real = globalThis.WebSocket;
  globalThis.WebSocket = class extends Real {
    constructor(url, protocols) {
      super(url, protocols);
      this.addEventListener("message", ({ data }) => {
        const message = new Uint8Array(data);
        if (message[0] === 0x81) message[3] = 0;
        if (message[0] === 0x84) message[1] = 0;
      });
    }
  };
}

/**
 * Has a sender and a recipient meet, on pages of their own.
 * @param {import("./netns.mjs").Network} network
 * @param {import("puppeteer-core").Browser[]} browsers
 * @param {{ before?: ((() => void) | (() => void)[])[], options?: object[], routed?: boolean }} [given] for each of the two; routed: waits until
 * both know their route
 */
export async function meet(network, browsers, { before = [record, record], options = [{}, {}], routed = true } = {}) {
  const [sender, recipient] = await Promise.all(browsers.map((browser, i) => startMember(browser, network.url, { before: before[i] })));
  const link = await sender.evaluate(async (given) => {
    me.watch(await me.tallow.createRoom(given));
    return me.room.link;
  }, { name: "sender", ...options[0] });
  await recipient.evaluate(async (to, given) => me.join(to, given), link, { name: "recipient", ...options[1] });
  await Promise.all([sender, recipient].map((page) => page.evaluate(() => me.meets(1, 120_000))));
  for (const page of routed ? [sender, recipient] : []) await until("a route", () => page.evaluate(() => me.room.peers[0]?.route), 120_000);
  return { sender, recipient };
}

/**
 * Sends a file from one page to the other, and compares the hashes. What takes long is left to the pages, and asked for.
 * @param {import("puppeteer-core").Page} sender @param {import("puppeteer-core").Page} recipient @param {number} size
 * @param {{ patience?: number }} [options] in ms
 */
export async function deliver(sender, recipient, size, { patience = 120_000 } = {}) {
  await recipient.evaluate(() => {
    me.received = me.offer().then(async (offer) => {
      const { files } = await offer.accept().finished;
      return me.sha256(await files[0].file());
    });
    me.received.then((hash) => (me.hash = hash));
  });
  await sender.evaluate(async (n) => {
    me.file = me.blob(n, 7);
    me.room.send([{ path: "file.bin", file: me.file }]).finished.then((result) => (me.result = result));
  }, size);
  const failed = await until("the sender's end", () => sender.evaluate(() => me.result?.failedRecipients), patience);
  assert.deepEqual(failed, []);
  assert.equal(await until("the recipient's end", () => recipient.evaluate(() => me.hash), 120_000), await sender.evaluate(() => me.sha256(me.file)));
}
