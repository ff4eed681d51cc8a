// One to a group, over links with a rate: every browser has a network namespace of its own, so that the network and not the
// processor is what they share. Needs root.
//
//	node bench/group/bench.mjs [--only line,group,total,hidden,limits] [--rounds 3] [--mb 4] [--uplink 8] [--shared 5] [--downlink 0.6]
//
// Measured against a bare RTCDataChannel from the same browsers over the same links, one peer connection per recipient, 64 KiB
// ArrayBuffers with at most 4 MiB queued each. Ours and bare take turns, but where the uplink is shared, as nothing there is a ratio of the two: the bare
// loop has the queue overflow, also for what our idle connections send then, and their SCTP takes five seconds to recover. A figure is the median of its
// rounds:
//
//	line_share     one recipient, the sender's uplink capped: bytes of the file per second, as a share of what the link's rate leaves for them
//	               after the headers of a browser's packets (payload below)
//	group_ratio_N  the uplink capped at `shared`, half the file, N recipients: the time until all have it, relative to one recipient
//	jain_10        there, how evenly ten share it: Jain's index over the bytes that have come to each transport between the time at which the sender knows
//	               that the last has accepted, and that at which half of all has come (jain_10_first: over all of that half; the bare loop begins with all at once);
//	               jain_3: three
//	total_ratio_N  each recipient's downlink capped, half the file: all bytes per second, ours over bare
//	hidden_ratio   the first uplink, one recipient, both pages hidden, without the driver's switches against throttling and with timers
//	               seen to be slowed down: the rate, relative to the foreground
//
// The line before the last has the figures of the bare loop, and of the link's rate as such what bytes of the file take (file_share), and our packets
// with every header (wire_share). There is also
//
//	control_ms     how much longer messages of the control channel take than the path itself, while the same uplink is full: the median of
//	               currentRTT (the last ping's round trip, as the sender's peer.stats() has it) less the median of what ICE's checks take at
//	               the same time (currentRoundTripTime of the pair in use): they leave through the same socket, with all that waits behind
//	               it, and know nothing of SCTP and what waits there. With line only; the raw readings, and what waits before the link
//	               as tc counts it, are printed.
//
//	limit_each     a limit of 1 MB/s per recipient, of two, over links without a rate: bytes of the file per second and recipient, as a share of it
//	limit_total    a limit of 1 MB/s on the two together, likewise. Both are set while the transfer runs; 15 s count, from 3 s later on.
//
// A round is void when the processors were busy for more than 80 % of the time, and a figure of which no other round is left. The file is a
// Blob in the sender's memory. With ten recipients the links are as slow as it takes for two processors to fill them.

import fs from "node:fs";
import os from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { hide } from "../../e2e/harness.mjs";
import { loadMember } from "../../e2e/member.mjs";
import { Network } from "../../e2e/netns.mjs";
import { median } from "../median.mjs";

const { values } = parseArgs({
  options: {
    only: { type: "string", default: "line,group,total,hidden,limits" },
    rounds: { type: "string", default: "3" },
    mb: { type: "string", default: "4" },
    uplink: { type: "string", default: "8" },
    shared: { type: "string", default: "5" },
    downlink: { type: "string", default: "0.6" },
  },
});
// Of a full packet on the wire, what a data channel may fill: Chromium's SCTP packets have 1,191 bytes at most, 28 of them headers of SCTP and of its only
// chunk, whose data is padded to fours; DTLS 1.2 adds 37, and UDP, IPv4 and Ethernet, as tc counts it, 42.
const payload = 1160 / (1160 + 28 + 37 + 42);
const rounds = Number(values.rounds);
const size = Number(values.mb) * 1e6;
const uplink = Number(values.uplink);
const shared = Number(values.shared);
const downlink = Number(values.downlink);
const pingEvery = 2000; // ms between pings
const fullFor = 30; // seconds that the link is full while they are looked at
const only = values.only.split(",");

