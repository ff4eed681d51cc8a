// Throughput, one to one: a real file in, verified bytes on disk out, against a bare RTCDataChannel in the same two browsers.
//
//	node bench/throughput/bench.mjs [--mib 128] [--pairs 5] [--profile DIR]
//
// The two are measured in turn, and what counts is the median of the ratios of neighbours: machines differ, and are noisy.
// The bare loop sends ArrayBuffers of 64 KiB with at most 4 MiB queued to a receiver that only counts. hidden_ratio is our rate with
// both pages hidden, their timers slowed down, over that in the foreground.

import fs from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { loadMember } from "../../e2e/member.mjs";
import { hide, startBrowser, startServer, tempDir, writeFile } from "../../e2e/harness.mjs";
import { median } from "../median.mjs";

const { values } = parseArgs({
  options: { mib: { type: "string", default: "128" }, pairs: { type: "string", default: "5" }, profile: { type: "string" } },
});
const size = Number(values.mib) * 1024 * 1024;
const pairs = Number(values.pairs);

const cleanups = [];
const t = /** @type {any} */ ({ after: (fn) => cleanups.push(fn) });

/** Processor time that this machine has spent, all processes, in ms. */
const cpu = () => {
  const [, user, nice, system, , , irq, softirq] = fs.readFileSync("/proc/stat", "utf8").split("\n")[0].split(/\s+/).map(Number);
  return (user + nice + system + irq + softirq) * 10;
};

async function timed(fn) {
  const [t0, c0] = [performance.now(), cpu()];
  await fn();
  const ms = performance.now() - t0;
  return { mbs: size / 1e6 / (ms / 1000), perMB: (cpu() - c0) / (size / 1e6) };
}

/** Connects the two pages with a bare data channel. */
async function connectBare(a, b) {
  const offer = await a.evaluate(async () => {
    const pc = new RTCPeerConnection();
    const channel = pc.createDataChannel("bare");
    channel.binaryType = "arraybuffer";
    globalThis.bare = { pc, channel };
    await pc.setLocalDescription();
    await new Promise((resolve) => (pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && resolve(0)));
    return pc.localDescription?.sdp;
  });
  const answer = await b.evaluate(async (sdp) => {
    const pc = new RTCPeerConnection();
    globalThis.bare = { pc, received: 0, want: 0 };
    pc.ondatachannel = ({ channel }) => {
      channel.binaryType = "arraybuffer";
      channel.onmessage = ({ data }) => {
        bare.received += data.byteLength;
        if (bare.received === bare.want) bare.done();
      };
    };
    await pc.setRemoteDescription({ type: "offer", sdp });
    await pc.setLocalDescription();
    await new Promise((resolve) => (pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && resolve(0)));
    return pc.localDescription?.sdp;
  }, offer);
  await a.evaluate(async (sdp) => {
    const open = new Promise((resolve) => (bare.channel.onopen = resolve));
    await bare.pc.setRemoteDescription({ type: "answer", sdp });
    await open;
  }, answer);
}

async function runBare(a, b) {
  await b.evaluate((n) => {
    bare.received = 0;
    bare.want = n;
    bare.finished = new Promise((resolve) => (bare.done = resolve));
  }, size);
  return timed(async () => {
    const finished = b.evaluate(() => bare.finished);
    await a.evaluate(async (n) => {
      const { channel } = bare;
      const message = new ArrayBuffer(65536);
      channel.bufferedAmountLowThreshold = 1 << 20;
      for (let sent = 0; sent < n; sent += message.byteLength) {
        if (channel.bufferedAmount > 4 << 20) await new Promise((resolve) => channel.addEventListener("bufferedamountlow", resolve, { once: true }));
        channel.send(message);
      }
    }, size);
    await finished;
  });
}

