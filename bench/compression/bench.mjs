// What compression gains over a slow link, and what it costs over a fast one. Two browsers in network namespaces of their own. Needs root.
//
//	node bench/compression/bench.mjs [--only text,random] [--rounds 5] [--mb 8] [--uplink 8] [--pairs 15] [--most 45] [--mib 64]
//
// Ours against ours with `compression: false`, in turn; a figure is the median of its rounds:
//
//	text_ratio    the sender's uplink capped: the time for a text corpus (this repository's sources), relative to the shorter one of two that
//	              travel as they are: the same corpus with compression switched off, and random data of the same size
//	random_loss   no cap: the share of its rate that random data loses against compression switched off; 1 - the ratio of the rates
//
// Pairs go first in turn. There are more of them, up to `most`, until half the notch of their median (McGill, Tukey and Larsen, 1978: at most nine of ten such
// medians are no further off) is no wider than the 2 % that may be lost. The line before the last has it as random_loss_within, and what else was seen: text over the
// uncapped link, and the processor time per MB of random data, with compression over without. Files are on disk, at both ends.

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { tempDir, writeFile } from "../../e2e/harness.mjs";
import { loadMember } from "../../e2e/member.mjs";
import { Network } from "../../e2e/netns.mjs";
import { median, notch } from "../median.mjs";

const { values } = parseArgs({
  options: {
    only: { type: "string", default: "text,random" },
    rounds: { type: "string", default: "5" },
    mb: { type: "string", default: "8" },
    uplink: { type: "string", default: "8" },
    pairs: { type: "string", default: "15" },
    most: { type: "string", default: "45" },
    mib: { type: "string", default: "64" },
  },
});
const only = values.only.split(",");

const cleanups = [];
const t = /** @type {any} */ ({ after: (fn) => cleanups.push(fn) });

/** Processor time that this machine has spent, all processes, in ms. */
const cpu = () => {
  const [, user, nice, system, , , irq, softirq] = fs.readFileSync("/proc/stat", "utf8").split("\n")[0].split(/\s+/).map(Number);
  return (user + nice + system + irq + softirq) * 10;
};

/** A file of text: this repository's sources, one after the other, and again. @param {string} dir @param {number} size */
function writeCorpus(dir, size) {
  const root = path.resolve(import.meta.dirname, "../..");
  const names = execFileSync("git", ["-c", `safe.directory=${root}`, "ls-files", "*.go", "*.js", "*.mjs", "*.md", "*.ts", "*.css", "*.html"], { cwd: root, encoding: "utf8" });
  const corpus = Buffer.concat(names.trim().split("\n").map((name) => fs.readFileSync(path.join(root, name))));
  const file = path.join(dir, "corpus.txt");
  fs.writeFileSync(file, Buffer.concat(Array(Math.ceil(size / corpus.length)).fill(corpus)).subarray(0, size));
  return { file, size };
}

/**
 * @param {import("puppeteer-core").Page} sender @param {import("puppeteer-core").Page} recipient @param {string} what
 * @param {{ file: string, size: number }} file @param {boolean} compression
 */
async function run(sender, recipient, what, { file, size }, compression) {
  const input = await sender.$("input");
  await /** @type {any} */ (input).uploadFile(file);
  const received = recipient.evaluate(async () => {
    const { files } = await (await me.offer()).accept().finished;
    return (await files[0].file()).size;
  });
  const [t0, c0] = [performance.now(), cpu()];
  await sender.evaluate(async (compression) => {
    const result = await me.room.send([me.input.files[0]], { compression }).finished;
    if (result.failedRecipients.length) throw new Error(JSON.stringify(result.failedRecipients));
  }, compression);
  if ((await received) !== size) throw new Error("the file is not whole");
  const seconds = (performance.now() - t0) / 1000;
  const perMB = (cpu() - c0) / (size / 1e6);
  console.log(`${what.padEnd(34)} ${compression ? "compression" : "as it is   "} ${seconds.toFixed(2).padStart(6)} s ${(size / 1e6 / seconds).toFixed(2).padStart(6)} MB/s ${perMB.toFixed(0).padStart(4)} ms/MB of processor time`);
  return { seconds, perMB };
}

try {
  console.log(`${os.cpus().length} processors`);
  const network = await Network.start(t, 2);
  const pages = [];
  for (const host of network.hosts) {
    const { browser } = await host.startBrowser(t);
    const [page] = await browser.pages();
    page.setDefaultTimeout(600_000);
    await loadMember(page, network.url);
    pages.push(page);
  }
  const [sender, recipient] = pages;
  const link = await sender.evaluate(async () => {
    me.watch(await me.tallow.createRoom({ name: "sender" }));
    me.input = document.createElement("input");
    me.input.type = "file";
    document.body.append(me.input);
    return me.room.link;
  });
  await recipient.evaluate(async (to) => me.watch(await me.tallow.joinRoom(to, { name: "recipient" })), link);
  await sender.evaluate(() => me.meets(1));

  const dir = tempDir(t);
  const results = [];
  if (only.includes("text")) {
    const size = Number(values.mb) * 1e6;
    const [text, random] = [writeCorpus(dir, size), await writeFile(dir, "random.bin", size)];
    await run(sender, recipient, "warms up", text, true);
    await network.hosts[0].cap({ up: Number(values.uplink) });
    await run(sender, recipient, "settles", random, false); // what was learnt of the uncapped link is forgotten
    const ratios = [];
    for (let i = 0; i < Number(values.rounds); i++) {
      const packed = await run(sender, recipient, `text, uplink of ${values.uplink} Mbit/s`, text, true);
      const plain = await run(sender, recipient, `text, uplink of ${values.uplink} Mbit/s`, text, false);
      const honest = await run(sender, recipient, `random, uplink of ${values.uplink} Mbit/s`, random, false);
      ratios.push(packed.seconds / Math.min(plain.seconds, honest.seconds));
    }
    await network.hosts[0].cap({});
    console.log(`text_ratio ${ratios.map((r) => r.toFixed(3)).join(" ")}`);
    results.push(`text_ratio=${median(ratios).toFixed(3)}`);
  }
  if (only.includes("random")) {
    const size = Number(values.mib) * 1024 * 1024;
    const [random, text] = [await writeFile(dir, "large.bin", size), writeCorpus(dir, size)];
    const losses = [];
    const work = [];
    const fast = [];
    for (const compression of [true, false]) await run(sender, recipient, "warms up", random, compression);
    for (let i = 0; i < Number(values.pairs) || (i < Number(values.most) && notch(losses) > 0.02); i++) {
      /** @type {any} */
      const times = {};
      for (const compression of i % 2 ? [true, false] : [false, true]) times[`${compression}`] = await run(sender, recipient, "random, no cap", random, compression);
      losses.push(1 - times.false.seconds / times.true.seconds);
      work.push(times.true.perMB / times.false.perMB);
    }
    for (let i = 0; i < 3; i++) {
      const packed = await run(sender, recipient, "text, no cap", text, true);
      const plain = await run(sender, recipient, "text, no cap", text, false);
      fast.push(packed.seconds / plain.seconds);
    }
    console.log(`random_loss ${losses.map((r) => r.toFixed(3)).join(" ")}`);
    console.log(`random_loss_within=${notch(losses).toFixed(3)} text_ratio_uncapped=${median(fast).toFixed(3)} random_processor_ratio=${median(work).toFixed(3)}`);
    results.push(`random_loss=${median(losses).toFixed(3)}`);
  }
  console.log(results.join(" "));
} finally {
  for (const fn of cleanups.reverse()) await fn();
}