const cleanups = [];
const t = /** @type {any} */ ({ after: (fn) => cleanups.push(fn) });

/** Time that the processors were busy, and that has passed, in ms of one processor. */
const cpu = () => {
  const [, user, nice, system, idle, wait, irq, softirq] = fs.readFileSync("/proc/stat", "utf8").split("\n")[0].split(/\s+/).map(Number);
  const busy = (user + nice + system + irq + softirq) * 10;
  return { busy, all: busy + (idle + wait) * 10 };
};

/** @param {() => Promise<any>} fn */
async function timed(fn) {
  const [t0, c0] = [performance.now(), cpu()];
  const result = await fn();
  const seconds = (performance.now() - t0) / 1000;
  const c1 = cpu();
  return { result, seconds, load: (c1.busy - c0.busy) / (c1.all - c0.all) };
}

/** Whether that measured the processors. */
const isVoid = ({ load }) => load > 0.8;

/** In Mbit/s. */
const rate = (bytes, seconds) => (bytes * 8) / 1e6 / seconds;

const report = (what, { seconds, load }, bytes) => {
  const text = `${what.padEnd(28)} ${seconds.toFixed(1).padStart(6)} s ${rate(bytes, seconds).toFixed(2).padStart(7)} Mbit/s  processors ${(load * 100).toFixed(0)} %`;
  console.log(text + (isVoid({ load }) ? "  VOID" : ""));
};

/** Runs in the page: everything that a bare loop needs. */
function prepareBare() {
  const gathered = (pc) =>
    new Promise((resolve) => {
      pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && resolve(pc.localDescription.sdp);
    });
  globalThis.bare = {
    sent: new Map(),
    async offer(id) {
      const pc = new RTCPeerConnection();
      const channel = pc.createDataChannel("bare");
      bare.sent.set(id, { pc, channel });
      const sdp = gathered(pc);
      await pc.setLocalDescription();
      return sdp;
    },
    async answer(sdp) {
      const pc = (bare.pc = new RTCPeerConnection());
      bare.received = 0;
      pc.ondatachannel = ({ channel }) => {
        channel.binaryType = "arraybuffer";
        channel.onmessage = ({ data }) => {
          bare.received += data.byteLength;
          if (bare.received >= bare.want) bare.done();
        };
      };
      await pc.setRemoteDescription({ type: "offer", sdp });
      const answer = gathered(pc);
      await pc.setLocalDescription();
      return answer;
    },
    async connected(id, sdp) {
      const { pc, channel } = bare.sent.get(id);
      const open = new Promise((resolve) => (channel.onopen = resolve));
      await pc.setRemoteDescription({ type: "answer", sdp });
      await open;
    },
    /** Bytes that the transport has received, as Tallow's stats have them. */
    async transported() {
      for (const report of (await bare.pc.getStats()).values()) if (report.type === "transport") return report.bytesReceived;
    },
    expect(n) {
      bare.received = 0;
      bare.want = n;
      bare.finished = new Promise((resolve) => (bare.done = resolve));
    },
    async send(ids, n) {
      const message = new Uint8Array(64 << 10);
      await Promise.all(
        ids.map(async (id) => {
          const { channel } = bare.sent.get(id);
          channel.bufferedAmountLowThreshold = 1 << 20;
          for (let sent = 0; sent < n; sent += message.byteLength) {
            if (channel.bufferedAmount > 4 << 20) await new Promise((resolve) => channel.addEventListener("bufferedamountlow", resolve, { once: true }));
            channel.send(message.subarray(0, n - sent)); // the last one may be shorter
          }
        }),
      );
    },
  };
}

const jain = (list) => list.reduce((a, b) => a + b, 0) ** 2 / (list.length * list.reduce((a, b) => a + b * b, 0));