async function runTallow(a, b) {
  return timed(async () => {
    const finished = b.evaluate(async () => {
      const { files } = await (await me.offer()).accept().finished;
      return (await files[0].file()).size;
    });
    await a.evaluate(async () => {
      const transfer = me.room.send([me.input.files[0]]);
      const result = await transfer.finished;
      if (result.failedRecipients.length) throw new Error(JSON.stringify(result.failedRecipients));
    });
    if ((await finished) !== size) throw new Error("the file is not whole");
  });
}

try {
  const server = await startServer(t);
  const file = await writeFile(tempDir(t), "file.bin", size);
  const pages = [];
  for (let i = 0; i < 2; i++) {
    const { browser } = await startBrowser(t, { throttled: true, args: values.profile ? [`--js-flags=--perf-basic-prof`] : [] });
    const page = await browser.newPage();
    await loadMember(page, server.url);
    pages.push(page);
  }
  const [a, b] = pages;
  const link = await a.evaluate(async () => {
    const room = await me.tallow.createRoom({ name: "Ann" });
    me.watch(room);
    me.input = document.createElement("input");
    me.input.type = "file";
    document.body.append(me.input);
    return room.link;
  });
  await b.evaluate(async (link) => me.watch(await me.tallow.joinRoom(link, { name: "Bob" })), link);
  await Promise.all(pages.map((page) => page.evaluate(() => me.meets(1))));
  const input = await a.$("input");
  await /** @type {any} */ (input).uploadFile(file.file);
  await connectBare(a, b);

  const print = (what, r) => console.log(`${what.padEnd(8)} ${r.mbs.toFixed(1).padStart(6)} MB/s ${r.perMB.toFixed(0).padStart(5)} ms/MB of processor time, all processes`);
  await runBare(a, b); // warms both up
  await runTallow(a, b);
  const ratios = [];
  const hiddenRatios = [];
  for (let i = 0; i < pairs; i++) {
    for (const page of pages) {
      await page.bringToFront();
      await page.waitForFunction(() => document.visibilityState === "visible");
    }
    const bare = await runBare(a, b);
    print("bare", bare);
    if (values.profile && i === 0) for (const [n, page] of pages.entries()) await startProfile(page, n);
    const ours = await runTallow(a, b);
    if (values.profile && i === 0) for (const [n, page] of pages.entries()) await stopProfile(page, n);
    print("tallow", ours);
    ratios.push(ours.mbs / bare.mbs);
    for (const page of pages) await hide(page);
    const hidden = await runTallow(a, b);
    print("hidden", hidden);
    hiddenRatios.push(hidden.mbs / ours.mbs);
  }
  for (const [what, list] of Object.entries({ ratios, hidden: hiddenRatios })) console.log(`${what} ${list.map((r) => r.toFixed(3)).join(" ")}`);
  console.log(`ratio_vs_raw=${median(ratios).toFixed(3)} hidden_ratio=${median(hiddenRatios).toFixed(3)}`);
} finally {
  for (const fn of cleanups.reverse()) await fn();
}

async function startProfile(page) {
  page.profiler = await page.createCDPSession();
  await page.profiler.send("Profiler.enable");
  await page.profiler.send("Profiler.start");
}

/** Writes the page's profile and prints where its main thread spent the time. */
async function stopProfile(page, n) {
  const { profile } = await page.profiler.send("Profiler.stop");
  fs.mkdirSync(values.profile, { recursive: true });
  fs.writeFileSync(path.join(values.profile, `${n === 0 ? "sender" : "receiver"}.cpuprofile`), JSON.stringify(profile));
  const self = new Map();
  const byId = new Map(profile.nodes.map((node) => [node.id, node]));
  profile.samples.forEach((id, i) => {
    const { functionName, url } = byId.get(id).callFrame;
    const name = `${functionName || "(anonymous)"} ${path.basename(url)}`;
    self.set(name, (self.get(name) ?? 0) + profile.timeDeltas[i] / 1000);
  });
  console.log(`${n === 0 ? "sender" : "receiver"}, main thread, ms by function:`);
  for (const [name, ms] of [...self].sort((x, y) => y[1] - x[1]).slice(0, 25)) console.log(`  ${ms.toFixed(0).padStart(7)} ${name}`);
}