/**
 * Jain's indices over the bytes that have come to each page, as soon as they are half of all: over those since the sender has been told that all accept, and
 * over all. NaN if it was over before.
 * @param {Promise<unknown>} over @param {() => Promise<boolean>} accepted @param {Member[]} to @param {() => number | Promise<number>} received runs in the page
 * @param {number} bytes that each gets
 */
async function fairness(over, accepted, to, received, bytes) {
  let running = true;
  const end = over.finally(() => (running = false)).catch(() => {});
  /** @type {number[] | undefined} */
  let before;
  while (running) {
    const begun = before !== undefined || (await accepted());
    const come = await Promise.all(to.map(({ page }) => page.evaluate(received)));
    if (begun) before ??= come;
    if (before && come.reduce((a, b) => a + b, 0) >= (bytes * to.length) / 2) {
      return { together: jain(come.map((n, i) => n - before[i])), all: jain(come), before, come };
    }
    await Promise.race([end, delay(100)]);
  }
  return { together: NaN, all: NaN };
}

/** @param {Awaited<ReturnType<typeof fairness>>} fair */
function reportFairness({ together, all, before, come }) {
  console.log(`  evenly: ${together.toFixed(3)} since all have accepted, ${all.toFixed(3)} from the first`);
  for (const bytes of [before, come]) if (bytes) console.log(`    kB: ${bytes.map((n) => Math.round(n / 1e3)).join(" ")}`);
}

/**
 * Sends the file to these pages with Tallow. Resolves when all have it on disk, with Jain's indices at half time if they are watched for: who looks
 * at a hidden page wakes it.
 * @param {import("puppeteer-core").Page} sender @param {Member[]} to
 */
async function runTallow(sender, to, watch = false, bytes = size) {
  const received = Promise.all(
    to.map(({ page }) =>
      page.evaluate(async () => {
        me.sender = me.room.peers.find(({ owner }) => owner);
        me.before = (await me.sender.stats()).bytesReceived;
        const { files } = await (await me.offer()).accept().finished;
        return (await files[0].file()).size;
      }),
    ),
  );
  const sent = sender.evaluate(
    async (n, ids) => {
      me.sending = me.room.send([{ path: "file.bin", file: me.file(n) }], { to: ids });
      const result = await me.sending.finished;
      if (result.failedRecipients.length) throw new Error(JSON.stringify(result.failedRecipients));
    },
    bytes,
    to.map(({ id }) => id),
  );
  const accepted = () => sender.evaluate(() => me.sending?.stats().recipients.every(({ state }) => state !== "offered") ?? false);
  const fair = watch && (await fairness(received, accepted, to, async () => (me.before === undefined ? 0 : (await me.sender.stats()).bytesReceived - me.before), bytes));
  for (const got of await received) if (got !== bytes) throw new Error("a file is not whole");
  await sent;
  for (const page of [sender, ...to.map(({ page }) => page)]) await page.evaluate(() => void (delete me.before, delete me.sending));
  return fair;
}

/** @param {import("puppeteer-core").Page} sender @param {Member[]} to */
async function runBare(sender, to, watch = false, bytes = size) {
  await Promise.all(
    to.map(({ page }) =>
      page.evaluate(async (n) => {
        bare.expect(n);
        bare.before = await bare.transported();
      }, bytes),
    ),
  );
  const finished = Promise.all(to.map(({ page }) => page.evaluate(() => bare.finished)));
  const sent = sender.evaluate((ids, n) => bare.send(ids, n), to.map(({ id }) => id), bytes);
  const fair = watch && (await fairness(finished, async () => true, to, async () => (await bare.transported()) - bare.before, bytes));
  await finished;
  await sent;
  return fair;
}

/** @typedef {{ page: import("puppeteer-core").Page, id: string, host: any }} Member */

/**
 * A sender and n recipients, connected both ways. @param {number} n @param {boolean} [throttled] leave the browser's throttling on
 */
async function gather(n, throttled = false) {
  const own = /** @type {(() => any)[]} */ ([]);
  const scope = /** @type {any} */ ({ after: (fn) => own.push(fn) });
  cleanups.push(async () => {
    for (const fn of own.splice(0).reverse()) await fn();
  });
  const network = await Network.start(scope, n + 1);
  const pages = [];
  for (const host of network.hosts) {
    const { browser } = await host.startBrowser(scope, { throttled });
    const [page] = await browser.pages();
    await page.evaluateOnNewDocument(() => {
      globalThis.connections = [];
      const construct = (/** @type {any} */ native, /** @type {any[]} */ args) => {
        const connection = new native(...args);
        connections.push(connection);
        return connection;
      };
      globalThis.RTCPeerConnection = new Proxy(RTCPeerConnection, { construct });
    });
    await loadMember(page, network.url);
    await page.evaluate(prepareBare);
    pages.push(page);
  }
  const [sender, ...others] = pages;
  const link = await sender.evaluate(async () => {
    me.watch(await me.tallow.createRoom({ name: "sender" }));
    // A Blob in memory, made once and sent often.
    me.file = (n) => {
      me.blobs ??= new Map();
      if (!me.blobs.has(n)) me.blobs.set(n, me.blob(n, 1));
      return me.blobs.get(n);
    };
    return me.room.link;
  });
  const members = [];
  for (const [i, page] of others.entries()) {
    const id = await page.evaluate(async (to) => {
      me.watch(await me.tallow.joinRoom(to, { name: "recipient" }));
      return me.room.self.id;
    }, link);
    members.push({ page, id, host: network.hosts[i + 1] });
    await sender.evaluate((sdp, key) => bare.connected(key, sdp), await page.evaluate((sdp) => bare.answer(sdp), await sender.evaluate((key) => bare.offer(key), id)), id);
  }
  await sender.evaluate((count) => me.meets(count, 60_000), n);
  return {
    network,
    sender,
    members,
    async end() {
      for (const fn of own.splice(0).reverse()) await fn();
    },
  };
}

/** A figure's readings, void ones left out. @type {Map<string, number[]>} */
const figures = new Map();
/** @param {string} name @param {number} value @param {...{ load: number }} readings that it rests on */
function note(name, value, ...readings) {
  if (!figures.has(name)) figures.set(name, []);
  if (!readings.some(isVoid) && !Number.isNaN(value)) figures.get(name)?.push(value);
}

/** @param {string[]} names */
const line = (names) =>
  names
    .filter((name) => figures.has(name))
    .map((name) => `${name}=${figures.get(name)?.length ? median(figures.get(name)).toFixed(3) : "void"}`)
    .join(" ");

/**
 * What a full uplink costs the control channel, besides the queue before it.
 * @param {any} host the sender's @param {import("puppeteer-core").Page} sender @param {Member} to
 */
async function measureControl(host, sender, to) {
  const look = () =>
    sender.evaluate(async (id) => {
      const { currentRTT, payloadSent } = await me.room.peers.find((peer) => peer.id === id).stats();
      // The connection that has sent most is the one that this is about.
      let used;
      for (const connection of connections) {
        if ([...bare.sent.values()].some(({ pc }) => pc === connection)) continue;
        for (const report of (await connection.getStats()).values()) {
          if (report.type === "candidate-pair" && report.bytesSent > (used?.bytesSent ?? 0)) used = report;
        }
      }
      return { currentRTT, payloadSent, check: used.currentRoundTripTime * 1000 };
    }, to.id);
  const [idle, full, checks, queue] = /** @type {number[][]} */ ([[], [], [], []]);
  await delay(2 * pingEvery); // the last ping was a full link's
  while (idle.length < 5) {
    await delay(pingEvery);
    idle.push((await look()).currentRTT);
  }
  const bytes = (uplink * 1e6 * fullFor) / 8;
  const { payloadSent } = await look();
  const load = await timed(async () => {
    let running = true;
    const over = runTallow(sender, [to], false, bytes);
    over.finally(() => (running = false)).catch(() => {});
    while (running) {
      const waiting = [];
      for (let i = 0; i < 8; i++) {
        await delay(pingEvery / 8);
        waiting.push(((await host.queued()) * 8) / 1000 / uplink);
      }
      const now = await look();
      const sent = (now.payloadSent - payloadSent) / bytes;
      if (sent < 0.1 || sent > 0.95) continue; // it begins, or ends
      full.push(now.currentRTT);
      checks.push(now.check);
      queue.push(...waiting);
    }
    await over;
  });
  report(`uplink ${uplink}: for control`, load, bytes);
  const raw = { idle, full, checks, queue };
  for (const [name, list] of Object.entries(raw)) console.log(`  ${name.padEnd(5)} ms: ${list.map((ms) => ms.toFixed(1)).join(" ")}`);
  note("control_ms", full.length ? median(full) - median(checks) : NaN, load);
}

/** The sender's uplink is capped, and there is one recipient. @param {Awaited<ReturnType<typeof gather>>} group */
async function measureLine({ network, sender, members }) {
  const [host] = network.hosts;
  await host.cap({ up: uplink });
  for (let round = 0; round < rounds; round++) {
    const before = await host.sent();
    const ours = await timed(() => runTallow(sender, members));
    const wire = (await host.sent()) - before;
    report(`uplink ${uplink}: tallow to 1`, ours, size);
    report("  the same on the wire", ours, wire);
    note("line_share", rate(size, ours.seconds) / uplink / payload, ours);
    note("file_share", rate(size, ours.seconds) / uplink, ours);
    note("wire_share", rate(wire, ours.seconds) / uplink, ours);
    const bareBefore = await host.sent();
    const bare = await timed(() => runBare(sender, members));
    report(`uplink ${uplink}: bare to 1`, bare, size);
    report("  the same on the wire", bare, (await host.sent()) - bareBefore);
    note("line_share_bare", rate(size, bare.seconds) / uplink / payload, bare);
    await measureControl(host, sender, members[0]);
  }
  await host.cap({});
}

/** The sender's uplink is capped, and shared. @param {Awaited<ReturnType<typeof gather>>} group */
async function measureGroup({ network, sender, members }) {
  const [host] = network.hosts;
  await host.cap({ up: shared });
  const bytes = size / 2;
  for (let round = 0; round < rounds; round++) {
    const one = await timed(() => runTallow(sender, members.slice(0, 1), false, bytes));
    report(`uplink ${shared}: tallow to 1`, one, bytes);
    for (const n of [3, 10]) {
      const all = await timed(() => runTallow(sender, members.slice(0, n), true, bytes));
      report(`uplink ${shared}: tallow to ${n}`, all, bytes * n);
      note(`group_ratio_${n}`, all.seconds / one.seconds, all, one);
      reportFairness(all.result);
      note(`jain_${n}`, all.result.together, all);
      if (n === 10) note("jain_10_first", all.result.all, all);
    }
  }
  for (let round = 0; round < rounds; round++) {
    const bare = await timed(() => runBare(sender, members, true, bytes));
    report(`uplink ${shared}: bare to 10`, bare, bytes * 10);
    reportFairness(bare.result);
    note("jain_10_bare", bare.result.together, bare);
  }
  await host.cap({});
}

/** The recipients' downlinks are capped. @param {Awaited<ReturnType<typeof gather>>} group */
async function measureTotal({ sender, members }) {
  for (const { host } of members) await host.cap({ down: downlink });
  const bytes = size / 2;
  for (let round = 0; round < rounds; round++) {
    for (const n of [2, 5, 10]) {
      const ours = await timed(() => runTallow(sender, members.slice(0, n), false, bytes));
      report(`downlinks ${downlink}: tallow to ${n}`, ours, bytes * n);
      const bare = await timed(() => runBare(sender, members.slice(0, n), false, bytes));
      report(`downlinks ${downlink}: bare to ${n}`, bare, bytes * n);
      note(`total_ratio_${n}`, bare.seconds / ours.seconds, bare, ours);
    }
  }
  for (const { host } of members) await host.cap({});
}

/** @param {Awaited<ReturnType<typeof gather>>} group */
async function measureHidden({ network, sender, members }) {
  const pages = [sender, members[0].page];
  await network.hosts[0].cap({ up: uplink });
  for (let round = 0; round < rounds; round++) {
    for (const page of pages) {
      await page.bringToFront();
      await page.waitForFunction(() => document.visibilityState === "visible");
    }
    const seen = await timed(() => runTallow(sender, members));
    report("both in front", seen, size);
    for (const page of pages) await hide(page);
    const hidden = await timed(() => runTallow(sender, members));
    report("both hidden", hidden, size);
    note("hidden_ratio", seen.seconds / hidden.seconds, seen, hidden);
  }
}

/** Two recipients, and links without a rate. @param {Awaited<ReturnType<typeof gather>>} group */
async function measureLimits({ sender, members }) {
  const limit = 1e6;
  for (let round = 0; round < rounds; round++) {
    for (const { page } of members) await page.evaluate(() => void me.offer().then((offer) => offer.accept().finished.catch(() => {})));
    await sender.evaluate((n) => void (me.transfer = me.room.send(me.file(n), { bandwidthLimit: 3e6 })), 48e6);
    await sender.evaluate(() => me.until(() => me.transfer.recipients.length === 2 && me.transfer.recipients.every(({ bytes }) => bytes > 0)));
    /** @param {string} name @param {number} all what may go out per second */
    const measure = async (name, all) => {
      await delay(3000);
      const read = () =>
        sender.evaluate(async () => {
          const stats = await me.room.stats();
          return { sent: stats.reduce((sum, peer) => sum + peer.payloadSent, 0), at: performance.now() / 1000 };
        });
      const { result, ...load } = await timed(async () => {
        const from = await read();
        await delay(15_000);
        const to = await read();
        return { bytes: to.sent - from.sent, seconds: to.at - from.at };
      });
      report(name, load, result.bytes);
      note(name, result.bytes / result.seconds / all, load);
    };
    await sender.evaluate((total) => me.transfer.setTotalBandwidthLimit(total), limit);
    await measure("limit_total", limit);
    await sender.evaluate((each) => me.transfer.setBandwidthLimit(each).then(() => me.transfer.setTotalBandwidthLimit(0)), limit);
    await measure("limit_each", members.length * limit);
    await sender.evaluate(() => me.transfer.cancel().then(() => me.transfer.finished));
  }
}

try {
  console.log(`${os.cpus().length} processors; ${size / 1e6} MB to one recipient, ${size / 2e6} MB to each of several`);
  if (only.includes("line")) {
    const pair = await gather(1);
    await runTallow(pair.sender, pair.members); // warms up
    await measureLine(pair);
    await pair.end();
  }
  if (only.includes("group") || only.includes("total")) {
    const group = await gather(10);
    await runTallow(group.sender, group.members);
    if (only.includes("group")) await measureGroup(group);
    if (only.includes("total")) await measureTotal(group);
    await group.end();
  }
  if (only.includes("hidden")) {
    const group = await gather(1, true);
    await runTallow(group.sender, group.members);
    await measureHidden(group);
    await group.end();
  }
  if (only.includes("limits")) {
    const group = await gather(2);
    await measureLimits(group);
    await group.end();
  }
  console.log(line(["total_ratio_2", "total_ratio_5", "line_share_bare", "file_share", "wire_share", "jain_3", "jain_10_bare", "jain_10_first", "control_ms", "limit_each", "limit_total"]));
  console.log(line(["line_share", "group_ratio_3", "group_ratio_10", "total_ratio_10", "jain_10", "hidden_ratio"]));
} finally {
  for (const fn of cleanups.reverse()) await fn();
}
